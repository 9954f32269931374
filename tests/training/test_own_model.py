"""Models that users bring: what is counted of them, how they train and continue, and what is said of those that cannot."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from allocations import Allocations
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from shapelaw import load_runs
from shapelaw.config import ModelConfig
from shapelaw.counting import flops_exact, params
from shapelaw.errors import Interrupted, UserError
from shapelaw.model import ModelSpec, own
from shapelaw.optim import build_adamw
from shapelaw.planned_run import PlannedRun, checkpoint_path, plan_run
from shapelaw.plugins import code_of
from shapelaw.run_state import State, Status, read_state
from shapelaw.shapes import Shape
from shapelaw.tracking import deliver_to_wandb
from shapelaw.training import reporting
from shapelaw.training.checkpoint import MODEL, OPTIMIZER
from shapelaw.training.checks import check_parts
from shapelaw.training.cost import cost_of
from shapelaw.training.memory import MeasuredMemory
from shapelaw.training.starting import check_code
from shapelaw.verbs.suite_files import check_suite
from support import ROOT, Compose, Door, Sweep, prepared, train

EXAMPLES = ROOT / "examples"
AGAIN = """
from shapelaw.model import InitSpec, Transformer, initialise

class Again(Transformer):
    def __init__(self, spec, width_unit=1.0):
        super().__init__(spec)
        self.unit = width_unit

    def initialise(self, seed):
        initialise(self, seed, InitSpec(width_unit=self.unit))
"""
PLAIN = """
import numpy
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, spec, twist=""):
        super().__init__()
        self.embedding = nn.Embedding(spec.vocab_size, spec.shape.width)
        self.head = nn.Linear(spec.shape.width, spec.vocab_size)
        self.drop = nn.Dropout(0.5 if twist == "chance" else 0.0)
        self.twist = twist
        if twist == "half":
            self.half()
        if twist == "buffer":
            self.register_buffer("seen", torch.zeros(1))
        if twist == "names":
            self.head_names = ("unembedding.",)

    def forward(self, tokens):
        x = self.drop(self.embedding(tokens))
        if self.twist == "future":
            x = x + x.mean(1, keepdim=True)
        if self.twist == "looks" and x.sum() > 0:
            x = 2 * x
        if self.twist == "nan":
            x = x / 0
        if self.twist == "shape":
            return self.head(x)[:, 1:].mean(1)
        if self.twist == "wrong":
            return self.head(x.transpose(1, 2))
        return self.head(x)

class Elsewhere(Plain):
    # its weights are made by numpy, its slopes by torch.Tensor: on no device that somebody chose; one matrix is tied
    def __init__(self, spec):
        super().__init__(spec)
        drawn = numpy.random.default_rng(0).normal(size=(spec.vocab_size, spec.shape.width)).astype("float32")
        self.embedding.weight = nn.Parameter(torch.from_numpy(drawn))
        self.head.weight = self.embedding.weight
        self.register_buffer("slopes", torch.Tensor([2.0**-k for k in range(spec.shape.width)]), persistent=False)

    def forward(self, tokens):
        return self.head(self.embedding(tokens) * self.slopes)

def function(spec):
    return 3

NUMBER = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(AGAIN + PLAIN)
    return path


def of_example(reference: str, **options: object) -> ModelConfig:
    return ModelConfig(name=f"{EXAMPLES}/{reference}", options=options)


def tensors(planned: PlannedRun, step: int) -> dict[str, torch.Tensor]:
    folder = checkpoint_path(planned.folder, step)
    return {**load_file(folder / MODEL), **load_file(folder / OPTIMIZER)}


def spec_columns(depth: int) -> dict[str, float]:
    return dict(own.measure(of_example("moe.py:MoE"), ModelSpec(Shape(16, depth, 8), 256, 16)).columns)


def recorded(planned: PlannedRun) -> dict[str, str]:
    """Parameters of a run in its journal."""
    lines = (planned.folder / "tracking.jsonl").read_text().splitlines()
    return dict(next(one for one in map(json.loads, lines) if one["kind"] == "start")["info"]["params"])


def test_our_own_model_brought_as_a_user_s_trains_to_the_same_bits(composed: Compose, file: Path) -> None:
    ours = train(composed, "shape=16x2")
    unit = prepared(composed)[0].suite.width_unit
    theirs = train(composed, "shape=16x2", f"model={file}:Again", f"+model.options.width_unit={unit}")
    assert theirs.identity != ours.identity
    assert read_state(theirs.folder).val_loss == read_state(ours.folder).val_loss
    for step in (4, 20):
        one, other = tensors(ours, step), tensors(theirs, step)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    said = {name: recorded(ours)[name] for name in ("params", "lr_eff", "tokens")}
    assert {name: recorded(theirs)[name] for name in said} == said


@pytest.mark.parametrize(
    ("example", "options"),
    [
        ("swiglu.py:SwiGLU", ["+model.options.group=2"]),
        ("moe.py:MoE", ["+model.options.experts=4", "+model.options.top=2"]),
        ("linear_attention.py:LinearAttention", []),
    ],
)
def test_the_examples_learn_and_are_continued_exactly(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str, options: list[str]
) -> None:
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.0)
    choice = (f"model={EXAMPLES}/{example}", *options)
    whole = train(composed, *choice)
    state = read_state(whole.folder)
    assert state.status is Status.finished
    assert state.val_loss is not None
    assert state.val_loss < 5.0  # log(256) = 5.5

    def stop(state: State) -> None:
        if state.step == 7 and state.status is Status.running:
            os.kill(os.getpid(), signal.SIGTERM)

    other = (f"outputs_dir={tmp_path}/other",)
    with pytest.raises(Interrupted):
        train(composed, *choice, *other, show=stop)
    again = train(composed, *choice, *other)
    assert read_state(again.folder).val_loss == state.val_loss
    ours, theirs = tensors(again, 20), tensors(whole, 20)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_examples_are_short() -> None:
    assert {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")} == pytest.approx(
        {path.name: 30 for path in EXAMPLES.glob("*.py")}, abs=29
    )


@pytest.mark.parametrize("case", [(Shape(32, 2, 8), 256, 64), (Shape(64, 5, 16), 1000, 128)], ids=str)
def test_flops_and_parameters_are_those_of_our_exact_count(file: Path, case: tuple[Shape, int, int]) -> None:
    """torch's counter has the matrix products: 6 for each parameter in a matrix, and causal scores in whole, 12 T C a block;
    the exact count halves these and adds what is no product."""
    shape, vocab, time = case
    found = own.measure(ModelConfig(name=f"{file}:Again"), ModelSpec(shape, vocab, time))
    sizes = (shape.width, shape.depth, vocab)
    assert found.params == params(*sizes, "total", shape.head_size)
    assert found.params - found.embedding == params(*sizes, "no_embedding", shape.head_size)
    assert found.params - found.embedding - found.head == params(*sizes, "no_embedding_and_head", shape.head_size)
    norms = (2 * shape.depth + 1) * shape.width
    products = 6 * (found.params - found.embedding - norms) + 12 * time * shape.width * shape.depth
    assert found.flops_per_token == products
    assert found.flops_per_token == pytest.approx(float(flops_exact(*sizes, time, shape.head_size).total), rel=0.1)


def test_a_tied_matrix_is_counted_once_and_experts_tell_what_is_active() -> None:
    spec = ModelSpec(Shape(32, 2, 8), 256, 64)
    tied = own.measure(of_example("swiglu.py:SwiGLU"), spec)
    assert (tied.embedding, tied.head) == (256 * 32 + 64 * 32, 0)
    one, two = (own.measure(of_example("moe.py:MoE", experts=8, top=top), spec) for top in (1, 2))
    expert = 2 * 32 * 64
    assert one.params == two.params
    assert two.columns == {"params_active": one.columns["params_active"] + 2 * expert, "experts": 8, "top": 2}
    assert one.params - one.columns["params_active"] == 7 * 2 * expert
    assert one.flops_per_token < two.flops_per_token


def test_weights_that_are_made_on_no_chosen_device_are_counted(file: Path) -> None:
    width, vocabulary = 16, 64
    model, spec = ModelConfig(name=f"{file}:Elsewhere"), ModelSpec(Shape(width, 1, 8), vocabulary, 24)
    found = own.measure(model, spec)
    own.check(model, spec)
    assert (found.embedding, found.head) == (width * vocabulary, vocabulary)
    assert found.params == width * vocabulary + vocabulary
    assert found.flops_per_token == 6 * width * vocabulary


AFTER_TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM, LlamaConfig
from shapelaw.config import ModelConfig
from shapelaw.model import ModelSpec, own
from shapelaw.shapes import Shape

AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(own.measure(ModelConfig(name=sys.argv[2]), ModelSpec(Shape(64, 3, 16), 512, 128)).params)
"""


def test_a_model_is_counted_in_a_process_that_loaded_another_by_transformers(tmp_path: Path) -> None:
    """transformers replaces torch.linspace meanwhile, and torch may then never again know it for a constructor."""
    example = of_example("linear_attention.py:LinearAttention")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=16)).save_pretrained(tmp_path / "llama")
    call = [sys.executable, "-c", AFTER_TRANSFORMERS, str(tmp_path / "llama"), example.name]
    answered = subprocess.run(call, capture_output=True, text=True)
    assert answered.returncode == 0, answered.stderr
    assert int(answered.stdout) == own.measure(example, ModelSpec(Shape(64, 3, 16), 512, 128)).params


@pytest.mark.parametrize("example", ["swiglu.py:SwiGLU", "moe.py:MoE", "linear_attention.py:LinearAttention"])
def test_the_memory_estimate_is_near_what_a_step_takes(example: str) -> None:
    """At most a third above the peak of torch's allocations, and no tenth below."""
    spec, sequences = ModelSpec(Shape(64, 3, 16), 512, 128), 4
    found = own.measure(of_example(example), spec)
    memory = MeasuredMemory(found.params, found.activation_bytes, found.largest_bytes, sequences, gpu=False)
    model = own.build(of_example(example), spec, 0)
    tokens = torch.randint(512, (sequences, 129))
    optimizer = build_adamw(model, 1e-3)
    with Allocations([*model.parameters(), *model.buffers(), tokens]) as allocated:
        for _ in range(2):
            allocated.peak_bytes = allocated.bytes
            torch.autograd.backward(model.loss(tokens))
            optimizer.step()
            optimizer.zero_grad()
    assert 0.75 < allocated.peak_bytes / memory.peak_bytes < 1.1


BAD = {
    "Nothing": "has no Nothing; the names there are .*Again.*Plain",
    "NUMBER": "is a int, and not a class or function",
    "function": "gives a int, and not an nn.Module",
}
TWISTED = {
    "chance": "gives another loss the second time",
    "half": "has embedding.weight in torch.float16: weights are float32",
    "buffer": "has the buffer seen .* no checkpoint would keep",
    "names": r"declares head_names=\('unembedding\.',\), and no parameter",
    "future": "is not causal: logits change with tokens that come after them",
    "looks": r"a step on torch's meta device.* fails \(.*mine\.py:\d+\)",
    "nan": "has the loss nan",
    "shape": r"fails|gives a tensor .* and not logits",
    "wrong": r"counted, fails \(RuntimeError: .*reduction dim.*mine\.py:\d+\)",
}


def tried(model: ModelConfig) -> None:
    spec = ModelSpec(Shape(16, 1, 8), 64, 24)
    own.measure(model, spec)
    own.check(model, spec)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((name, {}, message) for name, message in BAD.items()),
        *(("Plain", {"twist": twist}, message) for twist, message in TWISTED.items()),
        ("Plain", {"twists": 1}, r"cannot be called as Plain\(spec, twists=1\) \(got an unexpected keyword"),
    ],
)
def test_a_model_that_cannot_be_trained_is_named_with_its_fault(
    file: Path, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        tried(ModelConfig(name=f"{file}:{name}", options=options))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"model={file}:{name}: ")
    tried(ModelConfig(name=f"{file}:Plain"))


def test_bad_input_is_one_line_and_exit_code_2(
    door: Door, outputs: Path, corpora: Path, file: Path, tmp_path: Path
) -> None:
    places = (f"data_dir={corpora}", "tracker=none", "accelerator=cpu")
    for choice, message in (
        (f"model={file}:Plain +model.options.twist=future", "is not causal"),
        (f"model={tmp_path}/none.py:X", "cannot be read (No such file or directory)"),
        ("model=no_such_package.models:X", "there is no package no_such_package here"),
        ("model=transformer +model.options.experts=4", "model=transformer reads no options"),
        (f"model={file}:Plain parallel=fsdp devices=2", "splits the built-in model alone; give parallel=ddp"),
    ):
        code, said = door("train", *choice.split(), *places)
        assert code == 2
        assert message in said
        assert said.count("\n") == 1
    assert not (outputs / "runs").exists()


def test_the_code_and_its_options_are_part_of_the_identity(composed: Compose, file: Path) -> None:
    def identity(*overrides: str) -> str:
        return prepared(composed, *overrides)[1].identity

    plain = identity(f"model={file}:Plain")
    assert len({plain, identity(), identity(f"model={file}:Again")}) == 3
    assert identity(f"model={file}:Plain", "+model.options.twist=x") != plain
    moved = file.rename(file.with_name("moved.py"))
    assert identity(f"model={moved}:Plain") == plain
    moved.write_text(moved.read_text() + "# another\n")
    assert identity(f"model={moved}:Plain") != plain


def test_a_file_that_changed_since_the_plan_is_not_trained(composed: Compose, file: Path) -> None:
    planned = prepared(composed, f"model={file}:Plain")
    check_code(*planned)
    file.write_text(file.read_text() + "# another\n")
    with pytest.raises(UserError, match=r"model=.* was changed after this run was planned; run the same command again"):
        check_code(*planned)


def test_a_package_s_model_is_of_all_its_files(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "labmodels"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(PLAIN)
    (package / "models.py").write_text("from labmodels.parts import Plain\n")
    monkeypatch.syspath_prepend(tmp_path)
    planned = train(composed, "model=labmodels.models:Plain")
    assert read_state(planned.folder).status is Status.finished
    (package / "parts.py").write_text(PLAIN + "# another\n")
    assert prepared(composed, "model=labmodels.models:Plain")[1].identity != planned.identity


def test_a_sweep_trains_a_model_of_several_shapes(sweep: Sweep, outputs: Path, file: Path) -> None:
    choice = ("-m", f"model={file}:Plain", "shape=16x1,16x2", "hydra.launcher.workers=1")
    done = sweep(*choice, "tracker=none", "accelerator=cpu")
    assert done.returncode == 0, done.stderr
    runs = list((outputs / "runs" / "tiny").iterdir())
    assert len(runs) == 2
    assert all(read_state(run).status is Status.finished for run in runs)


def test_a_tracked_run_is_read_with_its_model_s_columns(composed: Compose) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    model = f"{EXAMPLES}/moe.py:MoE"
    planned = train(composed, f"model={model}")
    assert deliver_to_wandb(planned.folder, offline=True) is None
    wandb.teardown()  # its own process writes a while longer
    table = load_runs("wandb", path=planned.folder, where="experts == 4")
    expected = own.measure(of_example("moe.py:MoE"), ModelSpec(Shape(16, 1, 8), 256, 16))
    assert set(table.rows["params_active"]) == {expected.columns["params_active"]}
    assert set(table.rows["params"]) == {expected.params}
    assert set(table.params("no_embedding_and_head")) == {expected.params - 2 * 16 * 256}
    assert set(table.flops() / table.kept["tokens"]) == {expected.flops_per_token}
    assert set(table.rows["architecture"]) == {code_of("model", model)[:12]}


def test_only_the_smallest_shape_is_tried(composed: Compose, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(own, "check", lambda model, spec: tried.append(spec.shape.name))
    runs = [prepared(composed, f"model={file}:Plain", f"shape={name}") for name in ("32x1", "16x1", "16x2")]
    check_parts([(planned, config) for config, planned in [*runs, prepared(composed)]])
    assert tried == ["16x1"]


def test_costs_are_the_model_s_own(composed: Compose, file: Path) -> None:
    config, planned = prepared(composed, f"model={file}:Plain")
    cost = cost_of(planned, config)
    assert cost.params == 256 * 16 + 257 * 16 + 240  # embedding, head of 256 x 16, its bias
    assert cost.flops == planned.tokens * 6 * 256 * 16


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("suite.yaml", "# @package _global_\nmodel:\n  name: evil.py:X\n"),
        ("suite.yaml", "# @package _global_\nmodel:\n  name: evil.module:X\n"),
        ("suite.yaml", "# @package _global_\nmodel:\n  name: ${suite.name}\n"),
        ("suite.yaml", "# @package _global_\ndefaults:\n  - model: evil.module:X\n  - _self_\n"),
        ("model/mine.yaml", "name: evil.module:X\n"),
        ("sweeps/s.yaml", "# @package _global_\nhydra:\n  sweeper:\n    params:\n      model: transformer,evil.py:X\n"),
        ("sweeps/s.yaml", "# @package _global_\nhydra:\n  sweeper:\n    params:\n      ++model.name: evil.module:X\n"),
    ],
)
def test_no_suite_names_code(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="on the command line"):
        check_suite(tmp_path)


def test_plan_run_takes_any_heads_for_a_model_of_one_s_own(composed: Compose, file: Path) -> None:
    config, _ = prepared(composed, f"model={file}:Plain", "shape.width=40", "suite.head_size=8")
    assert plan_run(config, "c").shape.n_head == 5


def test_the_model_of_the_documentation_is_one(composed: Compose, tmp_path: Path) -> None:
    """The examples of docs/your_model.md, as they stand there: trained, with its rates, and continued into its cooldown."""
    model, rates = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your_model.md").read_text(), re.S)
    (tmp_path / "my_model.py").write_text(model)
    (tmp_path / "my_rates.py").write_text(rates)
    choice = (f"model={tmp_path}/my_model.py:Mixer", "+model.options.expand=2")
    main = train(composed, *choice, f"schedule={tmp_path}/my_rates.py:inverse_sqrt")
    assert (read_state(main.folder).val_loss or 9.0) < 5.0
    branch = (f"cooldown={tmp_path}/my_rates.py:power", "cooldown.from_tokens=2560", "cooldown.fraction=0.2")
    planned = train(composed, *choice, f"schedule={tmp_path}/my_rates.py:inverse_sqrt", *branch)
    assert planned.parent == main.identity
    assert read_state(planned.folder).status is Status.finished
