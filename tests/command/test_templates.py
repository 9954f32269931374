"""What people paste as trainer.command: it works as in their shell, or is refused in one line that says what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from programs import TEMPLATE, Prepare, option

from shapelaw.errors import UserError
from shapelaw.template import Template
from support import Door

VALUES = {"lr": 0.01, "folder": "/runs/a b"}
PASTED = [
    "train.py \\\n  --lr {lr} \\\n  --out {folder}",
    "train.py --lr {lr} \\\r\n--out {folder}",
    "train.py \\\n\\\n --lr {lr}\n",
    "train.py --na\\\nme x",
    "train.py --note \"a \\\n b\" 'c \\\n d'",
    "python -c 'print(1)\nprint(2)'",
    "env CUDA_VISIBLE_DEVICES=0 python train.py --lr={lr}",
    'python train.py --name="a \'b\' \\"c\\"" --other=\'a "b"\' --third=it\\\'s',
    'python train.py --config \'{{"lr": {lr}, "betas": [0.9, 0.95]}}\'',
    "python train.py '&&' \"a | b; c > d\" \\& 'a#b' a#b",
    "python train.py '$HOME' \\$HOME '~/x' ~model.dropout 5$ '`id`'",
    "python train.py --warmup 10% --text '100 %s %d'",
    "python train.py --name Überlauf --emoji '🙂 日本語'",
    "python -m torch.distributed.run --rdzv-endpoint=localhost:0 train.py -- --flag model.layers=[1,2]",
]


@pytest.mark.parametrize("pasted", PASTED)
def test_what_is_pasted_is_split_as_a_shell_does(pasted: str) -> None:
    """Word by word what bash gives to a program, where it is told the values in quotes."""
    quoted = pasted.replace("'{{", "'{").replace("}}'", "}'")
    quoted = re.sub(r"\{lr\}", "0.01", quoted).replace("{folder}", "'/runs/a b'").replace("\r\n", "\n")
    shell = subprocess.run(["bash", "-c", f"printf '%s\\0' {quoted}"], capture_output=True, text=True, check=True)
    assert Template(pasted).filled(VALUES) == shell.stdout.split("\0")[:-1]


IN_A_SHELL = "in a shell, and no shell reads this"
SCRIPT = "put the line into a script that takes the values (bash run.sh {lr} {folder}), or quote plain text"
VALUE = "write what it stands for, or quote plain text with '...'"
REFUSED = {
    "train.py\n--lr {lr}": "end every line but the last with a backslash, with nothing behind it",
    "train.py \\ \n--lr {lr}": "end every line but the last with a backslash, with nothing behind it",
    "CUDA_VISIBLE_DEVICES=0 python x.py": f"CUDA_VISIBLE_DEVICES=0 sets a variable {IN_A_SHELL}; write env before it: env C",
    "~/venv/bin/python train.py": f"~ stands for something else {IN_A_SHELL}; {VALUE}",
    "train.py out_dir=~/runs": f"~ stands for something else {IN_A_SHELL}; {VALUE}",
    "train.py --out $HOME/x": f"$HOME stands for something else {IN_A_SHELL}; {VALUE}",
    "train.py --out ${HOME}/x": f"${{HOME}} stands for something else {IN_A_SHELL}; {VALUE}",
    'train.py --out "$HOME/x"': "$HOME stands for something else in a shell, also between double quotes, ",
    'train.py --at "`date`"': "` stands for something else in a shell, also between double quotes",
    "cd lab && python train.py": f"&& joins or redirects programs {IN_A_SHELL}; {SCRIPT}",
    "python train.py; python eval.py": f"; joins or redirects programs {IN_A_SHELL}; {SCRIPT}",
    "python train.py | tee log": f"| joins or redirects programs {IN_A_SHELL}; {SCRIPT}",
    "python train.py 2>&1": f"> joins or redirects programs {IN_A_SHELL}; {SCRIPT}",
    "nohup python train.py &": f"& joins or redirects programs {IN_A_SHELL}; {SCRIPT}",
    "python train.py --data <PATH>": f"< joins or redirects programs {IN_A_SHELL}; {SCRIPT}",
    "python train.py --at $(date)": f"$( joins or redirects programs {IN_A_SHELL}; {SCRIPT}",
    "python train.py # the usual": f"# begins a comment {IN_A_SHELL}; leave it out, or quote plain text",
    "python train.py --config '{\"lr\": 1}'": '{"lr"} is not a field; the fields are folder, lr; {{ is a brace',
}


@pytest.mark.parametrize("pasted", REFUSED)
def test_what_only_a_shell_could_read_is_refused(pasted: str) -> None:
    with pytest.raises(UserError) as told:
        Template(pasted).filled(VALUES)
    assert str(told.value).startswith("trainer.command: ")
    assert REFUSED[pasted] in str(told.value)
    assert "\n" not in str(told.value)


def test_a_field_may_have_a_format_that_a_shell_would_read() -> None:
    assert Template("x {lr:>8} {lr:<6}").filled(VALUES) == ["x", "    0.01", "0.01  "]


def test_a_command_of_several_lines_is_the_run_of_the_same_on_one_line(prepared: Prepare) -> None:
    program, *fields = TEMPLATE.split(" width=")
    one, several = (prepared(template=f"{program}{gap}width={fields[0]}")[1] for gap in (" ", " \\\n    "))
    assert one.identity == several.identity
    assert several.fingerprint["trainer"]["command"] == TEMPLATE


@pytest.mark.parametrize("words", [(), ("-m", "hydra/launcher=plan")])
def test_a_variable_that_hydra_reads_is_no_option(door: Door, outputs: Path, words: tuple[str, ...]) -> None:
    """`${NAME}` never comes to the template."""
    code, said = door("train", *words, "trainer=command", option("train.py --out ${HOME}/x"), "shape=16x1")
    assert (code, said.count("\n")) == (2, 1)
    assert (
        "'HOME' not found; name a key that there is, or write ${oc.env:NAME} for a variable of the environment" in said
    )
    assert not outputs.exists()
