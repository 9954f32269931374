"""The coordinate check as the work of a script: sizes of activations and updates against width and depth.

A size s of several shapes is fitted by s = c x^k in width x (or depth) by least squares of the logarithms. A rule that carries
a rate from small shapes to large ones keeps k near 0, above all for the change of the logits and of what leaves the last
block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from shapelaw.config import CooldownConfig, CoordinatesConfig, LrRule, ScheduleConfig, ScheduleKind, ShapeConfig, whole
from shapelaw.config.schema import to_dataclass
from shapelaw.counting import params_total
from shapelaw.data import Loader, check_repeats, load_corpus, validation
from shapelaw.data.part import part_of
from shapelaw.devices import check_devices, gpu_names
from shapelaw.errors import UserError
from shapelaw.figures import coordinates as figure
from shapelaw.figures import style
from shapelaw.files import check_room, write_text
from shapelaw.planned_run import PlannedRun, corpus_folder, plan_run
from shapelaw.terminal import terminal
from shapelaw.training.cost import Cost, arithmetic, check_machine, cost_of, memory_limit, this_machine
from shapelaw.verbs.suites import shapes as shapes_of_suite
from shapelaw.verbs.train import UNPREPARED

if TYPE_CHECKING:
    from shapelaw.training.coordinates import Tokens

AXES = ("width", "depth")
FEWEST = 2
"""Fewest sizes for a slope."""
UNEVEN = 1.5
"""Factor by which a size may deviate from its power before the verdict mentions it."""
ACTIVATIONS = ("size", "change")
UPDATES = ("relative", "update")
FILES_BYTES = 3e5
"""Approximate bytes of the two tables and the figures."""
WIDE = 160
"""Columns of output to a file or a pipe."""
WORDS = {
    "size": "size",
    "change": "change since start",
    "relative": "update / weight",
    "update": "update",
    "loss": "loss",
}


@dataclass(frozen=True)
class Check:
    """The measurements to make.

    Args:
        base: the configuration whose shape all lines go through.
        shapes: (width, depth) of all shapes, in order of their cost.
        rules: rate rule -> the lr_base that gives the base shape its rate.
    """

    base: CoordinatesConfig
    shapes: tuple[tuple[int, int], ...]
    rules: Mapping[LrRule, float]

    def configs(self) -> Iterator[tuple[str, CoordinatesConfig]]:
        """Rule and configuration of every run."""
        for rule, lr_base in self.rules.items():
            for width, depth in self.shapes:
                yield rule.value, _variant(self.base, width, depth, rule, lr_base)


def check(config: DictConfig) -> None:
    """Measure and draw, then print what grows, and where the files are.

    Raises:
        UserError: for bad input, before anything is measured.
    """
    asked: CoordinatesConfig = to_dataclass(config)
    if asked.model.own:
        raise UserError(
            f"model={asked.model.name}: the coordinate check supports only the built-in model; give model=transformer"
        )
    todo = check_of(asked)
    runs = [(rule, one, plan_run(one, UNPREPARED)) for rule, one in todo.configs()]
    check_devices(asked.accelerator, asked.devices, len(gpu_names()))
    costs = [estimate(one, planned) for _, one, planned in runs]
    check_machine([(run[2], cost) for run, cost in zip(runs, costs, strict=True)], asked)
    tokens = _tokens(asked, runs[0][2])
    folder = _folder(asked, runs[0][2])
    check_room(folder, FILES_BYTES, "a coordinate check")
    console = terminal(wide=WIDE, soft_wrap=False)
    measured = [_measured(*run, cost, tokens, console) for run, cost in zip(runs, costs, strict=True)]
    sizes = pd.concat(measured, ignore_index=True)
    lines = lines_of(sizes, asked.shape.width, asked.shape.depth)
    slopes = slopes_of(lines, asked.flat_slope)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("sizes", sizes), ("slopes", slopes)):
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    _draw(lines, tuple(rule.value for rule in todo.rules), folder)
    console.print(_table(slopes, todo, asked.steps))
    console.print(f"sizes.csv, slopes.csv and figures: {folder}")


def check_of(asked: CoordinatesConfig) -> Check:
    """The requested shapes and rates.

    Raises:
        UserError: for values out of range, or if neither width nor depth varies.
    """
    if asked.devices * asked.num_nodes > 1:
        raise UserError(f"devices={asked.devices}, num_nodes={asked.num_nodes}: a coordinate check runs on one device")
    base = asked.shape
    suite = shapes_of_suite() if asked.widths is None or asked.depths is None else []
    widths = _listed("widths", asked.widths, [width for width, _ in suite], base.width)
    depths = _listed("depths", asked.depths, [depth for _, depth in suite], base.depth)
    shapes = {(width, base.depth) for width in widths} | {(base.width, depth) for depth in depths}
    if len(shapes) < FEWEST:
        raise UserError(
            "widths, depths: a single shape has no slope; give two widths or two depths, as widths=[128,256]"
        )
    return Check(asked, tuple(sorted(shapes, key=lambda shape: (shape[0] ** 2 * shape[1], shape))), _rules(asked))


def lines_of(sizes: pd.DataFrame, width: int, depth: int) -> pd.DataFrame:
    """One value for every rule, axis, quantity, part, step and size x on the axis.

    For a part that every block has, the value is the RMS over blocks; for the stream, that of the last block.

    Args:
        sizes: sizes from `training.coordinates`, with a column `rule`.
        width, depth: the shape that the axes go through.
    """
    last = sizes["layer"].isna() | (sizes["part"] != "stream") | (sizes["layer"] == sizes["depth"] - 1)
    keys = ["rule", "quantity", "part", "step", "width", "depth"]
    squares = sizes[last].assign(value=sizes["value"] ** 2)
    values = squares.groupby(keys, sort=False)["value"].mean().pow(0.5).reset_index()
    along_width = values[values["depth"] == depth].assign(over="width", x=values["width"])
    along_depth = values[values["width"] == width].assign(over="depth", x=values["depth"])
    return pd.concat([along_width, along_depth], ignore_index=True).drop(columns=["width", "depth"])


def slopes_of(lines: pd.DataFrame, flat: float) -> pd.DataFrame:
    """Exponent k of value = c x^k for every line, the largest factor off it, and a verdict in words."""
    rows = []
    for keys, line in lines[lines["quantity"] != "loss"].groupby(
        ["rule", "over", "quantity", "part", "step"], sort=False
    ):
        if line["x"].nunique() >= FEWEST:
            named = dict(zip(("rule", "over", "quantity", "part", "step"), keys, strict=True))
            rows.append({**named, **_power(line, str(named["over"]), flat)})
    return pd.DataFrame(rows)


def _power(line: pd.DataFrame, over: str, flat: float) -> dict[str, Any]:
    x, y = line["x"].to_numpy(float), line["value"].to_numpy(float)
    if not (np.isfinite(y) & (y > 0)).all():
        return {"slope": np.nan, "factor": np.nan, "verdict": "not finite" if not np.isfinite(y).all() else "zero"}
    slope, constant = np.polyfit(np.log(x), np.log(y), 1)
    factor = float(np.exp(np.abs(np.log(y) - slope * np.log(x) - constant).max()))
    words = "flat" if abs(slope) <= flat else f"{'grows' if slope > 0 else 'shrinks'} like {over}^{slope:.2f}"
    uneven = f", within a factor of {factor:.1f}" if factor > UNEVEN else ""
    return {"slope": float(slope), "factor": factor, "verdict": words + uneven}


def _variant(base: CoordinatesConfig, width: int, depth: int, rule: LrRule, lr_base: float) -> CoordinatesConfig:
    batch = base.sequences * base.seq_len
    return replace(
        base,
        shape=ShapeConfig(width=width, depth=depth),
        lr_rule=replace(base.lr_rule, name=rule),
        lr_base=lr_base,
        batch_tokens=batch,
        tokens=base.steps * batch,
        schedule=ScheduleConfig(kind=ScheduleKind.constant, warmup_tokens=0.0),
        cooldown=CooldownConfig(),
    )


def estimate(config: CoordinatesConfig, planned: PlannedRun) -> Cost:
    """The cost of a run plus the additional memory: a copy of the weights, the probe's activations at the start and now, and
    its logits twice more while their change is computed."""
    shape, machine = planned.shape, this_machine(config.accelerator)
    params = params_total(shape.width, shape.depth, planned.vocab_size, shape.head_size)
    a_token = 2 * (planned.vocab_size + (3 * shape.depth + 1) * shape.width) + 2 * planned.vocab_size
    held = 4.0 * (float(params) + config.probe_sequences * planned.seq_len * a_token)  # bytes of float32
    left = max(memory_limit(config, machine.memory_bytes, machine.gpu) - held, 1.0)
    cost = cost_of(planned, replace(config, limits=replace(config.limits, memory_gb=left / 1e9)))
    return replace(cost, memory_bytes=cost.memory_bytes + held)


def _rules(asked: CoordinatesConfig) -> dict[LrRule, float]:
    """The chosen rule, and the one to compare, at the same rate of the base shape."""
    rules = {asked.lr_rule.name: asked.lr_base}
    if asked.compare not in (None, asked.lr_rule.name):
        assert asked.compare is not None
        width, depth = asked.shape.width, asked.shape.depth
        rates = [
            plan_run(_variant(asked, width, depth, rule, asked.lr_base), UNPREPARED).lr_eff
            for rule in (asked.lr_rule.name, asked.compare)
        ]
        rules[asked.compare] = asked.lr_base * rates[0] / rates[1]
    return rules


def _listed(key: str, given: list[int] | None, suite: list[int], base: int) -> list[int]:
    """The sizes of an axis, with that of the base shape."""
    for value in given or []:
        whole(key, value)
    return sorted({*(suite if given is None else given), base})


def _tokens(asked: CoordinatesConfig, planned: PlannedRun) -> Tokens:
    """The batches of the first steps in the one order of the corpus, and held-out sequences; or random ones."""
    from shapelaw.training.coordinates import Tokens

    count, seq_len = asked.sequences, planned.seq_len
    if asked.random_tokens:
        draw = np.random.default_rng(asked.order_seed).integers
        size = (asked.steps, count, seq_len + 1)
        batches = draw(planned.vocab_size, size=size)
        return Tokens(tuple(batches), draw(planned.vocab_size, size=(asked.probe_sequences, seq_len + 1)))
    whole = load_corpus(corpus_folder(asked), verify_hashes=asked.data.verify.hashes)
    corpus = part_of(whole, asked.data.unique_tokens, seq_len)
    corpus.check_vocab(planned.vocab_size)
    check_repeats(corpus, seq_len, planned.tokens, asked.data.max_epochs)
    loader = Loader.of(corpus, seq_len, asked.order_seed)
    probe = next(validation(corpus, seq_len, asked.probe_sequences * seq_len).batches(asked.probe_sequences))
    return Tokens(tuple(loader.batch(step, count) for step in range(asked.steps)), probe)


def _measured(
    rule: str, config: CoordinatesConfig, planned: PlannedRun, cost: Cost, tokens: Tokens, console: Console
) -> pd.DataFrame:
    import torch

    from shapelaw.model import check_attention
    from shapelaw.training.coordinates import coordinates

    if config.threads:
        torch.set_num_threads(config.threads)
    gpu = config.accelerator != "cpu" and torch.cuda.is_available()
    check_attention(config.attention.name, "cuda" if gpu else "cpu", planned.shape.head_size)
    device = torch.device("cuda" if gpu else "cpu")
    table = coordinates(planned, config, tokens, device, arithmetic(config, gpu).bf16, cost.micro_sequences)
    loss = table.loc[(table["quantity"] == "loss") & (table["step"] == config.steps), "value"].iloc[0]
    words = (
        f"lr_rule={rule} {planned.shape.name}: rate {planned.lr_eff:.3g}, loss after {config.steps} steps {loss:.3f}"
    )
    console.print(words)
    return table.assign(rule=rule)


def _folder(asked: CoordinatesConfig, planned: PlannedRun) -> Path:
    """outputs/coordinates/SUITE-SHAPE-RULE-lr_base."""
    shape = f"{asked.shape.width}x{asked.shape.depth}"
    name = f"{planned.suite.name}-{shape}-{asked.lr_rule.name.value}-{asked.lr_base:g}"
    return Path(asked.outputs_dir) / "coordinates" / name


def _draw(lines: pd.DataFrame, rules: tuple[str, ...], folder: Path) -> None:
    """A figure of activations and one of updates for each axis that varies."""
    for over in AXES:
        own = lines[(lines["over"] == over) & (lines["quantity"] != "loss")]
        if own["x"].nunique() < FEWEST:
            continue
        for name, quantities in (("activations", ACTIVATIONS), ("updates", UPDATES[:1])):
            rows = {(kind, rule): f"{WORDS[kind]}\n{rule}" for kind in quantities for rule in rules}
            with style.look():
                drawn = figure.coordinates(own[own["quantity"].isin(quantities)], rows, over)
                style.save(drawn, folder, f"{name}_{over}")


def _table(slopes: pd.DataFrame, todo: Check, last: int) -> Table:
    """One row per quantity, one column per rule: the verdicts after the last step and, for sizes, also at the start."""
    table = Table(title=f"after {last} steps (start: before the first)", title_justify="left", box=SIMPLE)
    for name in ("against", "what", *(f"lr_rule={rule.value}" for rule in todo.rules)):
        table.add_column(name)
    shown = slopes[(slopes["step"] == last) | ((slopes["step"] == 0) & (slopes["quantity"] == "size"))]
    keys = ["over", "quantity", "part", "step"]
    verdicts = {tuple(map(str, row[:-1])): row[-1] for row in shown[["rule", *keys, "verdict"]].to_numpy()}
    for over, quantity, part, step in shown[shown["quantity"] != "update"][keys].drop_duplicates().to_numpy():
        what = f"{figure.NAMES[part]}: {WORDS[quantity]}" + ("" if step else " at start")
        said = [verdicts.get((rule.value, over, quantity, part, str(step)), "") for rule in todo.rules]
        table.add_row(over, what, *said)
    return table


DOOR = check
