"""Creates your own suite in a new folder, ready to edit: shapes, tokens, batch, rate, corpus and tokenizer."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from shapelaw.errors import UserError
from shapelaw.terminal import write
from shapelaw.verbs.doors import Command, project_root

MODEL = "nano"
"""Suite from which a new one starts."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
CORPUS = """\
# @package _global_
# The corpus of the suite, for prepare and train alike. shapelaw prepare --help lists the kinds of data and their options.
defaults:
  - /data: stdlib # Python's own library, to try it; for your own: text, jsonl, parquet, huggingface, dolma, packages
  - /tokenizer: bytes # or bpe, gpt_neox
  - _self_
# data:
#   path: /my/texts
"""


def init(words: Sequence[str]) -> None:
    """Make a suite in the folder that the only word names, and print what to do with it.

    Raises:
        UserError: unless there is exactly one word, or if the folder exists already, or its name is not valid for a suite.
    """
    folder = Path(_folder(words)).expanduser().absolute()
    if not NAME.fullmatch(folder.name):
        raise UserError(
            f"{folder.name}: a suite's name has letters and digits, and _ . - after the first character; rename the folder so"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; give a new or empty folder")
    make(folder)
    place = shlex.quote(str(folder))
    write(
        f"{folder}: a suite of {len([*(folder / 'shape').glob('*.yaml')])} shapes; edit suite.yaml (tokens, batch, rate), "
        "suite_data.yaml (corpus, tokenizer) and shape/*.yaml, then:\n"
        f"    export SHAPELAW_SUITE={place}\n"
        "    shapelaw prepare\n"
        "    shapelaw train -m 'shape=glob(*)' hydra/launcher=plan # what it costs\n"
        "    shapelaw train -m 'shape=glob(*)'\n"
        "    shapelaw fit\n"
    )


def _folder(words: Sequence[str]) -> str:
    if len(words) != 1 or words[0].startswith("-") or "=" in words[0]:
        raise UserError(
            f"{' '.join(['init', *words])}: takes one folder for the new suite and nothing else; give init FOLDER"
        )
    return words[0]


def make(folder: Path) -> None:
    """Copy the suite from which new ones start, under the folder's name; the folder is either complete or missing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside:
        copy = Path(aside) / folder.name
        shutil.copytree(project_root() / "conf" / "suite" / MODEL, copy)
        suite = copy / "suite.yaml"
        named = re.sub(rf"^  name: {MODEL}$", f"  name: {folder.name}", suite.read_text(encoding="utf-8"), flags=re.M)
        suite.write_text(named, encoding="utf-8")
        (copy / "suite_data.yaml").write_text(CORPUS, encoding="utf-8")
        copy.replace(folder)


COMMAND = Command("FOLDER", init)
