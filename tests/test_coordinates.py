"""The coordinate check against transformers' Gemma with AdamW written out, known variances, and powers that are put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from allocations import Allocations
from scipy.stats import truncnorm
from transformers import GemmaConfig, GemmaForCausalLM

from shapelaw.config import CoordinatesConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.model import ModelSpec, Transformer, gemma_config, initialise, to_gemma_state_dict
from shapelaw.planned_run import plan_run
from shapelaw.schedule import Constant
from shapelaw.training.coordinates import MATRICES, Tokens, coordinates
from shapelaw.verbs.coordinates import check, check_of, estimate, lines_of, slopes_of
from support import Compose, Script

OURS_TO_GEMMA = {"embedding": "embed_tokens", "out": "o_proj", "down": "down_proj", "head": "lm_head"}
"""Kinds of matrices that transformers does not split."""


NO_PATCH = "lr_rule.patch_ratio=inf"
"""For the plain power of the width; else the widest of these shapes would count as deeper."""


def rms(x: torch.Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


def drawn(vocab_size: int, *size: int) -> Any:
    return np.random.default_rng(0).integers(vocab_size, size=size)


def measured(composed: Compose, *overrides: str) -> tuple[CoordinatesConfig, Tokens, pd.DataFrame]:
    config: CoordinatesConfig = to_dataclass(composed("accelerator=cpu", *overrides, name="coordinates"))
    planned = plan_run(config, "corpus")
    size = (config.sequences, planned.seq_len + 1)
    tokens = Tokens(tuple(drawn(planned.vocab_size, config.steps, *size)), drawn(planned.vocab_size, *size))
    micro = estimate(config, planned).micro_sequences
    return config, tokens, coordinates(planned, config, tokens, torch.device("cpu"), bf16=False, micro=micro)


def value(table: pd.DataFrame, step: int, quantity: str, part: str) -> float:
    """The RMS over layers."""
    rows = table[(table["step"] == step) & (table["quantity"] == quantity) & (table["part"] == part)]
    return float(np.sqrt((rows["value"] ** 2).mean()))


def chosen(
    slopes: pd.DataFrame, quantity: str, part: str, step: int, rule: str = "r", over: str = "width"
) -> pd.Series:
    """The one line of the table of slopes."""
    keys = {"over": over, "quantity": quantity, "part": part, "step": step, "rule": rule}
    rows = slopes[np.logical_and.reduce([slopes[key] == value for key, value in keys.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def test_one_step_is_adamws_of_gemma(composed: Compose) -> None:
    """Logits before and after, and every unsplit matrix's update, by transformers' model and the formula of AdamW."""
    config, tokens, table = measured(composed, "shape=16x2", "steps=1", "lr_base=3")
    planned = plan_run(config, "corpus")
    spec = ModelSpec(planned.shape, planned.vocab_size, planned.seq_len)
    ours = Transformer(spec)
    initialise(ours, config.seed)
    model = GemmaForCausalLM(GemmaConfig(**gemma_config(spec)))
    model.load_state_dict(to_gemma_state_dict(ours.state_dict(), planned.shape))
    batch, probe = torch.from_numpy(tokens.batches[0]), torch.from_numpy(tokens.probe)[:, :-1]

    before = model(probe).logits.detach()
    loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).logits.flatten(0, 1), batch[:, 1:].flatten())
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
    updates: dict[str, list[torch.Tensor]] = {}
    lr, optim = planned.lr_eff, config.optim
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            decay = optim.weight_decay * parameter if parameter.ndim > 1 else 0.0
            update = -lr * (
                parameter.grad / (parameter.grad.abs() + optim.eps) + decay
            )  # both moments are the gradient's
            updates.setdefault(name.split(".")[-2], []).append(update)
            parameter += update
    after = model(probe).logits.detach()

    assert value(table, 0, "size", "logits") == pytest.approx(rms(before), rel=1e-5)
    assert value(table, 1, "size", "logits") == pytest.approx(rms(after), rel=1e-4)
    assert value(table, 1, "change", "logits") == pytest.approx(rms(after - before), rel=1e-3)
    for kind, theirs in OURS_TO_GEMMA.items():
        expected = np.sqrt(np.mean([rms(update) ** 2 for update in updates[theirs]]))
        assert value(table, 1, "update", kind) == pytest.approx(expected, rel=1e-3), kind
    # signs of size lr, but for rows of tokens that were not seen and the decay, at most 0.1 * RMS(weight) of it
    assert value(table, 1, "update", "head") == pytest.approx(lr, rel=0.05)


def test_initial_sizes_follow_from_the_variances(composed: Compose) -> None:
    """Embedding times sqrt(width): the truncated normal's own deviation; logits: twice that, as the last norm's gain is 2.

    The rate plays no part, and widths differ by 8: a slope is what the draws' scatter makes it.
    """
    deviation = float(truncnorm(-3, 3).std())
    tables = [
        measured(composed, f"shape.width={width}", "steps=1", NO_PATCH)[2].assign(rule="r")
        for width in (16, 32, 64, 128)
    ]
    for table in tables:
        assert value(table, 0, "size", "embedding") == pytest.approx(deviation, rel=0.05)
        assert value(table, 0, "size", "logits") == pytest.approx(2 * deviation, rel=0.05)
    slopes = slopes_of(lines_of(pd.concat(tables), 16, 1), 0.1)
    assert chosen(slopes, "size", "logits", 0)["slope"] == pytest.approx(0, abs=0.03)
    assert chosen(slopes, "size", "logits", 0)["verdict"] == "flat"
    # lr goes like 1 / width and weights like 1 / sqrt(width)
    assert chosen(slopes, "update", "head", 1)["slope"] == pytest.approx(-1, abs=0.05)
    assert chosen(slopes, "relative", "head", 1)["slope"] == pytest.approx(-0.5, abs=0.05)


def test_the_table_has_every_quantity(composed: Compose) -> None:
    _, _, table = measured(composed, "shape=16x2", "steps=3")
    counts = table.groupby(["quantity", "step"]).size().unstack(fill_value=0)
    activations, matrices = 2 + 3 * 2, 2 + 4 * 2  # of two blocks
    assert counts.loc["size"].tolist() == [activations] * 4
    assert counts.loc["change"].tolist() == [0, *[activations] * 3]
    assert counts.loc["update"].tolist() == counts.loc["relative"].tolist() == [0, *[matrices] * 3]
    assert counts.loc["loss"].tolist() == [1] * 4
    assert set(table[table["quantity"] == "update"]["part"]) == set(MATRICES.values())
    assert table["value"].gt(0).all()


def test_micro_batches_change_the_summation_order_only(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(composed, "steps=2")[2]
    sizes: list[int] = []
    loss = Transformer.loss
    monkeypatch.setattr(Transformer, "loss", lambda self, ids: (sizes.append(len(ids)), loss(self, ids))[1])
    parts = measured(composed, "steps=2", "micro_batch_sequences=6")[2]
    assert sizes == [16, *[6, 6, 4, 16] * 2]  # of the probe, too, 16
    np.testing.assert_allclose(parts["value"], whole["value"], rtol=1e-3)  # losses and gradients are sums in float32


@pytest.mark.parametrize(
    "overrides",
    [
        ("sequences=64", "limits.memory_gb=2e-3"),  # a step decides
        ("probe_sequences=64",),  # activations
        ("shape.width=128", "sequences=1", "probe_sequences=1"),  # weights
    ],
)
def test_no_more_memory_is_taken_than_estimated(composed: Compose, overrides: tuple[str, ...]) -> None:
    """Every allocation of a check, followed to its end; and as many sequences at a time as the limit takes."""
    asked = to_dataclass(composed("accelerator=cpu", "steps=2", *overrides, name="coordinates"))
    base = (asked.shape.width, asked.shape.depth)
    config = next(one for _, one in check_of(asked).configs() if (one.shape.width, one.shape.depth) == base)
    planned = plan_run(config, "corpus")
    cost = estimate(config, planned)
    tokens = Tokens(
        tuple(drawn(planned.vocab_size, 2, config.sequences, planned.seq_len + 1)),
        drawn(planned.vocab_size, config.probe_sequences, planned.seq_len + 1),
    )
    with Allocations() as allocated:
        coordinates(planned, config, tokens, torch.device("cpu"), bf16=False, micro=cost.micro_sequences)
    assert allocated.peak_bytes < cost.memory_bytes < 1.6 * allocated.peak_bytes
    assert (cost.micro_sequences < config.sequences) == (config.limits.memory_gb is not None)


def test_powers_that_are_put_in_come_out() -> None:
    rows = []
    for width, depth in ((64, 2), (128, 2), (256, 2), (64, 4), (64, 8)):
        for layer in range(depth):
            size = 3 * width**0.5 * depth**-1.0
            stream = 10.0 if layer < depth - 1 else 0.2 * depth**0.5  # the last alone counts
            rows += [("attention", layer, width, depth, size), ("stream", layer, width, depth, stream)]
    table = pd.DataFrame(rows, columns=["part", "layer", "width", "depth", "value"])
    lines = lines_of(table.assign(rule="r", quantity="size", step=0), 64, 2)
    assert set(lines.loc[lines["over"] == "width", "x"]) == {64, 128, 256}
    assert set(lines.loc[lines["over"] == "depth", "x"]) == {2, 4, 8}
    found = slopes_of(lines, 0.1).set_index(["over", "part"])["verdict"].to_dict()
    assert found == {
        ("width", "attention"): "grows like width^0.50",
        ("width", "stream"): "flat",
        ("depth", "attention"): "shrinks like depth^-1.00",
        ("depth", "stream"): "grows like depth^0.50",
    }
    bent = lines[(lines["over"] == "depth") & (lines["part"] == "stream")].assign(value=[1.0, 4.0, 1.0])
    assert slopes_of(bent, 0.1)["verdict"].tolist() == ["flat, within a factor of 2.5"]
    assert slopes_of(bent.assign(value=[1.0, np.nan, 1.0]), 0.1)["verdict"].tolist() == ["not finite"]


def test_the_command(composed: Compose, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rule holds what a constant rate lets grow with the width; both meet at the shape that all lines go through."""
    check(composed("accelerator=cpu", "widths=[16,32,64,128]", "steps=4", "sequences=8", NO_PATCH, name="coordinates"))
    said = capsys.readouterr().out
    folder = next((outputs / "coordinates").iterdir())
    figures = [f"{what}_{over}" for what in ("activations", "updates") for over in ("width", "depth")]
    names = {f"{name}.{kind}" for name in figures for kind in ("pdf", "png")}
    assert {path.name for path in folder.iterdir()} == {*names, "sizes.csv", "slopes.csv"}
    assert (folder / "activations_width.png").read_bytes()[:4] == b"\x89PNG"

    sizes = pd.read_csv(folder / "sizes.csv")
    assert sizes.loc[(sizes["width"] == 16) & (sizes["depth"] == 1), "lr"].nunique() == 1
    slopes = pd.read_csv(folder / "slopes.csv")
    for part, step in (("logits", 1), ("stream", 1), ("stream", 4)):  # logits are bounded by the loss later on
        slope = {rule: chosen(slopes, "change", part, step, rule)["slope"] for rule in ("none", "width_sqrt_depth")}
        assert slope["none"] > slope["width_sqrt_depth"] + 0.4
    assert "logits: change since start" in said
    assert f"{folder}" in said


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["steps=0"], "steps=0: allowed values are whole numbers from 1"),
        (["sequences=0"], "sequences=0: allowed"),
        (["probe_sequences=-1"], "probe_sequences=-1: allowed"),
        (["widths=[20]"], "shape.width=20: allowed values are multiples of head_size=8"),
        (["depths=[0]"], "depths=0: allowed"),
        (["widths=[16]", "depths=[]"], "a single shape has no slope"),
        (["flat_slope=1.5"], "flat_slope=1.5: allowed"),
        (["devices=2"], "runs on one device"),
        (["widths=[65536]"], "GiB for 65536x1"),
        (["micro_batch_sequences=0", "sequences=512", "limits.memory_gb=0.01"], "512 sequences at a time; 0.0 allowed"),
        (["accelerator=gpu"], "accelerator=gpu: this machine has no usable GPU"),
        (["data=jsonl"], "no prepared corpus"),
        (["attention=flash"], "attention=flash: runs on CUDA"),
    ],
)
def test_bad_input(
    composed: Compose, outputs: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shapelaw.verbs.coordinates.gpu_names", tuple)
    with pytest.raises(UserError, match=words.replace("[", r"\[")):
        check(composed("accelerator=cpu", *overrides, name="coordinates"))
    assert not outputs.exists()


def test_bad_input_is_one_line(here: Script) -> None:
    done = here("coordinates.py", "step=3")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "did you mean steps" in done.stderr


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd", "linear"])
def test_any_schedule_is_measured_at_its_peak(composed: Compose, schedule: str) -> None:
    """The suite's warm-up is longer than these steps."""
    asked = to_dataclass(composed("steps=1", "sequences=8", f"schedule={schedule}", name="coordinates"))
    assert {plan_run(config, "corpus").schedule for _, config in check_of(asked).configs()} == {Constant(0.0)}


@pytest.mark.parametrize("rate", ["1e30", "1e-30"])
def test_sizes_that_cannot_be_drawn_are_said(composed: Compose, outputs: Path, rate: str) -> None:
    """Updates that overflow, and updates that are 0."""
    given = ("steps=1", "sequences=2", "random_tokens=true", "compare=null", "depths=[]", "optim.weight_decay=0")
    check(composed("accelerator=cpu", f"lr_base={rate}", *given, name="coordinates"))
    assert next(outputs.rglob("updates_width.png")).exists()
    slopes = pd.read_csv(next(outputs.rglob("slopes.csv")))
    assert set(slopes[slopes["quantity"] == "relative"]["verdict"]) == {"not finite" if rate == "1e30" else "zero"}


def test_random_tokens_need_no_corpus(composed: Compose, outputs: Path, tmp_path: Path) -> None:
    given = ("random_tokens=true", f"data_dir={tmp_path}", "steps=1", "compare=null", "depths=[]")
    check(composed("accelerator=cpu", *given, name="coordinates"))
    (folder,) = (outputs / "coordinates").iterdir()
    assert not list(folder.glob("*_depth.*"))
    assert set(pd.read_csv(folder / "sizes.csv")["rule"]) == {"width_sqrt_depth"}
