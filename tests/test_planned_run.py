"""Identity, derived numbers and state of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shapelaw.config import TrainConfig
from shapelaw.config.option import leaf_keys_of
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.fingerprint import BUILT_IN
from shapelaw.planned_run import PlannedRun, labels_of, plan_run
from shapelaw.run_state import State, Status, is_locked, lock, read_state, write_state
from shapelaw.training.checks import check_budgets
from shapelaw.training.sizes import sizes_of
from support import ROOT, Compose


def planned(composed: Compose, *overrides: str, corpus: str = "c") -> PlannedRun:
    return plan_run(to_dataclass(composed(*overrides)), corpus)


@pytest.mark.parametrize(
    "override",
    [
        "outputs_dir=/tmp/elsewhere",
        "tracker.log_every_steps=3",
        "threads=2",
        "progress=false",
        "micro_batch_sequences=2",
    ],
)
def test_identity_is_not_of_machine_logging_or_paths(composed: Compose, override: str) -> None:
    assert planned(composed, override).identity == planned(composed).identity


DECIDES = {
    "shape.width": "shape.width=32",
    "shape.depth": "shape.depth=2",
    "model.name": f"model={ROOT}/examples/swiglu.py:SwiGLU",
    "model.options": f"model={ROOT}/examples/swiglu.py:SwiGLU +model.options.group=2",
    "suite.head_size": "suite.head_size=4",
    "suite.width_unit": "suite.width_unit=8",
    "tokenizer.vocab_size": "tokenizer.vocab_size=512",
    "lr_base": "lr_base=2.5",
    "lr_rule.name": "lr_rule=width",
    "lr_rule.patch_ratio": "lr_rule.patch_ratio=7",
    "lr_rule.patch_strict": "lr_rule.patch_strict=true",
    "lr_rule.patch_divisor": "lr_rule.patch_divisor=7",
    "lr_rule.patch_shapes": "shape=16x2 lr_rule.patch_shapes=[256x2]",
    "lr_batch_scaling": "lr_batch_scaling=sqrt lr_batch_reference=256",
    "lr_batch_reference": "lr_batch_scaling=sqrt lr_batch_reference=512",
    "flops": "flops=1e9",
    "tokens_per_param": "tokens_per_param=1",
    "schedule.kind": "schedule=cosine",
    "schedule.warmup_tokens": "schedule.warmup_tokens=128",
    "schedule.decay_fraction": "schedule=wsd schedule.decay_fraction=0.3",
    "schedule.name": f"schedule={ROOT}/examples/courses.py:inverse_sqrt",
    "schedule.options": f"schedule={ROOT}/examples/courses.py:inverse_sqrt +schedule.options.least=0.1",
    "schedule.final_factor": "schedule=wsd schedule.final_factor=0.3",
    "cooldown.fraction": "cooldown=linear10 cooldown.fraction=0.5 cooldown.from_tokens=2560",
    "cooldown.name": "cooldown=sqrt10 cooldown.from_tokens=2048 cooldown.fraction=0.5",
    "cooldown.final_factor": "cooldown=linear10 cooldown.final_factor=0.1 cooldown.from_tokens=2048 cooldown.fraction=0.5",
    "cooldown.options": f"cooldown={ROOT}/examples/courses.py:power +cooldown.options.exponent=2 cooldown.from_tokens=2048",
    "cooldown.from_tokens": "cooldown=linear10 cooldown.fraction=0.5 cooldown.from_tokens=2048",
    "optim.name": "optim=nadamw",
    "optim.momentum": "optim=muon",
    "optim.lr_factors": "+optim.lr_factors.head=0.5",
    "optim.options": f"optim={ROOT}/examples/lion.py:lion +optim.options.beta2=0.9",
    "optim.beta1": "optim.beta1=0.8",
    "optim.beta2": "optim.beta2=0.8",
    "optim.eps": "optim.eps=1e-7",
    "optim.weight_decay": "optim.weight_decay=0",
    "optim.decay_embedding": "optim.decay_embedding=false",
    "optim.clip_norm": "optim.clip_norm=0",
    "tokens": "tokens=2688",
    "tokens_rounding": "tokens=2700 tokens_rounding=up",
    "batch_tokens": "batch_tokens=256",
    "seq_len": "seq_len=32",
    "seed": "seed=1",
    "order_seed": "order_seed=1",
    "precision": "precision=bf16",
    "validation.tokens": "validation.tokens=512",
    "validation.further": "+validation.further.other=other-bytes",
    "spikes.policy": "spikes=rollback",
    "trainer.name": "trainer=command trainer.command=true",
    "trainer.command": "trainer=command trainer.command=false",
    "trainer.files": f"trainer=command trainer.command=true trainer.files=[{__file__}]",
    "data.unique_tokens": "data.unique_tokens=1280",
    "sweep.name": "sweep.name=other",
}
"""Options that decide the result of any run -> a choice that changes it."""
DECIDE_ROLLBACKS = ("spikes", "validation.every_tokens", "checkpoint.every_tokens")
"""Those that decide the result of a run that rolls back."""
DECIDE_NOTHING = (
    *(
        "outputs_dir",
        "data_dir",
        "tracker",
        "noise",
        "search",
        "limits",
        "force",
        "accelerator",
        "devices",
        "num_nodes",
        "trainer.stop_seconds",
    ),
    *(
        "resources",
        "threads",
        "progress",
        "micro_batch_sequences",
        "compile",
        "deterministic",
        "parallel",
        "attention",
        "checkpoint",
    ),
    *("suite", "shape.nodes", "warmup_tokens"),  # of which the others are made; a suite's name is that of its folder
    *("data", "tokenizer"),  # the corpus stands for itself
)
"""Options, and groups of them, that decide no result beyond the order of floating-point sums."""


def test_every_option_decides_the_result_or_does_not() -> None:
    """A new option fails here until somebody has said which; one that decides belongs into the fingerprint."""
    known = (*DECIDES, *DECIDE_ROLLBACKS, *DECIDE_NOTHING)
    options = leaf_keys_of(TrainConfig)
    undecided = [key for key in options if not any(key == name or key.startswith(f"{name}.") for name in known)]
    assert undecided == []


@pytest.mark.parametrize("override", [*DECIDES.values(), "shape=16x2", "cooldown=linear10"])
def test_identity_is_of_all_that_decides_the_result(composed: Compose, override: str) -> None:
    assert planned(composed, *override.split()).identity != planned(composed).identity


def test_precision_is_the_one_that_is_computed_in(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """auto is bf16 on a GPU and fp32 without: such runs are those of the same precision given."""
    fp32, bf16 = (planned(composed, f"precision={name}").identity for name in ("fp32", "bf16"))
    for names, on_a_gpu in (((), False), (("0",), True)):
        monkeypatch.setattr("shapelaw.fingerprint.gpu_names", lambda names=names: names)
        assert planned(composed).identity == (bf16 if on_a_gpu else fp32)
        assert planned(composed, "accelerator=cpu").identity == fp32
        assert planned(composed, "accelerator=gpu").identity == bf16


@pytest.mark.parametrize("part", BUILT_IN)
def test_identity_is_of_the_versions_of_the_parts(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    before = planned(composed).identity
    monkeypatch.setitem(BUILT_IN, part, BUILT_IN[part] + 1)
    assert planned(composed).identity != before


def test_identity_is_of_the_corpus(composed: Compose) -> None:
    assert planned(composed, corpus="other").identity != planned(composed).identity


def test_identity_does_not_change_between_versions_unnoticed(composed: Compose) -> None:
    """A golden value: when this fails, old runs would be trained again; raise IDENTITY_VERSION if that is meant."""
    assert planned(composed, "accelerator=cpu").identity == "a9bd980cd9f4"


def test_steps_and_tokens(composed: Compose) -> None:
    hot = planned(composed)
    assert (hot.first_step, hot.last_step, hot.tokens, hot.batch_sequences) == (0, 20, 2560, 8)
    assert [step for step in range(21) if step and hot.validates_at(step)] == [4, 8, 12, 16, 20]


def test_cadences_round_up_to_whole_steps(composed: Compose) -> None:
    """2B tokens at 4,194,304 a step are 476.8 steps; the paper's checkpoints lie 477 apart."""
    gemstones = ["seq_len=2048", "batch_tokens=4194304", "tokens=350119526400", "checkpoint.every_tokens=2e9"]
    assert planned(composed, *gemstones, "warmup_tokens=8e7").checkpoint_every_steps == 477


@pytest.mark.parametrize(
    ("from_tokens", "first", "last"),
    [(10e9, 2385, 2622), (20e9, 4770, 5246), (30e9, 7155, 7870), (40e9, 9540, 10493), (100e9, 23850, 26234)],
)
def test_cooldown_branches_are_the_published_ones(composed: Compose, from_tokens: float, first: int, last: int) -> None:
    paper = ["seq_len=2048", "batch_tokens=4194304", "tokens=350119526400", "checkpoint.every_tokens=2e9"]
    branch = planned(composed, *paper, "warmup_tokens=8e7", "cooldown=linear10", f"cooldown.from_tokens={from_tokens}")
    assert (branch.first_step, branch.last_step) == (first, last)


@pytest.mark.parametrize(
    ("every", "wanted", "step"),
    [("1024", 16, 16), ("1024", 17.5, 16), ("1024", 18, 16), ("1024", 18.5, 20), ("1024", 20, 20), ("1e30", 20, 20)],
)
def test_a_cooldown_branches_off_at_the_nearest_checkpoint(
    composed: Compose, every: str, wanted: float, step: int
) -> None:
    """Of every 8 steps, or none on the way, and of the last of the 20."""
    overrides = ("cooldown=linear10", f"checkpoint.every_tokens={every}", f"cooldown.from_tokens={128 * wanted}")
    assert planned(composed, *overrides, "cooldown.fraction=0.5").first_step == step


def test_a_schedule_s_cooldown_starts_before_its_end(composed: Compose) -> None:
    branch = planned(
        composed, "schedule=wsd", "cooldown=linear10", "cooldown.from_tokens=2048", "cooldown.fraction=0.5"
    )
    assert branch.lr_at(branch.first_step) == pytest.approx(branch.lr_eff)


def test_cooldown_continues_its_parent_and_ends_near_zero(composed: Compose) -> None:
    branch = planned(composed, "cooldown=linear10", "tokens=25600")
    assert branch.parent == planned(composed, "tokens=25600").identity
    rates = [branch.lr_at(step) / branch.lr_eff for step in range(branch.first_step, branch.last_step)]
    n = len(rates)
    assert rates == pytest.approx([1 - i / n for i in range(n)])


def test_the_nano_unit_gives_the_stated_rate(composed: Compose) -> None:
    """head_size 16, so that 32x2 gets 5 / (32 * 8 * sqrt(2))."""
    overrides = ["suite.head_size=16", "suite.width_unit=8", "shape.width=32", "shape.depth=2"]
    assert planned(composed, *overrides).lr_eff == pytest.approx(0.013811, rel=1e-4)


@pytest.mark.parametrize(("rounding", "steps"), [("up", 21), ("down", 20)])
def test_tokens_are_rounded_as_asked(composed: Compose, rounding: str, steps: int) -> None:
    assert planned(composed, "tokens=2600", f"tokens_rounding={rounding}").last_step == steps


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tokens=2600", ["tokens=2600", "2560 or 2688", "tokens_rounding=up"]),
        ("tokens=0", ["tokens=0", "whole numbers from 1"]),
        ("tokens=2.5", ["tokens=2.5"]),
        ("batch_tokens=100", ["batch_tokens=100", "seq_len=16", "96 or 112"]),
        ("shape.width=20", ["shape.width=20", "head_size=8", "16 and 24"]),
        ("shape.depth=0", ["shape.depth=0"]),
        ("lr_base=0", ["lr_base=0"]),
        ("seed=-1", ["seed=-1", "whole numbers from 0"]),
        ("threads=100000", ["threads=100000", "whole numbers from 0 to 1,024"]),
        ("order_seed=-1", ["order_seed=-1"]),
        ("lr_base=nan", ["lr_base=nan"]),
        ("optim.beta1=1", ["optim.beta1=1", "0 to below 1"]),
        ("optim.eps=-1", ["optim.eps=-1", "finite numbers from 0"]),
        ("accelerator=mps", ["accelerator=mps", "auto, cpu, gpu"]),
        ("schedule.warmup_tokens=-1", ["schedule.warmup_tokens"]),
        ("validation.every_tokens=0", ["validation.every_tokens=0"]),
        ("schedule.decay_fraction=0.5", ["schedule=constant does not read it", "schedule=wsd"]),
        ("schedule=cosine schedule.decay_fraction=0.5", ["schedule=cosine does not read it"]),
        (
            "schedule.final_factor=0.1",
            ["schedule.final_factor=0.1", "schedule=wsd or schedule=cosine or schedule=linear"],
        ),
        ("validation.tokens=nan", ["validation.tokens=nan", "whole numbers from 1"]),
        ("validation.tokens=0.5", ["validation.tokens=0.5"]),
        ("cooldown=linear10 cooldown.from_tokens=1e9", ["cooldown.from_tokens=1e+09", "2,560"]),
        ("cooldown=linear10 cooldown.from_tokens=nan", ["cooldown.from_tokens=nan"]),
        ("cooldown=linear10 cooldown.from_tokens=inf", ["cooldown.from_tokens=inf"]),
        (
            "cooldown=linear10 cooldown.from_tokens=256 checkpoint.every_tokens=1e30",
            ["it has checkpoints at 2,560 tokens"],
        ),
        ("cooldown=linear10 schedule=wsd", ["schedule=wsd has lowered the rate to 0", "earlier cooldown.from_tokens"]),
        ("cooldown=linear10 schedule=linear", ["schedule=linear has lowered the rate to 0"]),
        ("cooldown=linear10 schedule=cosine schedule.final_factor=0", ["schedule=cosine has lowered the rate to 0"]),
    ],
)
def test_bad_values_are_refused_in_one_line(composed: Compose, override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        planned(composed, *override.split())
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_state_round_trips(tmp_path: Path) -> None:
    assert read_state(tmp_path).status is Status.new
    state = State(Status.failed, step=3, steps=9, val_loss=1.5, reason="why")
    write_state(tmp_path, state)
    assert dataclasses.replace(read_state(tmp_path), updated=0.0) == state


def test_a_running_state_without_its_process_is_interrupted(tmp_path: Path) -> None:
    write_state(tmp_path, State(Status.running, step=3))
    assert read_state(tmp_path).status is Status.interrupted
    with lock(tmp_path):
        assert read_state(tmp_path).status is Status.running


def _hold(folder: Path, held: object, release: object) -> None:
    with lock(folder):
        held.set()  # type: ignore[attr-defined]
        release.wait(30)  # type: ignore[attr-defined]


def test_a_second_process_refuses_the_run(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    held, release = processes.Event(), processes.Event()
    process = processes.Process(target=_hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(30)
    assert is_locked(tmp_path)
    with pytest.raises(UserError, match="another process"), lock(tmp_path):
        pass
    release.set()
    process.join()
    assert not is_locked(tmp_path)


@given(st.text(max_size=30))
def test_a_damaged_state_file_is_said(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "state.json"
        path.write_text(text)
        try:
            json.loads(text)
        except json.JSONDecodeError:
            with pytest.raises(UserError, match="not the JSON"):
                read_state(Path(name))


def test_rate_follows_the_batch_as_declared(composed: Compose) -> None:
    whole = planned(composed)
    batch = 4 * whole.batch_tokens
    sizes = (f"batch_tokens={batch}", f"tokens={100 * batch}", f"lr_batch_reference={whole.batch_tokens}")
    plain = planned(composed, *sizes)
    for scaling, factor in (("sqrt", 2), ("linear", 4)):
        scaled = planned(composed, *sizes, f"lr_batch_scaling={scaling}")
        assert scaled.lr_eff == pytest.approx(factor * plain.lr_eff)
        assert scaled.identity != plain.identity
    same = planned(composed, "lr_batch_scaling=sqrt", sizes[2])
    assert same.identity == whole.identity  # at the reference batch


def test_rate_that_follows_the_batch_needs_a_reference(composed: Compose) -> None:
    with pytest.raises(UserError, match="lr_batch_reference=0"):
        planned(composed, "lr_batch_scaling=sqrt")


def test_labels_tell_runs_apart(composed: Compose) -> None:
    """By the first settings that do, and only where shape, rate and branch do not."""
    overrides = (["shape=16x2"], [], ["batch_tokens=256", "tokens=2560"], ["batch_tokens=256", "tokens=2560", "seed=1"])
    runs = [planned(composed, *each) for each in overrides]
    shared = "16x1 lr_base=5 batch_tokens"
    expected = ["16x2 lr_base=5", f"{shared}=128 seed=0", f"{shared}=256 seed=0", f"{shared}=256 seed=1"]
    assert labels_of(runs) == expected
    assert labels_of(runs[1:2] * 2) == ["16x1 lr_base=5"] * 2


def test_the_patch_is_in_the_identity_where_it_decides(composed: Compose) -> None:
    """16 features count as 256: 16x2 is spared by its ratio of 128, and patched where it is named."""
    plain, named = (planned(composed, "shape=16x2", *chosen) for chosen in ((), ("lr_rule.patch_shapes=[256x2]",)))
    assert (named.lr_eff, named.identity) != (plain.lr_eff, plain.identity)
    assert named.lr_eff == pytest.approx(5 / (256 * 3**0.5))
    for chosen in ("lr_rule.patch_strict=true", "lr_rule.patch_shapes=[512x2]"):
        assert planned(composed, "shape=16x2", chosen).identity == plain.identity
    strict = planned(composed, "lr_rule.patch_strict=true")
    assert (strict.lr_eff, strict.identity) != (planned(composed).lr_eff, planned(composed).identity)


@pytest.mark.parametrize("shape", ["16x1", "16x2", "32x1"])
def test_a_budget_gives_each_shape_its_tokens(composed: Compose, shape: str) -> None:
    """To the nearest batch of 128 tokens, by the counts that the runs table has; the identity is that of the same tokens."""
    by_flops = planned(composed, f"shape={shape}", "flops=3e9")
    assert abs(by_flops.tokens * sizes_of(by_flops).flops_per_token / 3e9 - 1) <= 64 / by_flops.tokens
    by_params = planned(composed, f"shape={shape}", "tokens_per_param=1.5")
    assert abs(by_params.tokens - 1.5 * sizes_of(by_params).params) <= 64
    for sized in (by_flops, by_params):
        assert planned(composed, f"shape={shape}", f"tokens={sized.tokens}").identity == sized.identity


def test_a_cooldown_begins_at_the_end_that_a_budget_gives(composed: Compose) -> None:
    main, branch = (planned(composed, "flops=3e9", f"cooldown={name}") for name in ("none", "linear10"))
    assert (branch.first_step, branch.parent) == (main.last_step, main.identity)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["flops=1e9", "tokens_per_param=20"], "each sets the length of a run; give only one"),
        (["flops=1e6"], r"flops=1e\+06: gives shape=16x1 .* tokens, but a batch has 128; give at least"),
        (["tokens_per_param=1e-4"], "tokens_per_param=0.0001: gives shape=16x1"),
        (["flops=-1"], "flops=-1: allowed values are finite numbers above 0"),
        (
            ["flops=1e9", f"model={ROOT}/examples/swiglu.py:SwiGLU"],
            "count the built-in model; give tokens for each shape",
        ),
    ],
)
def test_a_budget_that_gives_no_run_is_refused(composed: Compose, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        planned(composed, *overrides)


@pytest.mark.parametrize(
    ("widths", "flops", "said"),
    [
        ([16, 32, 64], 3e9, ""),
        ([16], 3e9, ""),
        ([16, 32], 3e9, "2 sizes have no curve with a lowest loss inside; give 3 or more"),
        ([16, 32, 64], 1e14, "give larger shapes too, another budget, or give force=true"),
        ([64, 128, 256], 1e9, "give smaller shapes too, another budget, or give force=true"),
    ],
)
def test_budgets_without_a_lowest_loss_inside_are_refused(
    composed: Compose, widths: list[int], flops: float, said: str
) -> None:
    def runs(*more: str) -> list[tuple[PlannedRun, TrainConfig]]:
        configs = [to_dataclass(composed(f"shape.width={width}", f"flops={flops}", *more)) for width in widths]
        return [(plan_run(config, "c"), config) for config in configs]

    check_budgets(runs("force=true"))
    with pytest.raises(UserError, match=said) if said else contextlib.nullcontext():
        check_budgets(runs())
