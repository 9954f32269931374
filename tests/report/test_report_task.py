"""report.py: what it refuses, and what it leaves out with a reason."""

from __future__ import annotations

import pytest

from shapelaw.config import to_dataclass
from shapelaw.errors import UserError
from shapelaw.figures import catalogue
from shapelaw.figures.catalogue import NotDrawn
from shapelaw.figures.evidence import of_a_table
from shapelaw.report.task import evidence_of
from support import Compose
from worlds import table


def test_an_unknown_figure_is_refused_with_what_there_is() -> None:
    with pytest.raises(UserError, match="figures=fig99: no such figure; there are fig"):
        catalogue.chosen(["fig99"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["report=gemstones", "runs=chinchilla"], "the published runs go with report=gemstones alone"),
        (["runs=gemstones"], "the published runs go with report=gemstones alone"),
        (["delta=-1"], "delta=-1: allowed are finite numbers above 0"),
        (["report.name=mine"], "report.name=mine: allowed are gemstones, experiment"),
    ],
)
def test_contradictions_are_refused(overrides: list[str], said: str, composed: Compose) -> None:
    with pytest.raises(UserError, match=said):
        evidence_of(to_dataclass(composed(*overrides, name="report")))


def test_what_the_data_cannot_show_is_left_out_with_its_reason(tmp_path: object, composed: Compose) -> None:
    asked = to_dataclass(composed(name="report"))
    without = table().frame.drop(columns="vocab_size")
    evidence = of_a_table(type(table())(without.assign(cooldown=0.0)), asked.report.tables)
    (left,) = catalogue.draw(evidence, tmp_path, catalogue.chosen(["fig22"]))  # type: ignore[arg-type]
    assert isinstance(left, NotDrawn)
    assert left.reason == "the runs do not name their width, depth and vocabulary"
