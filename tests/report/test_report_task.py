"""report.py: what it refuses, and what it leaves out with a reason."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pytest

from shapelaw import fit
from shapelaw.config import BootstrapOptions, ReportConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.figures import catalogue
from shapelaw.figures.catalogue import NotDrawn
from shapelaw.figures.evidence import EVERY, CannotDraw, Evidence, of_a_table
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.candidates import feasible
from shapelaw.prescribe.limits import UNLIMITED, Limits
from shapelaw.prescribe.registry import Basis
from shapelaw.prescribe.world import World
from shapelaw.runs.table import RunsTable
from shapelaw.tracking import client
from shapelaw.verbs.next import best_size, planned
from shapelaw.verbs.report import answer_of, evidence_of, next_of, unanswerable
from shapelaw.verbs.report_links import Links, published
from support import Compose
from tracked import tracker
from worlds import fitted, table


def test_an_unknown_figure_is_refused_with_what_there_is() -> None:
    with pytest.raises(UserError, match="figures=fig99: no such figure; there are fig"):
        catalogue.chosen(["fig99"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["report=gemstones", "runs=chinchilla"], "the published runs need report=gemstones"),
        (["runs=gemstones"], "the published runs need report=gemstones"),
        (["delta=-1"], "delta=-1: allowed values are finite numbers from 1e-15"),
        (["report.name=mine"], "report.name=mine: allowed values are gemstones, experiment"),
    ],
)
def test_contradictions_are_refused(overrides: list[str], said: str, composed: Compose) -> None:
    with pytest.raises(UserError, match=said):
        evidence_of(to_dataclass(composed(*overrides, name="report")))


def test_options_of_the_runs_are_those_of_a_fit(tmp_path: Path, data_dir: Path, composed: Compose) -> None:
    """A run that diverged and rows after a rollback are left out, or not, as asked; an unknown loss is refused."""
    frame = table().frame
    first, second = frame["run"].unique()[:2]
    frame = frame.assign(diverged_step=np.where(frame["run"] == first, 7.0, np.nan), rollbacks=frame["run"] == second)
    frame.astype({"rollbacks": int}).to_csv(tmp_path / "runs.csv", index=False)

    def runs(*overrides: str) -> set[str]:
        asked = to_dataclass(composed("runs=csv", f"runs.path={tmp_path}/runs.csv", *overrides, name="report"))
        return set(evidence_of(asked).runs(EVERY).kept["run"])

    every = set(frame["run"])
    assert runs() == every - {first}
    assert runs("runs.diverged=keep") == every
    assert runs("runs.rolled_back=exclude") == every - {first, second}
    one = f'subset.where="run == \\"{second}\\""'
    assert runs(one) == {second}
    with pytest.raises(UserError, match="no column colour"):
        runs("subset.where='colour == 1'")
    published = to_dataclass(composed("report=gemstones", "subset.where='width == 512'", name="report"))
    assert set(evidence_of(published).runs().kept["width"]) == {512}
    asked = to_dataclass(composed("report=gemstones", "runs.loss=wiki", name="report"))
    with pytest.raises(UserError, match="loss=wiki: the table has no column loss_wiki"):
        evidence_of(asked).runs()


def test_what_the_data_cannot_show_is_left_out_with_its_reason(tmp_path: object, composed: Compose) -> None:
    asked = to_dataclass(composed(name="report"))
    without = table().frame.drop(columns="vocab_size")
    evidence = of_a_table(type(table())(without.assign(cooldown=0.0)), asked.report.tables)
    (left,) = catalogue.draw(evidence, tmp_path, catalogue.chosen(["fig22"]))  # type: ignore[arg-type]
    assert isinstance(left, NotDrawn)
    assert left.reason == "the runs do not name their width, depth and vocabulary"


def known(**changed: object) -> RunsTable:
    """A table whose losses are those of a known interaction law."""
    runs = table(**changed)
    losses = fitted("interaction", counting="no_embedding_and_head").predict(runs)
    return RunsTable(runs.frame.assign(loss=losses), {"source": "known"})


def own(asked: ReportConfig, runs: RunsTable) -> Evidence:
    options = {"bootstrap": BootstrapOptions(n=8)}
    return of_a_table(runs, asked.report.tables, asked.report.assumed, **options)


def test_a_table_without_rates_and_cooldowns_stands_for_the_hot_runs(composed: Compose) -> None:
    asked = to_dataclass(composed(name="report"))
    plain = RunsTable(table().frame.drop(columns="lr_base"))
    evidence = own(asked, plain)
    assert len(evidence.runs()) == len(evidence.runs(EVERY)) == len(plain)
    assert "lr_base" not in evidence.runs(), "what is taken for granted is no part of the table"
    for subset, condition in (("lr_ablation_hot", "cooldown == 0 and lr_base == 2.5"), ("cool_end", "cooldown > 0")):
        with pytest.raises(CannotDraw) as caught:
            evidence.runs(subset)
        assert str(caught.value) == (
            f"there are no such runs as the paper's {subset}: none meets {condition} (no such column: cooldown counts as "
            "0, lr_base counts as 5)"
        )


def test_a_table_at_another_rate_is_told_so(composed: Compose) -> None:
    evidence = own(to_dataclass(composed(name="report")), table(lr_base=1.0))
    with pytest.raises(
        CannotDraw, match=r"none meets cooldown == 0 and lr_base == 5 \(no such column: cooldown counts"
    ):
        evidence.runs()


def test_only_runs_with_shapes_and_a_vocabulary_are_answered() -> None:
    said = "the runs do not name their width, depth and vocabulary, so no shape can be prescribed"
    frame = table().frame
    assert unanswerable(table()) == ""
    for column in ("vocab_size", "width"):
        assert unanswerable(RunsTable(frame.drop(columns=column))) == said
    assert unanswerable(RunsTable(frame.assign(vocab_size=np.where(frame.index == 0, np.nan, 50_304)))) == said


@pytest.mark.parametrize("lacking", [["vocab_size"], ["width", "depth", "vocab_size"]])
def test_runs_without_shapes_are_answered_by_a_law_without(lacking: list[str], composed: Compose) -> None:
    asked = to_dataclass(composed("bootstrap.n=8", name="report"))
    evidence = own(asked, RunsTable(known().frame.drop(columns=lacking)))
    problem, budget = answer_of(asked, evidence)
    assert (problem.space, problem.fit.law) == ("params", "params_tokens")
    assert problem.best(budget).inside


def test_the_page_opens_with_the_largest_budget_inside_the_fitted_domain(composed: Compose) -> None:
    asked = to_dataclass(composed("bootstrap.n=8", name="report"))
    evidence = own(asked, known())
    problem, budget = answer_of(asked, evidence)
    largest = float(evidence.runs().flops().max())
    assert not problem.best(largest).inside, "its best size has more tokens than any run"
    assert problem.best(budget).inside
    assert not problem.best(1.15 * budget).inside, "a step of the scan further"
    assert problem.largest_inside(budget) == budget < largest
    given = to_dataclass(composed("budget=1e20", name="report"))
    assert answer_of(given, evidence)[1] == 1e20
    with pytest.raises(
        UserError,
        match="budget=1e\\+30 flops: outside the range that the shapes can serve, because the best is the largest",
    ):
        answer_of(to_dataclass(composed("budget=1e30", name="report")), evidence)


@pytest.mark.parametrize(("budget", "downward"), [(1e30, True), (1e14, False)])
def test_the_nearest_budget_served_is_the_first_whose_best_shape_is_no_end(budget: float, downward: bool) -> None:
    problem = Problem.of(fitted("interaction", counting="no_embedding_and_head"), table())
    found = problem.nearest_served(budget)
    assert found is not None
    assert (found < budget) == downward
    problem.best(found)
    nearer = found * 10 ** (0.06 if downward else -0.06)  # a step of the scan, and the rounding to two digits
    with pytest.raises(UserError, match="outside the range that the shapes can serve"):
        problem.best(nearer)
    with pytest.raises(UserError, match=re.escape(f"give the nearest budget that they serve, about {found:.3g}")):
        problem.best(budget)
    assert problem.nearest_served(found) == found
    assert problem.nearest_served(1e60) is None


def test_links_lead_to_the_runs_of_the_store_and_to_no_others(composed: Compose, outputs: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    one = tracker(uri, tmp_path, "aaaa")
    one.finish("FINISHED")
    one.close()
    (run,) = client(uri).search_runs([client(uri).get_experiment_by_name("tiny").experiment_id])
    asked = to_dataclass(composed(f"runs.uri={uri}", "runs.experiment=tiny", name="report"))
    links = Links.of(asked)
    assert links.run.format(run=run.info.run_id) == (
        f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    )
    assert links.fit == {}
    for other in (["runs=csv", "runs.path=x.csv"], ["mlflow_ui="]):
        assert Links.of(to_dataclass(composed(*other, name="report"))) == Links()


def test_fits_of_the_same_runs_are_listed_the_newest_first(composed: Compose, outputs: Path) -> None:
    asked = to_dataclass(composed(name="report"))
    folder = Path(asked.outputs_dir) / "fits"
    for name, source in (("eq1-0a", "known"), ("eq2-0b", "elsewhere"), ("eq1-0c", "known")):
        (folder / name).mkdir(parents=True)
        fit = fitted("params_tokens")
        dataclasses.replace(fit, checklist={"data": {"source": source}}).save(folder / name)
    (folder / "eq1-0d").mkdir()
    (folder / "eq1-0d" / "fit.json").write_text("{}")
    for age, name in enumerate(("eq1-0d", "eq1-0a", "eq2-0b", "eq1-0c")):
        os.utime(folder / name / "fit.json", (1e9 - age, 1e9 - age))
    rows = Links(fit={"0a": "http://127.0.0.1/a"}).fits(asked, known())
    assert [(row.name, row.link) for row in rows] == [("eq1-0a", "http://127.0.0.1/a"), ("eq1-0c", "")]


def test_the_page_is_kept_in_mlflow_and_linked_from_its_experiment(composed: Compose, tmp_path: Path) -> None:
    """Twice: the last page stays, with one link, below what its users wrote; nothing goes to a store that is only read."""
    uri, page = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "index.html"
    one = tracker(uri, tmp_path, "aaaa")
    one.finish("FINISHED")
    one.close()
    store = client(uri)
    tiny = store.get_experiment_by_name("tiny").experiment_id
    store.set_experiment_tag(tiny, "mlflow.note.content", "Ours.")
    given = ("tracker=mlflow", f"runs.uri={uri}", "runs.experiment=tiny", f"tracker.artifacts={tmp_path}/artifacts")
    asked = to_dataclass(composed(*given, f"tracker.uri={uri}", name="report"))
    for content in ("first", "second"):
        page.write_text(content)
        address = published(asked, page)
    (run,) = store.search_runs([store.get_experiment_by_name("reports").experiment_id])
    link = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/index.html"
    assert address == f"http://127.0.0.1:5000/{link}"
    assert Path(store.download_artifacts(run.info.run_id, "index.html")).read_text() == "second"
    assert store.get_experiment(tiny).tags["mlflow.note.content"] == f"Ours.\n* [The report]({link})\n"
    elsewhere = to_dataclass(composed(*given, f"tracker.uri=sqlite:///{tmp_path}/other.db", name="report"))
    foreign = to_dataclass(composed(*given, f"tracker.uri={uri}", "runs.columns={loss: eval}", name="report"))
    assert [published(other, page) for other in (elsewhere, foreign)] == ["", ""]
    assert not (tmp_path / "other.db").exists()


def basis() -> Basis:
    runs = table()
    made = fit(runs, law="interaction", delta=1e-3)
    return Basis(made, runs, World.of(made, runs), Path())


def test_the_page_names_the_run_that_next_would_plan() -> None:
    """The same target, candidates and run as `shapelaw next` has at the budget of the largest run, with its command."""
    asked = basis()
    budget = float(asked.runs.flops().max())
    limits = Limits(params_min=1e8, params_max=4e8)
    candidates = feasible(asked.world, asked.runs, budget, limits)
    (expected,) = planned(asked, best_size(asked, 10 * budget), candidates)["runs"]
    named = next_of(asked, limits, 60.0)
    assert named is not None
    assert f"train {expected['width']:.0f}x{expected['depth']:.0f} for " in named.told
    assert f"({expected['flops']:.3g} FLOPs)" in named.told
    assert f"from {expected['deviation_before']:.3g} to {expected['deviation_after']:.3g}" in named.told
    assert named.command == expected["command"] != ""
    assert named.more == f"shapelaw next budget={budget:.3g} next=5"


def test_the_search_for_the_next_run_ends_in_its_time_and_says_why_none_is_named() -> None:
    assert next_of(basis(), UNLIMITED, 0.0) is None
    named = next_of(basis(), UNLIMITED, 1e-6)
    assert named is not None
    assert re.fullmatch(r"No run is named: time ran out after 0 of \d+ candidates; `shapelaw next` .*", named.told)
    assert (named.command, named.more) == ("", "")
    narrow = next_of(basis(), Limits(params_min=1e15), 60.0)
    assert narrow is not None
    assert narrow.told.startswith("No run is named: ")
