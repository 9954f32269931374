"""Every file in conf/ and sweeps/ composes; the suites are what they say."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from shapelaw.config import FitConfig, PrepareConfig, TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.counting import params_total
from shapelaw.laws import ACCURACY_LAWS, law_names
from shapelaw.laws.choices import CHOICES
from shapelaw.planned_run import PlannedRun, plan_run
from shapelaw.training.cost import flops_of
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import set_environment
from support import PUBLISHED, ROOT, Compose, Sweep

CONF = ROOT / "conf"
TRAIN_GROUPS = ("lr_rule", "schedule", "cooldown", "optim", "data", "tokenizer", "attention", "spikes", "tracker")
RunsOf = Callable[[str], list[tuple[TrainConfig, PlannedRun]]]
FIT_GROUPS = ("runs", "subset", "law", "method", "solver", "counting", "flops", "bootstrap", "holdout", "tracker")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("choice", [f"{group}={name}" for group in TRAIN_GROUPS for name in options(group)])
def test_every_choice_of_training_composes(composed: Compose, choice: str) -> None:
    config: TrainConfig = to_dataclass(composed(choice))
    assert plan_run(config, "corpus").identity


@pytest.mark.parametrize("choice", [f"{group}={name}" for group in FIT_GROUPS for name in options(group)])
def test_every_choice_of_fitting_composes(composed: Compose, choice: str) -> None:
    given = [choice] if choice != "runs=csv" else [choice, "runs.path=x.csv"]
    config: FitConfig = to_dataclass(composed(*given, name="fit"))
    assert config.law.name in (*law_names(), *CHOICES)


def test_mappings_take_any_name(composed: Compose) -> None:
    for given in ("runs.columns={tokens: D}", "+runs.columns={tokens: D}", "runs.columns.tokens=D"):
        config: FitConfig = to_dataclass(composed("runs=csv", "runs.path=x.csv", given, name="fit"))
        assert config.runs.columns == {"tokens": "D"}


@pytest.mark.parametrize("choice", [f"{g}={name}" for g in ("data", "tokenizer") for name in options(g)])
def test_every_choice_of_preparing_composes(composed: Compose, choice: str) -> None:
    with initialize_config_dir(str(CONF)):
        config: PrepareConfig = to_dataclass(compose("prepare", [choice]))
    assert config.data.name


def test_every_law_and_every_choice_has_a_file_of_its_own() -> None:
    assert options("law") == sorted({*law_names(), *CHOICES} - set(ACCURACY_LAWS))
    files = sorted((CONF / "law" / "accuracy").glob("*.yaml"))
    assert [yaml.safe_load(file.read_text())["name"] for file in files] == sorted(ACCURACY_LAWS)


def test_every_choice_says_what_it_is() -> None:
    files = [*CONF.rglob("*.yaml"), *(ROOT / "sweeps").glob("*.yaml")]
    silent = [
        str(file.relative_to(ROOT)) for file in files if "#" not in file.read_text() and file.parent.name != "shape"
    ]
    assert not silent


def in_suite(name: str, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> DictConfig:
    monkeypatch.setenv("SHAPELAW_SUITE", name)
    monkeypatch.setenv("SHAPELAW_ROOT", str(ROOT))
    set_environment(ROOT)
    store_schemas()
    with initialize_config_dir(str(CONF)):
        return compose("train", list(overrides))


def shapes(name: str) -> dict[str, tuple[int, int]]:
    found = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "suite" / name / "shape").glob("*.yaml")}
    found = {stem: shape.get("shape", shape) for stem, shape in found.items()}
    return {stem: (shape["width"], shape["depth"]) for stem, shape in found.items()}


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory: pytest.TempPathFactory) -> RunsOf:
    """The runs of a suite, a shape each, composed once."""

    @functools.cache
    def composed(suite: str) -> list[tuple[TrainConfig, PlannedRun]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SHAPELAW_OUTPUTS", str(tmp_path_factory.mktemp(suite)))
            configs = [to_dataclass(in_suite(suite, patch, f"shape={stem}")) for stem in shapes(suite)]
        return [(config, plan_run(config, "corpus")) for config in configs]

    return composed


@pytest.mark.parametrize("suite", ["nano", "nano_wide", "micro", "micro_steps", "gemstones"])
def test_every_shape_of_a_suite_is_a_run(runs_of: RunsOf, suite: str) -> None:
    files = shapes(suite)
    assert list(files) == [f"{width}x{depth}" for width, depth in files.values()]
    assert [planned.shape.name for _, planned in runs_of(suite)] == list(files)


def test_gemstones_are_the_papers(runs_of: RunsOf) -> None:
    assert set(shapes("gemstones").values()) == set(PUBLISHED)
    for config, planned in runs_of("gemstones"):
        width, depth = planned.shape.width, planned.shape.depth
        assert params_total(width, depth, planned.vocab_size, planned.shape.head_size) == PUBLISHED[width, depth]
        assert config.schedule.warmup_tokens == 80e6
        assert (planned.vocab_size, planned.seq_len, planned.batch_sequences, planned.last_step) == (
            50_304,
            2048,
            2048,
            83_475,
        )
        assert (planned.validate_every_steps, planned.checkpoint_every_steps) == (477, 477)


def test_nano_has_sizes_that_are_best_for_some_budget_and_shapes_that_are_not(runs_of: RunsOf) -> None:
    """12 to 16 shapes; six sizes or more, a quarter apart at least, over a decade; two aspect ratios at three of them. Every
    validation comes after 200 steps, and a sweep of both rates takes at most 1.4e13 FLOPs: minutes of two cores."""
    runs = [planned for _, planned in runs_of("nano")]
    assert 12 <= len(runs) <= 16
    sizes = [params_total(one.shape.width, one.shape.depth, one.vocab_size, one.shape.head_size) for one in runs]
    alike: list[list[tuple[float, float]]] = []
    for size, ratio in sorted(zip(sizes, (one.shape.width / one.shape.depth for one in runs), strict=True)):
        if alike and size < 1.25 * alike[-1][0][0]:
            alike[-1].append((size, ratio))
        else:
            alike.append([(size, ratio)])
    assert len(alike) >= 6
    assert max(sizes) > 10 * min(sizes)
    assert sum(max(r for _, r in some) > 2 * min(r for _, r in some) for some in alike) >= 3
    assert all(one.validate_every_steps >= 200 and one.last_step % one.validate_every_steps == 0 for one in runs)
    assert 2 * sum(map(flops_of, runs)) < 1.4e13


def test_nano_wide_spreads_shapes() -> None:
    """At least 12 shapes, width and depth over a factor of 8 or more, several aspect ratios at equal parameter counts."""
    found = shapes("nano_wide").values()
    widths, depths = {width for width, _ in found}, {depth for _, depth in found}
    assert len(found) >= 12
    assert max(widths) >= 8 * min(widths)
    assert max(depths) >= 8 * min(depths)
    body = [width * width * depth for width, depth in found]  # what the blocks' parameters go with
    assert sum(body.count(size) >= 2 for size in set(body)) >= 4


def test_micro_is_for_one_gpu(runs_of: RunsOf) -> None:
    """8 to 12 shapes of 5M to 60M parameters, about 1.5e17 FLOPs in all, several aspect ratios at equal parameter counts."""
    runs = [planned for _, planned in runs_of("micro")]
    assert 8 <= len(runs) <= 12
    for planned in runs:
        assert planned.vocab_size == 8192
        assert planned.shape.head_size == 64
        assert (
            5e6
            < params_total(planned.shape.width, planned.shape.depth, planned.vocab_size, planned.shape.head_size)
            < 60e6
        )
    assert sum(map(flops_of, runs)) == pytest.approx(1.5e17, rel=0.05)
    body = [planned.shape.width**2 * planned.shape.depth for planned in runs]
    assert sum(body.count(size) >= 2 for size in set(body)) >= 4


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml")))
def test_every_named_sweep_opens_with_its_question(name: str) -> None:
    lines = (ROOT / "sweeps" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# Question: ")


def test_a_named_sweep_is_run_and_the_command_line_wins(sweep: Sweep) -> None:
    """The suite of the tests has none of nano's shapes; its own are given after the sweep's name."""
    short = ("tokens=2560", "warmup_tokens=256", "validation.every_tokens=512", "checkpoint.every_tokens=512")
    done = sweep("-m", "sweeps=lr_nano", "shape=glob(16*)", "lr_base=5", "tracker=none", *short)
    assert done.returncode == 0, done.stderr
    assert "2 runs to do" in done.stderr
