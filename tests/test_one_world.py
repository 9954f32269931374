"""One fit, one world: rows whose losses do not compare are refused, and what a study varies is flagged, with counts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from shapelaw.errors import UserError
from shapelaw.fitting.compare import compare
from shapelaw.fitting.fit import fit
from shapelaw.laws import get_law
from shapelaw.runs import RunsTable, load_runs
from shapelaw.runs.worlds import INCOMPARABLE, ON_PURPOSE, flags, refuse_mixture
from shapelaw.suite import Suite
from shapelaw.tracking import SUITE_TAG, VAL_LOSS, MlflowTracker, RunInfo, Store
from shapelaw.tracking.store import open_store
from test_laws import NATURAL
from tracked import PARAMS

SIZES, TOKENS = (1e6, 4e6, 1.6e7, 6.4e7), (1e8, 4e8, 1.6e9)
PLAIN: dict[str, Any] = {"delta": 1e-3}


def world(shift: float = 0.0, prefix: str = "", **facts: object) -> pd.DataFrame:
    """Runs of four sizes, three rows each, on one law; a shift of the losses, and columns of their own."""
    params, tokens = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS, indexing="ij"))
    loss = get_law("params_tokens").predict(NATURAL["params_tokens"], {"params": params, "tokens": tokens}) + shift
    run = [f"{prefix}{size:g}" for size in params]
    return pd.DataFrame({"run": run, "params": params, "tokens": tokens, "loss": loss, **facts})


def two(name: str, first: object, second: object, **facts: object) -> RunsTable:
    """Two worlds in one table that differ in one column, and in their losses."""
    return RunsTable(
        pd.concat([world(prefix="a", **{name: first}, **facts), world(0.3, "b", **{name: second}, **facts)])
    )


def parts_of(error: UserError, table: RunsTable) -> list[RunsTable]:
    """The tables that the conditions of a refusal pick, as a shell and Hydra read them."""
    said = re.findall(r"('subset\.where=.*?') \(\d+ rows? of", str(error))
    parser = OverridesParser.create()
    return [table.select(str(parser.parse_override(shlex.split(one)[0]).value())) for one in said]


VALUES: dict[str, tuple[object, object]] = {
    "corpus": ("a1b2c3d4e5f6", 'it\'s a "\\"$corpus'),
    "tokenizer": ("bytes", "bpe"),
    "vocab_size": (256, 50_304),
    "evaluation_set": ("wiki", "code"),
    "validation_tokens": (1024, 16_384),
    "loss_unit": ("nats", "bits"),
    "trainer": ("shapelaw", "torchrun train.py"),
    "suite": ("nano", "micro"),
    "seq_len": (2048, 128),
    "batch_tokens": (1e6, 2e3),
    "lr_base": (5.0, 0.05),
    "lr_rule": ("width", "none"),
    "schedule": ("constant", "none"),
    "decay_fraction": (0.0, 0.1),
    "cooldown": (0.0, 0.1),
    "warmup_tokens": (0.0, 1e6),
    "optimizer": ("adamw", "muon"),
    "precision": ("bf16", "fp32"),
    "architecture": ("geglu", "swiglu"),
    "head_size": (64, 128),
    "sweep": ("swiglu", "geglu"),
}


@pytest.mark.parametrize("name", [*INCOMPARABLE, "suite"])
def test_losses_that_do_not_compare_are_refused_with_what_picks_each_part(name: str) -> None:
    table = two(name, *VALUES[name])
    with pytest.raises(UserError, match=f"differ in {name}.*mixture=allow") as refused:
        fit(table, **PLAIN)
    parts = parts_of(refused.value, table)
    assert [(len(part), part.kept["run"].str[0].unique().tolist()) for part in parts] in (
        [(12, ["a"]), (12, ["b"])],
        [(12, ["b"]), (12, ["a"])],
    )
    assert str(refused.value).count("(12 rows of 4 runs)") == 2
    for part in parts:
        assert fit(part, **PLAIN).parameters["alpha"] == pytest.approx(0.35, abs=0.05)
    allowed = fit(table, mixture="allow", **PLAIN)
    assert [
        flag for flag in allowed.flags if flag.startswith("mixture:") and name in flag and "12 rows of 4 runs" in flag
    ]


@pytest.mark.parametrize("name", [name for name in ON_PURPOSE if name in VALUES and name != "suite"])
def test_what_a_study_varies_is_fitted_and_flagged_with_counts(name: str) -> None:
    table = two(name, *VALUES[name])
    result = fit(table, **PLAIN)
    said = [flag for flag in result.flags if flag.startswith(f"differing_{name}:")]
    assert len(said) == 1
    assert said[0].count("(12 rows of 4 runs)") == 2
    assert f"note: {said[0]}" in result.summary()
    counted = result.checklist["data"]["facts"][name]
    assert [(share["rows"], share["runs"]) for share in counted] == [(12, 4), (12, 4)]


def test_two_suites_of_one_corpus_are_flagged() -> None:
    result = fit(two("suite", "nano", "micro", corpus="one"), **PLAIN)
    assert any(flag.startswith("differing_suite:") for flag in result.flags)


def test_records_of_suites_count_where_there_is_no_column() -> None:
    """Two corpora in one experiment, as tracked runs have them."""
    frame = pd.concat([world(prefix="a"), world(0.3, "b")])
    recorded = {run: Suite(name="nano", corpus=f"{run[0]}" * 12, validation_tokens=1024) for run in frame["run"]}
    table = RunsTable(frame, {}, recorded)
    with pytest.raises(UserError, match="differ in corpus") as refused:
        fit(table, **PLAIN)
    assert [sorted({run[0] for run in part.kept["run"]}) for part in parts_of(refused.value, table)] == [["a"], ["b"]]
    assert len(table.select('corpus == "aaaaaaaaaaaa" and validation_tokens == 1024')) == 12


def test_several_differences_are_told_by_the_fewest_that_pick_the_parts() -> None:
    frames = [
        world(0.1 * i, f"{i}-", corpus=corpus, tokenizer=tokenizer, vocab_size=vocab)
        for i, (corpus, tokenizer, vocab) in enumerate([("x", "t", 256), ("x", "u", 512), ("y", "t", 256)])
    ]
    table = RunsTable(pd.concat(frames))
    with pytest.raises(UserError, match="differ in corpus, tokenizer, vocab_size") as refused:
        refuse_mixture(table)
    parts = parts_of(refused.value, table)
    assert sorted(part.kept["run"].str[0].unique().tolist() for part in parts) == [["0"], ["1"], ["2"]]
    assert "vocab_size ==" not in str(refused.value)


def test_a_condition_that_was_given_is_kept_beside_what_picks_a_part() -> None:
    table = two("corpus", "x", "y")
    with pytest.raises(UserError) as refused:
        refuse_mixture(table.select("params < 2e7"), 'params < 2e7 and run != "q"')
    assert [len(part) for part in parts_of(refused.value, table)] == [9, 9]


def test_rows_that_do_not_say_it_are_flagged_and_counted() -> None:
    frame = pd.concat([world(prefix="a", corpus="x"), world(0.3, "b")])
    result = fit(RunsTable(frame), **PLAIN)
    assert (
        "unrecorded_corpus: some rows do not name their corpus: x (12 rows of 4 runs), not said (12 rows of 4 runs)"
        in (result.flags)
    )
    three = RunsTable(pd.concat([frame, world(0.2, "c", corpus="z")]))
    with pytest.raises(UserError, match="differ in corpus") as refused:
        fit(three, **PLAIN)
    assert sorted(part.kept["run"].str[0].unique().tolist() for part in parts_of(refused.value, three)) == [
        ["a"],
        ["b"],
        ["c"],
    ]


def test_no_row_that_says_everything_is_no_traceback() -> None:
    frames = [world(prefix="a", corpus="x"), world(prefix="b", corpus="y")]
    frames += [world(prefix="c", tokenizer="t"), world(prefix="d", tokenizer="u")]
    table = RunsTable(pd.concat(frames))
    with pytest.raises(UserError, match="differ in corpus, tokenizer") as refused:
        refuse_mixture(table)
    assert [len(part) for part in parts_of(refused.value, table)] == [12] * 4


def test_what_a_law_reads_may_differ() -> None:
    table = two("batch_tokens", 1e5, 2e4)
    assert any("batch_tokens" in flag for flag in flags(table))
    assert not any("batch_tokens" in flag for flag in flags(table, get_law("steps_batch").predictors))


def test_one_world_has_no_flag() -> None:
    table = RunsTable(world(**{name: first for name, (first, _) in VALUES.items()}))
    assert flags(table) == ()
    refuse_mixture(table)
    assert fit(table, **PLAIN).flags == fit(RunsTable(world()), **PLAIN).flags


def test_comparisons_refuse_as_fits_do() -> None:
    with pytest.raises(UserError, match="differ in corpus"):
        compare(two("corpus", "x", "y"), ["params_tokens"])


def test_what_is_neither_refused_nor_allowed() -> None:
    with pytest.raises(UserError, match="mixture=ignore: allowed values are refuse, allow"):
        fit(RunsTable(world()), mixture="ignore")


# Schedules


def rows_of(path: Path, frame: pd.DataFrame, **options: Any) -> RunsTable:
    frame.to_csv(path, index=False)
    return load_runs("csv", path=path, **options)


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ({"schedule": "cosine"}, 4),  # the last row of each of four runs
        ({"schedule": "cosine", "total_tokens": TOKENS[-1]}, 4),
        ({"schedule": "Cosine to 0.1", "total_tokens": 2 * TOKENS[-1]}, 0),
        ({"schedule": "wsd", "total_tokens": TOKENS[-1], "decay_fraction": 0.2}, 12),  # 4e8 lies before 0.8 of 1.6e9
        ({"schedule": "wsd", "total_tokens": TOKENS[-1], "decay_fraction": 0.8}, 8),
        ({"schedule": "wsd", "total_tokens": TOKENS[-1]}, 4),
        ({"schedule": "constant", "total_tokens": 2 * TOKENS[-1]}, 12),
        ({"schedule": "", "total_tokens": 2 * TOKENS[-1]}, 12),
        ({"warmup_tokens": TOKENS[0]}, 8),
    ],
)
def test_rows_midway_through_a_schedule_are_left_out(tmp_path: Path, columns: dict[str, object], kept: int) -> None:
    frame = world(**columns)
    if not kept:
        with pytest.raises(UserError, match="midway through a schedule"):
            rows_of(tmp_path / "runs.csv", frame)
        return
    table = rows_of(tmp_path / "runs.csv", frame)
    assert len(table) == kept
    assert all("midway through a schedule" in reason or reason == "during the warm-up" for reason in table.exclusions)
    assert sum(table.exclusions.values()) == 12 - kept
    every = rows_of(tmp_path / "runs.csv", frame, midway="keep")
    assert len(every) == 12
    assert any(flag.startswith("midway_rows:") for flag in flags(every)) == (kept < 12)
    assert not any(flag.startswith("midway_rows:") for flag in flags(every, ("params", "total_tokens")))


def test_the_end_of_a_decay_is_no_row_at_a_constant_rate(tmp_path: Path) -> None:
    frame = world(schedule="wsd", total_tokens=TOKENS[-1], decay_fraction=0.2)
    table = rows_of(tmp_path / "runs.csv", frame)
    assert "differing_annealed: the rows differ in annealed: no (8 rows of 4 runs), yes (4 rows of 4 runs)" in flags(
        table
    )
    assert len(table.select('annealed == "no"')) == 8


def test_a_frame_that_was_not_loaded_is_flagged() -> None:
    result = fit(RunsTable(world(schedule="cosine", total_tokens=TOKENS[-1])), **PLAIN)
    assert any(flag.startswith("midway_rows: 8 kept rows midway through a schedule (cosine)") for flag in result.flags)


# Tracked runs


def track(uri: str, root: Path, identity: str, corpus: str, **params: object) -> None:
    """A run of two validations, halfway and at its end, as train.py records it."""
    tags = {SUITE_TAG: Suite(name="tiny", corpus=corpus, tokenizer="t", validation_tokens=1024).to_json()}
    info = RunInfo(identity, "train", identity, {**PARAMS, **params}, tags)
    run = MlflowTracker(Store(uri, str(root / "artifacts"), "tiny"), info, root / identity, 60.0)
    for tokens in (1280, 2560):
        run.log({VAL_LOSS: 2.5}, tokens)
    run.finish("FINISHED")
    run.close()


def test_tracked_runs_say_how_they_were_trained(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    open_store(uri, str(tmp_path / "artifacts"), "tiny")
    usual = {"precision": "bf16", "optim.beta1": 0.9, "architecture": "shapelaw 1", "schedule.final_factor": 0.0}
    track(uri, tmp_path, "aaa", "one", **usual, schedule="constant")
    track(uri, tmp_path, "bbb", "two", **{**usual, "schedule.final_factor": 0.1}, schedule="cosine")
    track(uri, tmp_path, "ccc", "two", **usual, schedule="wsd", **{"schedule.decay_fraction": 0.5})
    track(uri, tmp_path, "ddd", "two")  # before schedules were recorded
    table = load_runs("mlflow", uri=uri, experiment="tiny")
    kept = {run: sorted(rows["tokens"]) for run, rows in table.kept.groupby("run")}
    assert kept == {"aaa": [1280, 2560], "bbb": [2560], "ccc": [1280, 2560], "ddd": [1280, 2560]}
    assert table.exclusions == {"midway through a schedule (cosine to 0.1)": 1}
    facts = table.facts.assign(run=table.kept["run"]).drop_duplicates("run").set_index("run")
    assert facts.loc["bbb", ["schedule", "precision", "architecture", "optimizer"]].tolist() == [
        *("cosine to 0.1", "bf16", "shapelaw 1", "adamw beta1=0.9")
    ]
    assert facts.sort_index()["corpus"].tolist() == ["one", "two", "two", "two"]
    with pytest.raises(UserError, match=r"differ in corpus.*'subset.where=") as refused:
        fit(table, **PLAIN)
    assert [len(part) for part in parts_of(refused.value, table)] == [5, 2]


# Random mixtures


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[RunsTable, set[str]]:
    """A table of two to four worlds, and the facts in which its rows differ or that only some of them say."""
    count, rows = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    names = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4, unique=True))
    by_record = draw(st.booleans())
    frames, recorded = [], {}
    chosen: dict[str, list[object]] = {name: [] for name in names}
    for i in range(count):
        frame = world(0.05 * i, f"{i}-").head(rows)
        for name in names:
            value = draw(st.sampled_from([*VALUES[name], None]))
            chosen[name].append(value)
            if value is None:
                continue
            if by_record and name in ("corpus", "tokenizer", "validation_tokens", "seq_len", "lr_rule"):
                known = recorded.get(i, {})
                recorded[i] = {**known, name: value}
            else:
                frame[name] = value
        frames.append(frame)
    suites = {run: Suite(**values) for i, values in recorded.items() for run in frames[i]["run"]}
    apart = {name for name, values in chosen.items() if len(set(values)) > 1}
    return RunsTable(pd.concat(frames, ignore_index=True), {}, suites), apart


def told(table: RunsTable, apart: set[str], *, parts: bool) -> None:
    """Every fact that rows differ in is refused by name, or flagged by name; and if asked, the parts are no mixtures."""
    try:
        refuse_mixture(table)
        refused = ""
    except UserError as error:
        refused = str(error)
        for part in parts_of(error, table) if parts else ():
            refuse_mixture(part)
    said = flags(table)
    for name in apart:
        assert any(
            re.match(rf"(mixture: .*differ in {name},|(differing|unrecorded)_{name}:)", flag) for flag in said
        ), name
    assert bool(refused) == any(flag.startswith("mixture:") for flag in said)


@given(mixtures())
@settings(max_examples=15, deadline=None)
def test_no_mixture_goes_unsaid(mixture: tuple[RunsTable, set[str]]) -> None:
    told(*mixture, parts=True)


@pytest.mark.slow
@given(mixtures())
@settings(max_examples=5000, deadline=None)
def test_no_mixture_of_thousands_goes_unsaid(mixture: tuple[RunsTable, set[str]]) -> None:
    told(*mixture, parts=False)
