"""Writes the table of rooms into docs/structure.md: floors from pyproject.toml's contract, lines from the docstrings.

python scripts/structure.py           # writes it
python scripts/structure.py --check   # exit code 1 if it is not up to date
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "structure.md"
BEGIN, END = "<!-- rooms: written by make structure -->\n", "<!-- end of rooms -->\n"
LINE = "runs"
"""Lowest floor of those that know nothing of training: what crosses below it is a runs table."""


def floors() -> list[list[str]]:
    """Rooms of every floor, the top first."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [re.split(r"\s*[|:]\s*", layer) for layer in layers]


def says(room: str) -> str:
    """First sentence of a room's docstring."""
    package = ROOT / "src" / "shapelaw" / room
    file = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text()))
    if not text:
        raise SystemExit(f"{file.relative_to(ROOT)}: its docstring says what the room holds; write one")
    return text.partition("\n\n")[0].replace("\n", " ").replace("|", r"\|")


def table() -> str:
    """Markdown: a row a room, floors from the top, the runs table between those that fit and those that train."""
    rows = ["| floor | room | what it holds |", "| --- | --- | --- |"]
    for number, rooms in zip(range(len(floors()), 0, -1), floors(), strict=True):
        for room in rooms:
            name = f"{room}/" if (ROOT / "src" / "shapelaw" / room).is_dir() else f"{room}.py"
            rows.append(f"| {number} | `{name}` | {says(room)} |")
        if LINE in rooms:
            rows.append(
                "| | *runs table* | *all that crosses this line: above it nothing knows how runs are trained* |"
            )
    return "\n".join(rows) + "\n"


def main() -> int:
    """Write the page, or say whether it is as it would be written."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    whole = f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(whole)
    elif whole != text:
        sys.stderr.write("docs/structure.md: the rooms have changed; run make structure\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
