"""Where the answer to a question about a fit is written: a YAML named by what was asked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from shapelaw.config.places import PlacesConfig
from shapelaw.files import write_text
from shapelaw.fitting.result import plain


def write_answer(options: PlacesConfig, kind: str, law: str, fit: Path, content: Mapping[str, Any]) -> Path:
    """Write an answer into the outputs' folder for its kind.

    Args:
        options: the question.
        kind: name of that folder.
        law: law of the fit; the file's name begins with its name, without its file or module.
        fit: its folder; the same question about another fit is another file.
        content: the answer.
    """
    question = {**dataclasses.asdict(options), "fit": str(fit.absolute())}
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:12]
    path = Path(options.outputs_dir) / kind / f"{law.rpartition(':')[2]}-{digest}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(plain(content))))
    return path
