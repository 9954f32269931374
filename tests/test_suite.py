"""The record of a suite: made from a configuration, kept in trackers and tables, read back the same."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import load_corpus
from shapelaw.errors import UserError
from shapelaw.lr_rules import LR_RULES, NO_PATCH, DepthPatch
from shapelaw.planned_run import corpus_folder, plan_run
from shapelaw.runs import RunsTable, load_runs
from shapelaw.shapes import Shape
from shapelaw.suite import FIELDS, Suite, agreed, differing, pack, unpack, usual
from shapelaw.tracking import MlflowTracker, RunInfo, Store, open_store, read_table
from shapelaw.verbs import suites
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.fit import table_of
from shapelaw.verbs.main import set_environment
from shapelaw.verbs.report import evidence_of, folder_of
from support import ROOT, TINY, Compose, train
from tracked import PARAMS

positive = st.floats(1e-9, 1e12)
whole = st.integers(1, 2**40)
patches = st.builds(
    DepthPatch, patch_ratio=positive | st.just(math.inf), patch_strict=st.booleans(), patch_divisor=positive
)
KINDS = {
    "name": st.text(min_size=1),
    "folder": st.text(min_size=1),
    "lr_rule": st.sampled_from(LR_RULES),
    "patch": patches,
    "lr_batch_scaling": st.sampled_from(["none", "sqrt", "linear"]),
    "corpus": st.text(min_size=1),
    "tokenizer": st.text(min_size=1),
    **dict.fromkeys(("width_unit", "lr_batch_reference", "lr_base"), positive),
    **dict.fromkeys(("head_size", "vocab_size", "seq_len", "batch_tokens", "validation_tokens"), whole),
}
records = st.builds(Suite, **{name: st.none() | kind for name, kind in KINDS.items()})


@settings(deadline=None)
@given(records)
def test_json_gives_the_record_back(suite: Suite) -> None:
    assert set(KINDS) == set(FIELDS)
    text = suite.to_json()
    assert Suite.from_json(text) == suite
    json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity, which JSON lacks


@settings(deadline=None)
@given(st.dictionaries(st.text(), records, max_size=5))
def test_packing_gives_every_run_its_record_back(suites: dict[str, Suite]) -> None:
    packed = json.loads(json.dumps(pack(suites), allow_nan=False))
    assert unpack(packed, "x") == suites
    assert len(packed) == len(set(suites.values()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": 3}', "name"),
        ('{"nmae": "x"}', "nmae"),
        ('{"head_size": 16.5}', "head_size"),
        ('{"patch": {"patch_ratio": "wide"}}', "patch"),
        ("[]", "here"),
        ("{", "is not a record of a suite"),
    ],
)
def test_what_is_no_record_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        Suite.from_json(text, "here")
    assert str(caught.value).startswith("here")


def test_the_record_is_that_of_the_configuration(composed: Compose) -> None:
    config: TrainConfig = to_dataclass(composed("lr_base=2.5", "lr_rule=width", "lr_rule.patch_ratio=inf"))
    assert Suite.of(config, "c" * 64, "t" * 64) == Suite(
        name="tiny",
        folder=str(TINY),
        head_size=8,
        width_unit=16.0,
        lr_rule="width",
        patch=DepthPatch(patch_ratio=math.inf, patch_strict=False),
        lr_batch_scaling="none",
        lr_batch_reference=None,
        lr_base=2.5,
        vocab_size=256,
        seq_len=16,
        batch_tokens=128,
        corpus="c" * 12,
        tokenizer="t" * 12,
        validation_tokens=1024,
    )


@pytest.mark.parametrize(
    ("rule", "scaling", "by_hand"),
    [
        ("width", "none", 5 / (32 * 16)),
        ("width_sqrt_depth", "none", 5 / (32 * 16 * math.sqrt(3))),
        ("sqrt_depth", "sqrt", 5 * math.sqrt(128 / 32) / math.sqrt(3)),
        ("none", "linear", 5 * 128 / 32),
    ],
)
def test_the_rate_is_the_rules(composed: Compose, rule: str, scaling: str, by_hand: float) -> None:
    chosen = ("shape.width=32", "shape.depth=3", f"lr_rule={rule}", f"lr_batch_scaling={scaling}")
    planned = plan_run(to_dataclass(composed(*chosen, "lr_base=5", "lr_batch_reference=32")), "corpus")
    assert planned.suite.rate(Shape(32, 3, 8)) == planned.lr_eff == pytest.approx(by_hand, rel=1e-12)


def test_a_rate_that_nothing_says_is_not_guessed() -> None:
    with pytest.raises(UserError, match="lr_base, width_unit, lr_rule, patch"):
        Suite(name="x").rate(Shape(32, 2, 8))


def test_identity_does_not_hang_on_where_the_suite_lies(composed: Compose) -> None:
    here, there = (plan_run(to_dataclass(composed(*given)), "corpus") for given in ((), ("suite.folder=/else/where",)))
    assert (here.suite.folder, there.suite.folder) == (str(TINY), "/else/where")
    assert here.identity == there.identity


def test_a_trained_run_is_read_back_with_its_record(composed: Compose, outputs: Path) -> None:
    given = ("tracker=mlflow", "lr_base=2.5", "tokens=512", "validation.tokens=256", "lr_rule=width")
    planned = train(composed, *given)
    config: TrainConfig = to_dataclass(composed(*given))
    manifest = load_corpus(corpus_folder(config)).manifest
    table = load_runs("mlflow", uri=config.tracker.uri, experiment="tiny")
    expected = Suite.of(config, manifest.corpus_hash, manifest.tokenizer)
    assert table.suites == {planned.identity: expected}
    kept = table.to_parquet(outputs / "runs.parquet")
    assert RunsTable.read(kept).suites == table.suites


def tracked(uri: str, root: Path, identity: str, params: dict[str, object], tags: dict[str, str]) -> None:
    info = RunInfo(identity, "train", f"run {identity}", params, tags)
    run = MlflowTracker(Store(uri, str(root / "artifacts"), "tiny"), info, root / identity, 60.0)
    run.log({"val/loss": 2.5}, 2560)
    run.finish("FINISHED")
    run.close()


def test_older_runs_have_what_their_parameters_say(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    open_store(uri, str(tmp_path / "artifacts"), "tiny")
    older = {**PARAMS, "lr_rule": "width_sqrt_depth", "corpus": "0123456789ab"}
    tracked(uri, tmp_path, "aaa", older, {"shapelaw.corpus": "0123456789ab"})
    tracked(uri, tmp_path, "bbb", older, {"shapelaw.suite_record": Suite(name="tiny", seq_len=32).to_json()})
    frame, suites = read_table(uri, "tiny")
    known = Suite(
        name="tiny",
        head_size=8,
        vocab_size=256,
        seq_len=16,
        batch_tokens=128,
        lr_base=5.0,
        lr_rule="width_sqrt_depth",
        corpus="0123456789ab",
    )
    assert suites == {"aaa": known, "bbb": Suite(name="tiny", seq_len=32)}
    table = RunsTable(frame, {}, suites)
    assert table.suites["aaa"] == known
    assert table.suites["bbb"].seq_len == 32  # the record, not the column
    tracked(uri, tmp_path, "ccc", older, {"shapelaw.suite_record": '{"name": 1}'})
    with pytest.raises(UserError, match=r"tag shapelaw.suite_record.*name"):
        read_table(uri, "tiny")


def rows(**columns: object) -> pd.DataFrame:
    sizes = {"params": 1e6, "tokens": [1e6, 2e6, 3e6, 4e6], "loss": 3.0}
    return pd.DataFrame({"run": ["a", "a", "b", "b"], **sizes, **columns})


def test_a_table_s_columns_are_its_record_where_there_is_none() -> None:
    table = RunsTable(
        rows(suite=["x", "x", "y", "y"], seq_len=[16, 16, np.nan, np.nan], batch_tokens=[64, 128, 64, 64])
    )
    assert table.suites == {"a": Suite(name="x", seq_len=16), "b": Suite(name="y", batch_tokens=64)}
    assert RunsTable(rows()).suites == {"a": Suite(), "b": Suite()}
    assert RunsTable(rows(lr_base=2.5), {}, {"a": Suite(lr_base=5.0)}).suites["a"] == Suite(lr_base=5.0)


def test_selections_and_files_keep_the_records(tmp_path: Path) -> None:
    own = {"a": Suite(name="x", patch=NO_PATCH), "b": Suite(name="y", seq_len=128)}
    table = RunsTable(rows(loss_code=2.0), {"source": "here"}, own)
    narrowed = table.select("tokens > 2.5e6")
    assert narrowed.suites == own
    assert narrowed.suite == own["b"]
    assert table.with_loss("code").suites == own
    back = RunsTable.read(table.to_parquet(tmp_path / "runs.parquet"))
    assert (back.suites, back.about, back.hash) == (own, {"source": "here"}, table.hash)


def test_an_older_parquet_is_read_without_records(tmp_path: Path) -> None:
    frame = RunsTable(rows(suite="x")).frame
    frame.attrs = {"shapelaw": {"source": "here"}}
    frame.to_parquet(tmp_path / "runs.parquet")
    back = RunsTable.read(tmp_path / "runs.parquet")
    assert (back.about, back.suite) == ({"source": "here"}, Suite(name="x"))


@pytest.mark.parametrize("packed", [3, [{"runs": ["a"]}], [{"suite": {"nmae": "x"}, "runs": ["a"]}]])
def test_a_damaged_record_in_a_parquet_is_said(tmp_path: Path, packed: object) -> None:
    frame = RunsTable(rows()).frame
    frame.attrs = {"shapelaw.suites": packed}
    frame.to_parquet(tmp_path / "runs.parquet")
    with pytest.raises(UserError, match=r"runs\.parquet"):
        RunsTable.read(tmp_path / "runs.parquet")


def test_one_record_of_several() -> None:
    few, most = Suite(name="x", seq_len=16, head_size=8), Suite(name="x", seq_len=32)
    other = Suite(name="y", seq_len=64, vocab_size=99)
    weighted = [(few, 2), (most, 3), (other, 4)]
    assert usual(weighted) == Suite(name="x", seq_len=32, head_size=8)
    assert differing(weighted) == {"name": ["x", "y"], "seq_len": [64, 32, 16]}
    assert usual([]) == Suite()
    assert agreed([few, most, few]) == Suite(name="x", head_size=8)


@pytest.mark.parametrize(
    ("source", "subset", "expected"),
    [
        ("gemstones", "hot_100b+", ("gemstones", 5.0, 2048, 50_304, 2**22, 128, 1.0)),
        ("gemstones", "lr_ablation_hot", ("gemstones", 2.5, 2048, 50_304, 2**22, 128, 1.0)),
        ("gemstones", "slim_chinchilla", ("chinchilla", None, 2048, None, None, None, None)),
        ("chinchilla", None, ("chinchilla", None, 2048, None, None, None, None)),
    ],
)
def test_published_tables_have_their_papers_record(
    data_dir: Path, source: str, subset: str | None, expected: tuple[object, ...]
) -> None:
    table = load_runs(source, subset=subset)
    suite = table.suite
    assert set(table.suites.values()) == {suite}
    found = (suite.name, suite.lr_base, suite.seq_len, suite.vocab_size, suite.batch_tokens, suite.head_size)
    assert (*found, suite.width_unit) == expected


def test_the_published_record_is_the_suite_that_train_composes(
    data_dir: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHAPELAW_SUITE", "gemstones")
    monkeypatch.setenv("SHAPELAW_ROOT", str(ROOT))
    set_environment(ROOT)
    store_schemas()
    with initialize_config_dir(str(ROOT / "conf")):
        config: TrainConfig = to_dataclass(compose("train"))
    assert load_runs("gemstones").suite == Suite.of(config)


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("nano", "nano"),
        ("conf/suite/nano", "nano"),
        ("./conf/../conf/suite/gemstones", "gemstones"),
        ("tests/suites/tiny", str(TINY)),
        (str(TINY), str(TINY)),
    ],
)
def test_where_a_suite_lies_is_said_so_that_any_folder_finds_it(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, given: str, folder: str
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SHAPELAW_SUITE", given)
    monkeypatch.setenv("SHAPELAW_ROOT", str(ROOT))
    set_environment(ROOT)
    assert os.environ["SHAPELAW_SUITE"] == folder


def in_folder(folder: Path, name: str) -> Path:
    """The tiny suite under another name, in a folder of its own."""
    shutil.copytree(TINY, folder)
    file = folder / "suite.yaml"
    file.write_text(file.read_text().replace("name: tiny", f"name: {name}"))
    return folder


@pytest.mark.parametrize("folder", ["mine", "nano", "my suites/mine"])
@pytest.mark.parametrize("relative", [False, True])
def test_runs_are_those_of_the_suite_s_name_whatever_its_folder(
    outputs: Path, tmp_path: Path, composed: Compose, monkeypatch: pytest.MonkeyPatch, folder: str, relative: bool
) -> None:
    """In one store: runs of the suite `two`, and others under the folder's own name."""
    uri = f"sqlite:///{outputs}/mlflow.db"
    for experiment, identity in (("two", "aaa"), (Path(folder).name, "bbb")):
        open_store(uri, str(outputs / "artifacts"), experiment)
        info = RunInfo(identity, "train", identity, {**PARAMS, "suite": experiment})
        run = MlflowTracker(Store(uri, str(outputs / "artifacts"), experiment), info, outputs / identity, 60.0)
        run.log({"val/loss": 2.5}, 1280)
        run.log({"val/loss": 2.4}, 2560)
        run.finish("FINISHED")
        run.close()
    place = in_folder(tmp_path / folder, "two")
    monkeypatch.chdir(place.parent)
    monkeypatch.setenv("SHAPELAW_SUITE", f"./{place.name}" if relative else str(place))
    set_environment(ROOT)
    fitted = to_dataclass(composed("tracker=mlflow", "subset=all", name="fit"))
    assert fitted.runs.experiment == suites.suite_name() == "two"
    assert set(table_of(fitted).kept["run"]) == {"aaa"}
    reported = to_dataclass(composed("tracker=mlflow", name="report"))
    assert folder_of(reported) == outputs / "reports" / "two"
    assert set(evidence_of(reported).runs("every row").kept["run"]) == {"aaa"}


def test_other_runs_are_fitted_without_a_suite_that_composes(
    outputs: Path, tmp_path: Path, composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is asked for only where the experiment is that of the suite."""
    place = in_folder(tmp_path / "mine", "two")
    (place / "suite.yaml").write_text("suite: [")
    monkeypatch.setenv("SHAPELAW_SUITE", str(place))
    set_environment(ROOT)
    assert to_dataclass(composed("runs=gemstones", name="fit")).runs.experiment is None
    with pytest.raises(UserError, match=rf"^SHAPELAW_SUITE={place}: {place}/suite.yaml, line 2: "):
        to_dataclass(composed(name="fit"))


@pytest.mark.parametrize("suite", ["nano", "micro", "gemstones"])
def test_shapes_are_those_of_the_suite_s_files(outputs: Path, monkeypatch: pytest.MonkeyPatch, suite: str) -> None:
    monkeypatch.setenv("SHAPELAW_SUITE", suite)
    monkeypatch.setenv("SHAPELAW_ROOT", str(ROOT))
    set_environment(ROOT)
    names = [path.stem for path in (ROOT / "conf" / "suite" / suite / "shape").glob("*.yaml")]
    assert sorted(f"{width}x{depth}" for width, depth in suites.shapes()) == sorted(names)


def test_composing_another_suite_leaves_the_one_in_force(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPELAW_SUITE", str(TINY))
    monkeypatch.setenv("SHAPELAW_ROOT", str(ROOT))
    set_environment(ROOT)
    nano = suites.find(Suite(name="nano"))
    assert nano is not None
    assert (nano.folder, nano.head_size, nano.patch) == ("nano", 16, DepthPatch(patch_ratio=math.inf))
    assert suites.suite_name() == "tiny"
    assert suites.find(Suite(name="tiny", folder="/nowhere")) == suites.find(Suite(name="tiny", folder=str(TINY)))
    assert suites.find(Suite(name="elsewhere", folder=str(TINY))) is None
