"""Optimizers by name and of one's own, cooldowns and schedules of one's own: in the identity, in a run, on resumption."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from shapelaw.config import OptimConfig
from shapelaw.errors import Interrupted, UserError
from shapelaw.model import ModelSpec, Transformer, initialise
from shapelaw.optim import build_adamw, build_optimizer, set_lr
from shapelaw.planned_run import PlannedRun, checkpoint_path
from shapelaw.run_state import State, Status, read_state
from shapelaw.shapes import Shape
from shapelaw.training import reporting
from shapelaw.training.checkpoint import MODEL, OPTIMIZER
from shapelaw.training.checks import check_parts
from support import ROOT, Compose, Door, prepared, train

LION, COURSES = f"{ROOT}/examples/lion.py:lion", f"{ROOT}/examples/courses.py"
RATES = {LION: 1, "muon": 50}
NAMED = ("amsgrad", "nadamw", "radamw", "muon")


def built() -> Transformer:
    model = Transformer(ModelSpec(Shape(32, 2, 16), 64, seq_len=8))
    initialise(model, seed=0)
    return model


def stepped(options: OptimConfig, rate: float = 0.01, times: int = 2) -> dict[str, torch.Tensor]:
    """Weights after some steps whose gradients are the same for every optimizer."""
    model = built()
    optimizer = build_optimizer(model, rate, options)
    for time in range(times):
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(len(name) + time)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def test_the_default_is_the_paper_s_adamw() -> None:
    model = built()
    assert type(build_optimizer(model, 0.1)) is type(build_adamw(model, 0.1))
    assert [group["name"] for group in build_optimizer(model, 0.1).param_groups] == ["decay", "no_decay"]


def test_muon_is_of_hidden_matrices_and_adamw_of_the_rest() -> None:
    """A first step against an independent expression: the gradient's orthogonal factor by singular values, times 0.2 sqrt(the
    longer side), which torch approaches by five Newton-Schulz steps: singular values within 0.6 and 1.3."""
    options = OptimConfig(name="muon", weight_decay=0.0)
    start = {name: parameter.detach() for name, parameter in built().named_parameters()}
    muon, adamw = stepped(options, times=1), stepped(OptimConfig(weight_decay=0.0), times=1)
    for name, before in start.items():
        hidden = before.ndim == 2 and not name.startswith(("embedding", "head"))
        if not hidden:
            assert torch.equal(muon[name], adamw[name])
            continue
        gradient = torch.randn(before.shape, generator=torch.Generator().manual_seed(len(name))).double().numpy()
        u, _, v = np.linalg.svd(gradient, full_matrices=False)
        step = (before - muon[name]).double().numpy() / (0.01 * 0.2 * np.sqrt(max(before.shape)))
        along = np.diag(u.T @ step @ v.T)
        assert ((along > 0.6) & (along < 1.3)).all(), name
        assert np.linalg.norm(step - (u * along) @ v) < 0.05 * np.linalg.norm(step)


def test_old_torch_has_no_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match=r"optim=muon: torch .* has it not; install torch 2\.9 or newer"):
        build_optimizer(built(), 0.1, OptimConfig(name="muon"))


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("amsgrad", torch.optim.AdamW, {"amsgrad": True}),
        ("nadamw", torch.optim.NAdam, {"decoupled_weight_decay": True}),
        ("radamw", torch.optim.RAdam, {"decoupled_weight_decay": True}),
    ],
)
def test_variants_are_torch_s(name: str, kind: type[torch.optim.Optimizer], options: dict[str, bool]) -> None:
    found = stepped(OptimConfig(name=name, weight_decay=0.0), times=3)
    model = built()
    optimizer = kind(model.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, **options)  # type: ignore[call-arg]
    for time in range(3):
        for key, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(key) + time))
        optimizer.step()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(found[key], parameter.detach(), rtol=1e-5, atol=1e-7)


def test_groups_have_rates_of_their_own() -> None:
    options = OptimConfig(lr_factors={"embedding": 0.5, "blocks.1": 2.0}, weight_decay=0.3)
    rates = {"embedding.weight": 0.005, "blocks.1.norm_1.weight": 0.02, "blocks.0.norm_1.weight": 0.01}
    model = built()
    optimizer = build_optimizer(model, 0.07, options)
    set_lr(optimizer, 0.01)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {names[one]: group for group in optimizer.param_groups for one in group["params"]}
    assert found.keys() == set(names.values())
    assert {name: found[name]["lr"] for name in rates} == rates
    assert {name: found[name]["weight_decay"] for name in rates} == dict.fromkeys(rates, 0.0) | {
        "embedding.weight": 0.3
    }
    start = dict(built().named_parameters())["embedding.weight"]
    half = stepped(OptimConfig(lr_factors={"embedding": 0.5}), times=1)["embedding.weight"]
    whole = stepped(OptimConfig(), times=1)["embedding.weight"]
    torch.testing.assert_close((half - start) * 2, whole - start, rtol=1e-3, atol=1e-6)


def tensors(planned: PlannedRun, step: int = 20) -> dict[str, torch.Tensor]:
    folder = checkpoint_path(planned.folder, step)
    return {**load_file(folder / MODEL), **load_file(folder / OPTIMIZER)}


@pytest.mark.parametrize("choice", [*NAMED, LION])
def test_a_run_is_continued_to_the_same_bits(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.0)
    words = (f"optim={choice}", f"lr_base={RATES.get(choice, 5)}", "+optim.lr_factors.head=0.5")
    whole = train(composed, *words)
    loss = read_state(whole.folder).val_loss
    assert loss is not None
    assert loss < 5.0

    def stop(state: State) -> None:
        if state.step == 7 and state.status is Status.running:
            os.kill(os.getpid(), signal.SIGTERM)

    other = (f"outputs_dir={tmp_path}/other",)
    with pytest.raises(Interrupted):
        train(composed, *words, *other, show=stop)
    ours, theirs = tensors(train(composed, *words, *other)), tensors(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_choices_are_part_of_the_identity(composed: Compose) -> None:
    def identity(*overrides: str) -> str:
        return prepared(composed, *overrides)[1].identity

    cooldown = ("cooldown.from_tokens=2048", "cooldown.fraction=0.5")
    runs = [
        identity(),
        *(identity(f"optim={name}") for name in (*NAMED, LION)),
        identity("optim=muon", "optim.momentum=0.9"),
        identity(f"optim={LION}", "+optim.options.beta2=0.9"),
        identity("+optim.lr_factors.head=0.5"),
        identity(f"schedule={COURSES}:inverse_sqrt"),
        identity(f"schedule={COURSES}:inverse_sqrt", "+schedule.options.least=0.1"),
        *(identity(f"cooldown={name}", *cooldown) for name in ("linear10", "sqrt10", "cosine10", f"{COURSES}:power")),
        identity("cooldown=linear10", *cooldown, "cooldown.final_factor=0.1"),
        identity(f"cooldown={COURSES}:power", *cooldown, "+cooldown.options.exponent=3"),
    ]
    assert len(set(runs)) == len(runs)
    assert identity("optim.name=adamw") == identity()
    assert identity("cooldown=linear10", *cooldown, "cooldown.final_factor=0") == identity(
        "cooldown=linear10", *cooldown
    )


def test_branches_of_every_shape_continue_one_run(composed: Compose) -> None:
    cooldown = ("cooldown.from_tokens=2048", "cooldown.fraction=0.5")
    main = train(composed)
    for name, expected in (("sqrt10", 1 - (3 / 7) ** 0.5), ("cosine10", None), (f"{COURSES}:power", (4 / 7) ** 1.5)):
        _, branch = prepared(composed, f"cooldown={name}", *cooldown, "cooldown.final_factor=0.2")
        assert branch.parent == main.identity
        assert (branch.first_step, branch.last_step) == (16, 23)
        share = 0.5 * (1 + np.cos(np.pi * 3 / 7)) if expected is None else expected
        assert branch.lr_at(19) / branch.lr_eff == pytest.approx(0.2 + 0.8 * share, rel=1e-12)
    planned = train(composed, "cooldown=sqrt10", *cooldown)
    assert read_state(planned.folder).status is Status.finished


def test_a_schedule_of_one_s_own_is_trained(composed: Compose) -> None:
    planned = train(composed, f"schedule={COURSES}:inverse_sqrt", "+schedule.options.least=0.4")
    assert read_state(planned.folder).status is Status.finished
    assert planned.lr_at(1) == pytest.approx(planned.lr_eff * 0.5)  # 128 of 256 tokens
    assert planned.lr_at(8) == pytest.approx(planned.lr_eff * (256 / 1024) ** 0.5)
    assert planned.lr_at(19) == pytest.approx(planned.lr_eff * 0.4)


BAD = """
import torch

def negative(tokens_seen, total_tokens, warmup_tokens):
    return 1 - tokens_seen

def raises(done):
    return 1 / (done - 0.5) if done == 0.5 else 1.0

def not_one(groups, lr):
    return 3

def forgets(groups, lr):
    return torch.optim.SGD(groups[:1], lr=lr)

class Counts(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for one in group["params"]:
                self.state[one]["count"] = 1
        super().step()

def counts(groups, lr):
    return Counts(groups, lr=lr)

class Hides(torch.optim.SGD):
    times = 0

    def step(self, closure=None):
        self.times += 1
        for group in self.param_groups:
            for one in group["params"]:
                one.data.sub_(self.times * group["lr"])

def hides(groups, lr):
    return Hides(groups, lr=lr)
"""


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            "schedule={}:negative",
            r"schedule=.*:negative: called with .* it gives -\d+.*allowed values are finite numbers from 0 on",
        ),
        ("cooldown={}:raises", r"cooldown=.*: called with \(0\.5,\) it fails \(ZeroDivisionError"),
        ("schedule={}:raises", "called with .* it fails .TypeError"),
        ("optim={}:not_one", "gives a int, and not a torch.optim.Optimizer"),
        ("optim={}:negative", "called with groups of parameters and a rate it fails .TypeError"),
        ("optim={}:forgets", r"has .*norm.* in 0 of its param_groups, and not in one"),
        ("optim={}:counts", "keeps count as a int: a checkpoint holds tensors"),
        ("optim={}:hides", r"goes on otherwise from a checkpoint: what it keeps has to be in optimizer\.state"),
        ("optim.options.x=1", "optim=adamw reads no options"),
        ("optim.momentum=0.5", "optim=adamw does not read it; leave it out, or give optim=muon"),
        ("optim.name=sgd", "allowed values are adamw, amsgrad, nadamw, radamw, muon, path/to/file.py:NAME"),
        (
            "optim.lr_factors.heads=0.5",
            "no parameter's name begins so; the names begin with embedding, blocks, norm, head",
        ),
        ("optim.lr_factors.head=0", "allowed values are finite numbers above 0"),
        ("schedule.name=x", r"give your own schedule as schedule=path/to/file\.py:NAME"),
    ],
)
def test_parts_that_do_not_fit_are_named(composed: Compose, tmp_path: Path, choice: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    word = choice.format(tmp_path / "bad.py")
    new = "+" if ".options." in word or ".lr_factors." in word else ""

    def tried() -> None:
        config, planned = prepared(composed, f"{new}{word}")
        check_parts([(planned, config)])

    with pytest.raises(UserError, match=message) as refused:
        tried()
    assert "\n" not in str(refused.value)


def test_bad_parts_end_with_exit_code_2_and_leave_nothing(
    door: Door, outputs: Path, corpora: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    places = (f"data_dir={corpora}", "tracker=none", "accelerator=cpu")
    for word in ("optim={}:hides", "schedule={}:negative", "optim=muon parallel=fsdp devices=2"):
        code, said = door("train", *word.format(tmp_path / "bad.py").split(), *places)
        assert (code, said.count("\n")) == (2, 1), said
    assert not (outputs / "runs").exists()


def test_a_plain_module_s_matrices_are_muon_s_but_for_what_it_declares() -> None:
    class Mine(nn.Module):
        embedding_names = ("tokens.",)
        head_names = ()

        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.inner, self.head = nn.Embedding(8, 4), nn.Linear(4, 4), nn.Linear(4, 8)

    model = Mine()
    optimizer = build_optimizer(model, 0.1, OptimConfig(name="muon"))
    muon = {id(one) for one in optimizer.parts[0].param_groups[0]["params"]}  # type: ignore[attr-defined]
    assert muon == {id(model.inner.weight), id(model.head.weight)}
