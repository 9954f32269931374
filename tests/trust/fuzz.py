"""Inputs broken at random, place by place: each must be refused in one line, or do no harm.

`python tests/trust/fuzz.py 1000` prints the table of docs/guarantees.md: cases, refused, accepted for each place. A case that
raises anything but a clear message, or is accepted and changes a result, ends its place, is printed, and makes the exit code 1.
"""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from omegaconf import DictConfig

from shapelaw.config import FitConfig, ParallelKind, PrescribeConfig, ReportConfig, TrainConfig
from shapelaw.config.option import keys_of
from shapelaw.config.schema import to_dataclass
from shapelaw.counting import params_total
from shapelaw.data import BytesChoice, TextSource, load_corpus, prepare
from shapelaw.figures.catalogue import chosen
from shapelaw.files import SEAL
from shapelaw.fitting.fit import fit
from shapelaw.fitting.result import load_fit
from shapelaw.model import InitSpec, ModelSpec, Transformer
from shapelaw.model.initialisation import initial_weight
from shapelaw.optim import build_adamw
from shapelaw.parallel.layout import Layout
from shapelaw.parallel.placement import place
from shapelaw.planned_run import corpus_folder, plan_run
from shapelaw.report import write
from shapelaw.run_state import State, Status, read_state
from shapelaw.runs import load_runs
from shapelaw.shapes import Shape
from shapelaw.training import checkpoint
from shapelaw.training.checkpoint import Progress
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.fit import make_fit, table_of
from shapelaw.verbs.main import set_environment
from shapelaw.verbs.messages import explain
from shapelaw.verbs.prescribe import prescribe
from shapelaw.verbs.report import evidence_of, folder_of, page_of

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "suites" / "tiny"

Judge = Callable[[Any], bool]
"""Puts a case to the program: True if it was accepted without harm, False if refused in one clear line."""


@dataclass(frozen=True)
class Place:
    """Where input comes in.

    Args:
        name: for people.
        cases: what is tried.
        judge: puts it to the program.
        share: of the number of cases asked for; costly places get fewer.
    """

    name: str
    cases: SearchStrategy[Any]
    judge: Judge
    share: float = 1.0


def run(place: Place, cases: int) -> Counter[str]:
    """Try so many cases; how many were accepted and refused.

    Raises:
        AssertionError, or what the program raised: at the first case that is neither, with the smallest such case.
    """
    tally: Counter[str] = Counter()

    @settings(
        max_examples=max(1, round(cases * place.share)),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(place.cases)
    def trial(case: Any) -> None:
        tally["accepted" if place.judge(case) else "refused"] += 1

    trial()
    return tally


def refused(call: Callable[[], Any]) -> str | None:
    """The message, if the call was refused with one that users understand; None if it went through."""
    try:
        call()
    except Exception as error:
        said = explain(error)
        if said is None:
            raise
        assert said.strip(), "an empty message"
        return said
    return None


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.just([]),
    st.just({}),
    st.just([1, "a"]),
)


@dataclass(frozen=True)
class Edit:
    """A change of one place of a JSON value: replaced, or taken out."""

    at: int
    take_out: bool
    value: Any


edits = st.builds(Edit, st.integers(0, 10**6), st.booleans(), values)


def edited(content: Any, edit: Edit) -> Any:
    """A copy of a JSON value with one place changed."""
    changed = copy.deepcopy(content)
    holders = list(_places(changed))
    holder, key = holders[edit.at % len(holders)]
    if edit.take_out:
        del holder[key]
    else:
        holder[key] = edit.value
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from _places(value[key])


@dataclass(frozen=True)
class Damage:
    """A change of a file's bytes: one flipped, the rest cut off, or some put at the end."""

    at: int
    kind: str
    bits: int


anywhere = st.integers(0, 10**7).map(lambda number: number * 2_654_435_761 % 2**32)
"""Small numbers, which hypothesis prefers, fall all over a file."""
damages = st.builds(Damage, anywhere, st.sampled_from(["flip", "cut", "append"]), st.integers(1, 255))


def damaged(data: bytes, damage: Damage) -> bytes:
    """The bytes after the damage, always other ones."""
    at = damage.at % len(data)
    if damage.kind == "cut":
        return data[:at]
    if damage.kind == "append":
        return data + bytes([damage.bits]) * (1 + at % 9)
    return data[:at] + bytes([data[at] ^ damage.bits]) + data[at + 1 :]


def all_places(folder: Path) -> list[Place]:
    """Every place, its material made in a folder."""
    from trust.sealed import sealed_places  # which is made of what stands here

    return [
        *_corpus(folder / "corpus"),
        *_fit(folder / "fit"),
        *_checkpoint(folder / "checkpoint"),
        _run_state(folder / "run"),
        _table(folder / "table"),
        *_scripts(folder / "scripts"),
        *sealed_places(folder / "sealed"),
    ]


def _corpus(folder: Path) -> list[Place]:
    texts = folder / "texts"
    texts.mkdir(parents=True)
    for number in range(12):
        (texts / f"{number}.txt").write_text(f"{number} and {number**3}, then {number**5}.\n" * 9)
    made = folder / "corpus"
    prepare(TextSource((str(texts),)), BytesChoice(), made, val_fraction=0.3, shard_tokens=500, workers=1)
    whole = load_corpus(made, verify_hashes=True)
    manifest = made / "manifest.json"
    sealed = manifest.read_bytes()
    content = {key: value for key, value in json.loads(sealed).items() if key != SEAL}

    def opened() -> None:
        corpus = load_corpus(made, verify_hashes=True)
        assert corpus.manifest.corpus_hash == whole.manifest.corpus_hash
        for name, stream in whole.streams.items():
            assert corpus.streams[name].files == stream.files
            assert corpus.streams[name].counts == stream.counts

    def judge(data: bytes) -> bool:
        manifest.write_bytes(data)
        try:
            return refused(opened) is None
        finally:
            manifest.write_bytes(sealed)

    shards = sorted(made.glob("*.bin"))

    def shard(case: tuple[int, Damage]) -> bool:
        path = shards[case[0] % len(shards)]
        before = path.read_bytes()
        path.write_bytes(damaged(before, case[1]))
        try:
            assert refused(opened) is not None, "a damaged shard was not noticed"
        finally:
            path.write_bytes(before)
        return False

    return [
        Place("a manifest's bytes", damages, lambda damage: judge(damaged(sealed, damage))),
        Place(
            "a manifest edited by hand, without its seal",
            edits,
            lambda edit: judge(json.dumps(edited(content, edit)).encode()),
        ),
        Place("a shard's bytes (tokens)", st.tuples(st.integers(0, 99), damages), shard),
    ]


def _fit(folder: Path) -> list[Place]:
    folder.mkdir()
    params, tokens = np.meshgrid([1e6, 4e6, 2e7, 1e8], [1e8, 1e9, 4e9])
    loss = 1.7 + 400 / params**0.34 + 300 / tokens**0.28
    names = [f"run{size:g}" for size in params.ravel()]
    frame = pd.DataFrame({"run": names, "params": params.ravel(), "tokens": tokens.ravel(), "loss": loss.ravel()})
    path = fit(frame, law="params_tokens", bootstrap={"n": 3}).save(folder)
    asked = frame[["params", "tokens"]]
    sealed = path.read_bytes()
    expected = load_fit(path).predict(asked)
    content = {key: value for key, value in json.loads(sealed).items() if key != SEAL}

    def judge(data: bytes, same: bool) -> bool:
        path.write_bytes(data)
        try:
            return refused(lambda: used(same)) is None
        finally:
            path.write_bytes(sealed)

    def used(same: bool) -> None:
        result = load_fit(path)
        result.summary()
        predicted = result.predict(asked)
        assert np.isfinite(predicted).all(), "predictions that are no numbers"
        if same:
            np.testing.assert_array_equal(predicted, expected)

    return [
        Place("fit.json's bytes", damages, lambda damage: judge(damaged(sealed, damage), same=True)),
        Place(
            "fit.json edited by hand, without its seal",
            edits,
            lambda edit: judge(json.dumps(edited(content, edit)).encode(), same=False),
        ),
    ]


def _checkpoint(folder: Path) -> list[Place]:
    spec = ModelSpec(Shape(16, 1, 8), 32, 8, attention="sdpa")
    placement = place(Layout(ParallelKind.single), 0, torch.device("cpu"))

    def fresh() -> tuple[Transformer, torch.optim.Optimizer]:
        model = placement.build(spec)
        return model, build_adamw(model, 1e-3)

    model, optimizer = fresh()
    init = InitSpec()
    full = {name: initial_weight(name, held.shape, spec.shape, 0, init) for name, held in model.named_parameters()}
    checkpoint.set_weights(model, full, placement, folder)
    model.loss(torch.zeros(1, 9, dtype=torch.int64)).backward()
    optimizer.step()
    path = checkpoint.save(folder, model, optimizer, Progress(3, 1.5, 2.0, 1), placement)
    files = sorted(path.iterdir())

    def judge(case: tuple[int, Damage]) -> bool:
        file = files[case[0] % len(files)]
        before = file.read_bytes()
        file.write_bytes(damaged(before, case[1]))
        try:
            return refused(loaded) is None
        finally:
            file.write_bytes(before)

    def loaded() -> None:
        again, state = fresh()
        assert checkpoint.load(path, again, state, placement) == Progress(3, 1.5, 2.0, 1)
        for one, other in zip(again.parameters(), model.parameters(), strict=True):
            assert torch.equal(one, other)

    return [Place("a checkpoint's bytes, any of its files", st.tuples(st.integers(0, 99), damages), judge)]


def _run_state(folder: Path) -> Place:
    folder.mkdir()
    path = folder / "state.json"
    content = {
        "status": "finished", "step": 4, "steps": 4, "tokens": 512, "train_loss": 2.5, "val_loss": 2.6,
        "tokens_per_second": 1e4, "attempts": 1, "reason": "", "host": "here", "pid": 7, "mlflow_run_id": "a",
        "updated": 1.0,
    }  # fmt: skip

    def judge(edit: Edit) -> bool:
        path.write_text(json.dumps(edited(content, edit)))
        return refused(read) is None

    def read() -> None:
        state = read_state(folder)
        assert isinstance(state, State)
        assert isinstance(state.status, Status)
        for name in ("step", "steps", "tokens", "attempts"):
            assert type(getattr(state, name)) is int
        assert state.val_loss is None or math.isfinite(state.val_loss)

    return Place("a run's state.json, edited", edits, judge)


def _table(folder: Path) -> Place:
    folder.mkdir()
    rows = ["run,params,tokens,loss"] + [
        f"r{size},{size * 10**6},{step * 10**9},{5 / step + 1:.4f}" for size in (1, 2, 5) for step in (1, 2, 3)
    ]
    whole = "\n".join(rows).encode()
    path = folder / "runs.csv"

    def judge(damage: Damage) -> bool:
        path.write_bytes(damaged(whole, damage))
        return refused(read) is None

    def read() -> None:
        kept = load_runs("csv", path=str(path)).kept
        numbers = kept[["params", "tokens", "loss"]].to_numpy(dtype=float)
        assert np.isfinite(numbers).all()
        assert (numbers > 0).all()
        assert not kept.duplicated(["run", "tokens"]).any()

    return Place("a runs table's bytes (CSV)", damages, judge)


def _scripts(folder: Path) -> list[Place]:
    """The command lines of the scripts: a random key gets a random value."""
    folder.mkdir()
    os.environ |= {"SHAPELAW_SUITE": str(TINY), "SHAPELAW_OUTPUTS": str(folder / "outputs")}
    set_environment(ROOT)
    store_schemas()
    table = folder / "runs.csv"
    table.write_text("run,params,tokens,loss\n" + "".join(f"r{n},{n}e6,{n}e8,{9 - n}\n" for n in range(1, 7)))

    def train(config: DictConfig) -> None:
        asked: TrainConfig = to_dataclass(config)
        planned = plan_run(asked, "0" * 64)
        assert math.isfinite(planned.lr_eff)
        assert planned.lr_eff > 0
        assert 0 <= planned.first_step < planned.last_step
        assert Path(asked.outputs_dir) / "runs" in planned.folder.parents
        assert ".." not in planned.folder.relative_to(asked.outputs_dir).parts
        assert corpus_folder(asked).parent == Path(asked.data_dir)

    def fitted(config: DictConfig) -> None:
        asked: FitConfig = to_dataclass(config)
        result = make_fit(asked, table_of(asked))
        assert math.isfinite(result.objective)
        assert all(math.isfinite(value) for value in result.parameters.values())

    def prescribed(config: DictConfig) -> None:
        asked: PrescribeConfig = to_dataclass(config)
        values = prescribe(asked).values
        assert all(math.isfinite(value) for value in values.values())
        assert values["loss"] > 0
        assert values["tokens"] > 0
        if asked.budget is not None and asked.objective.name == "flops":
            assert values["flops"] <= asked.budget * (1 + 1e-9)

    def reported(config: DictConfig) -> None:
        asked: ReportConfig = to_dataclass(config)
        chosen(asked.figures)
        evidence = evidence_of(asked)
        assert Path(asked.outputs_dir) / "reports" in folder_of(asked).parents
        page = page_of(asked, evidence, [], folder / "reports" / "page")
        assert math.isfinite(page.budget)
        assert page.budget > 0
        assert write(page).stat().st_size > 10_000

    shapes = folder / "shapes.csv"
    shaped_runs().assign(lr_base=5.0, cooldown=0.0).to_csv(shapes, index=False)
    runs = load_runs("csv", path=str(shapes))
    (folder / "fit").mkdir()
    fit(runs, law="interaction").save(folder / "fit")
    runs.to_parquet(folder / "fit" / "runs.parquet")
    fit_base = ["runs=csv", f"runs.path={table}", "bootstrap=none", "tracker=none", "plots=false"]
    prescribe_base = [f"fit={folder / 'fit'}", "budget=1e21"]
    report_base = ["runs=csv", f"runs.path={shapes}", "bootstrap=none", "tracker=none"]
    return [
        _script("train", TrainConfig, train, [], 0.5),
        _script("fit", FitConfig, fitted, fit_base, 0.25),
        _script("prescribe", PrescribeConfig, prescribed, prescribe_base, 0.25),
        _script("report", ReportConfig, reported, report_base, 0.25),
    ]


def shaped_runs() -> pd.DataFrame:
    """Runs of six shapes at three token counts whose losses follow a law."""
    shapes = ((256, 23), (512, 12), (768, 45), (1024, 28), (1792, 18), (2048, 27))
    rows = [(width, depth, tokens) for width, depth in shapes for tokens in (1e10, 3e10, 1e11)]
    frame = pd.DataFrame(rows, columns=["width", "depth", "tokens"])
    params = params_total(frame["width"].to_numpy(), frame["depth"].to_numpy(), 50_304)
    loss = (
        1.5
        + 3 * frame["width"] ** -0.3
        + 2 * frame["depth"] ** -0.8
        + 300 / params**0.34
        + 400 / frame["tokens"] ** 0.3
    )
    names = frame["width"].astype(str) + "x" + frame["depth"].astype(str)
    return frame.assign(run=names, params=params, loss=loss, vocab_size=50_304)


def _script(name: str, schema: type[Any], work: Callable[[DictConfig], None], base: list[str], share: float) -> Place:
    keys = sorted(key for key in keys_of(schema) if not key.startswith(("tracker", "outputs_dir")))
    spelt = st.one_of(
        st.sampled_from(
            ["nan", ".inf", "-1", "0", "1e400", "null", "???", "true", "[]", "{}", "1e-300", "2.5", "../../x"]
        ),
        st.integers(-(10**20), 10**20).map(str),
        st.floats().map(str),
        st.text(st.characters(exclude_characters="\0"), max_size=8).map(quoted),  # no command line can hold a NUL
        st.sampled_from(["${oc.env:HOME}", "${nothing}", "a b", "a\nb", "$(touch x)", "; ls"]).map(quoted),
    )

    def judge(case: tuple[str, str]) -> bool:
        def composed() -> None:
            with initialize_config_dir(str(ROOT / "conf")):
                work(compose(name, [*base, f"{case[0]}={case[1]}"]))

        return refused(composed) is None

    return Place(f"{name}.py's command line", st.tuples(st.sampled_from(keys), spelt), judge, share)


def quoted(text: str) -> str:
    """Text as a value of an override."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def main(cases: int) -> int:
    """Print the table, a line as soon as it is known; the exit code."""
    _print("| place | cases | refused with a message | accepted without harm | failed silently or otherwise |")
    _print("| --- | --- | --- | --- | --- |")
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        for place in all_places(Path(name)):
            try:
                tally = run(place, cases)
                _print(f"| {place.name} | {tally.total():,} | {tally['refused']:,} | {tally['accepted']:,} | 0 |")
            except Exception:
                failed += 1
                _print(f"| {place.name} | | | | 1: {traceback.format_exc()} |")
    return int(failed > 0)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    sys.exit(main(int(sys.argv[1])))
