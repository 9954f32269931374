"""The record of a suite: the facts that the runs of one suite share and that a prescription needs.

It is created once, from a run's composed configuration and its corpus, and travels with the run: into the tracker, the runs
table, and the table beside a fit. No other code reads a suite's YAML for these facts. Imports no torch and no Hydra.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapelaw.config import DepthPatch
from shapelaw.config.option import part_of
from shapelaw.errors import UserError
from shapelaw.files import as_record, plain
from shapelaw.lr_rules import batch_factor, lr_eff
from shapelaw.shapes import Shape

if TYPE_CHECKING:
    from shapelaw.config import TrainConfig

HASH_DIGITS = 12
"""Hexadecimal digits of a hash that the record keeps."""
COLUMNS = {
    "suite": "name",
    "head_size": "head_size",
    "vocab_size": "vocab_size",
    "seq_len": "seq_len",
    "batch_tokens": "batch_tokens",
    "lr_base": "lr_base",
}
"""Column of a runs table -> the field of the record that it holds."""
RATE = ("width_unit", "lr_rule", "patch")
"""Fields that turn a base rate into that of a shape."""


@dataclass(frozen=True)
class Suite:
    """The facts that the runs of a suite share. An unknown field is None.

    Args:
        name: name of the suite, and of its MLflow experiment.
        folder: value of SHAPELAW_SUITE for it: the name of a folder of conf/suite, or an absolute path.
        head_size: features of one attention head.
        width_unit: widths of the paper's models that one feature stands for in the rate rule.
        lr_rule: name of the rule by which lr_base becomes the rate of a shape (`shapelaw.lr_rules`).
        patch: the rule's patch for extreme shapes.
        lr_batch_scaling: how the rate follows batch_tokens: `none`, `sqrt` or `linear`.
        lr_batch_reference: tokens of the batch at which lr_base needs no scaling; None without a scaling.
        lr_base: rate before the rule divides it by the shape.
        vocab_size: rows of the embedding and of the head.
        seq_len: context, in tokens.
        batch_tokens: tokens of one optimizer step.
        corpus: first 12 hexadecimal digits of the hash of the corpus's tokens and their split.
        tokenizer: first 12 hexadecimal digits of the tokenizer's hash.
        validation_tokens: tokens of the held-out sample.

    >>> nano = Suite(name="nano", width_unit=8, lr_rule="width", patch=DepthPatch(), lr_base=5)
    >>> nano.rate(Shape(64, 4, 16))
    0.009765625
    >>> Suite.from_json(nano.to_json()) == nano
    True
    """

    name: str | None = None
    folder: str | None = None
    head_size: int | None = None
    width_unit: float | None = None
    lr_rule: str | None = None
    patch: DepthPatch | None = None
    lr_batch_scaling: str | None = None
    lr_batch_reference: float | None = None
    lr_base: float | None = None
    vocab_size: int | None = None
    seq_len: int | None = None
    batch_tokens: int | None = None
    corpus: str | None = None
    tokenizer: str | None = None
    validation_tokens: int | None = None

    @classmethod
    def of(cls, config: TrainConfig, corpus: str | None = None, tokenizer: str | None = None) -> Suite:
        """The record of a composed configuration.

        Args:
            config: configuration of one run.
            corpus, tokenizer: hashes from the corpus's manifest; None if it is not available.
        """
        rule, scaling = config.lr_rule, config.lr_batch_scaling.value
        return cls(
            name=config.suite.name,
            folder=config.suite.folder,
            head_size=config.suite.head_size,
            width_unit=config.suite.width_unit,
            lr_rule=rule.name.value,
            patch=part_of(DepthPatch, rule),
            lr_batch_scaling=scaling,
            lr_batch_reference=None if scaling == "none" else config.lr_batch_reference,
            lr_base=config.lr_base,
            vocab_size=config.tokenizer.vocab_size,
            seq_len=config.seq_len,
            batch_tokens=int(config.batch_tokens),
            corpus=corpus and corpus[:HASH_DIGITS],
            tokenizer=tokenizer and tokenizer[:HASH_DIGITS],
            validation_tokens=int(config.validation.tokens),
        )

    @classmethod
    def of_columns(cls, values: Mapping[Any, Any]) -> Suite:
        """The record in a row of a runs table: canonical column -> value, where missing ones are None, NaN or empty."""
        return cls(**{COLUMNS[name]: _typed(name, value) for name, value in values.items() if name in COLUMNS})

    @classmethod
    def from_plain(cls, content: Any, place: str) -> Suite:
        """The record from the result of `plain`.

        Args:
            content: plain types.
            place: where they were read, for the message.

        Raises:
            UserError: if it is not such a record.
        """
        return as_record(cls, _with_infinity(content), Path(place))

    @classmethod
    def from_json(cls, text: str, place: str = "suite") -> Suite:
        """The record from the result of `to_json`; raises the errors of `from_plain`."""
        try:
            return cls.from_plain(json.loads(text), place)
        except json.JSONDecodeError as error:
            raise UserError(f"{place}: is not a record of a suite ({error})") from None

    def plain(self) -> dict[str, Any]:
        """The known fields as JSON types; an infinite patch ratio as text."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        if self.patch is not None:
            known["patch"]["patch_ratio"] = plain(self.patch.patch_ratio)
        return known

    def to_json(self) -> str:
        """The known fields as one line of JSON."""
        return json.dumps(self.plain(), allow_nan=False)

    def missing(self, *names: str) -> list[str]:
        """The unknown ones among some fields."""
        return [name for name in names if getattr(self, name) is None]

    def completed(self, other: Suite) -> Suite:
        """The record with its unknown fields taken from another."""
        return replace(self, **{name: getattr(other, name) for name in self.missing(*FIELDS)})

    def overrides_in(self, other: Suite) -> tuple[str, ...]:
        """`key=value` for train.py, for fields that are known here and differ in another record."""
        own, others = self._options(), other._options()
        return tuple(f"{key}={value}" for key, value in own.items() if value != others.get(key))

    def _options(self) -> dict[str, str]:
        """Known facts by the keys of train.py, without lr_base, which every command names."""
        values: dict[str, float | str | None] = {
            "suite.head_size": self.head_size,
            "suite.width_unit": self.width_unit,
            "lr_rule.name": self.lr_rule,
            "lr_batch_scaling": self.lr_batch_scaling,
            "lr_batch_reference": self.lr_batch_reference,
            "tokenizer.vocab_size": self.vocab_size,
            "seq_len": self.seq_len,
            "batch_tokens": self.batch_tokens,
            "validation.tokens": self.validation_tokens,
        }
        if self.patch is not None:
            values["lr_rule.patch_ratio"] = self.patch.patch_ratio
            values["lr_rule.patch_strict"] = str(self.patch.patch_strict).lower()
            values["lr_rule.patch_divisor"] = self.patch.patch_divisor
            values["lr_rule.patch_shapes"] = f"[{','.join(self.patch.patch_shapes)}]"
        return {key: exactly(value) for key, value in values.items() if value is not None}

    def rate(self, shape: Shape) -> float:
        """Peak learning rate of a shape: that of the rate rule (`lr_rules.lr_eff`), times the factor of the batch.

        Raises:
            UserError: if the record lacks lr_base or the rule.
        """
        if unknown := self.missing("lr_base", *RATE):
            raise UserError(f"suite {self.name}: the runs do not record {', '.join(unknown)}, so a shape has no rate")
        assert self.lr_base is not None
        assert self.lr_rule is not None
        assert self.width_unit is not None
        assert self.patch is not None
        return lr_eff(self.lr_base * self.batch_factor, shape, self.lr_rule, self.width_unit, self.patch)

    @property
    def batch_factor(self) -> float:
        """Factor of the batch on the rate; 1 if no scaling is recorded."""
        scaling = self.lr_batch_scaling or "none"
        return batch_factor(scaling, self.batch_tokens or 0, self.lr_batch_reference or 0.0)


FIELDS = tuple(field.name for field in fields(Suite))


def exactly(value: float | str) -> str:
    """A value in the form for train.py, with exactly the digits that a number has.

    >>> exactly(5.0), exactly(0.1234567890123), exactly(math.inf)
    ('5', '0.1234567890123', 'inf')
    """
    if isinstance(value, str):
        return value
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def agreed(suites: Iterable[Suite]) -> Suite:
    """One record from several: a field is known if all records that have it agree."""
    rows = [(suite, 1) for suite in suites]
    found = {name: _counted(rows, name) for name in FIELDS}
    return Suite(**{name: next(iter(values)) for name, values in found.items() if len(values) == 1})


def usual(weighted: Iterable[tuple[Suite, int]]) -> Suite:
    """One record for rows of several suites: every field has the value of most rows of the suite with most rows.

    Args:
        weighted: records and their numbers of rows.
    """
    rows = _of_one_name(list(weighted))
    return Suite(**{name: _most(values) for name in FIELDS if (values := _counted(rows, name))})


def differing(weighted: Iterable[tuple[Suite, int]]) -> dict[str, list[Any]]:
    """Field -> its values, for fields with several; the value of most rows first."""
    rows = list(weighted)
    found = {name: _counted(rows, name) for name in FIELDS}
    return {name: [value for value, _ in values.most_common()] for name, values in found.items() if len(values) > 1}


def pack(suites: Mapping[str, Suite]) -> list[dict[str, Any]]:
    """Run -> record as plain types: each distinct record once, with its runs."""
    runs: dict[Suite, list[str]] = {}
    for run, suite in suites.items():
        runs.setdefault(suite, []).append(run)
    return [{"suite": suite.plain(), "runs": names} for suite, names in runs.items()]


def unpack(packed: Any, place: str) -> dict[str, Suite]:
    """Run -> record, from the result of `pack`.

    Raises:
        UserError: if it is not a result of `pack`.
    """
    try:
        pairs = [(Suite.from_plain(one["suite"], place), list(map(str, one["runs"]))) for one in packed]
    except (TypeError, KeyError) as error:
        raise UserError(f"{place}: its records of suites are damaged ({error!r}); make it again") from None
    return {run: suite for suite, runs in pairs for run in runs}


def _of_one_name(rows: list[tuple[Suite, int]]) -> list[tuple[Suite, int]]:
    """The rows with the most frequent name, and those without one."""
    names = _counted(rows, "name")
    return [(suite, count) for suite, count in rows if suite.name in (None, _most(names))] if names else rows


def _counted(rows: Sequence[tuple[Suite, int]], name: str) -> Counter[Any]:
    """Known values of a field -> rows."""
    found: Counter[Any] = Counter()
    for suite, count in rows:
        if (value := getattr(suite, name)) is not None:
            found[value] += count
    return found


def _most(values: Counter[Any]) -> Any:
    """The value of most rows; among equally frequent numbers the smallest, else the first."""
    return min(values, key=lambda value: (-values[value], value if isinstance(value, int | float) else 0))


def _typed(column: str, value: Any) -> Any:
    """A cell of the table in the type of its field."""
    if column == "suite":
        return str(value) if isinstance(value, str) and value else None
    if value is None or not math.isfinite(value):
        return None
    return float(value) if column == "lr_base" else int(value)


def _with_infinity(content: Any) -> Any:
    """Plain types with the patch ratio as a number again."""
    try:
        ratio = float(content["patch"]["patch_ratio"])
    except (TypeError, KeyError, ValueError):
        return content
    return {**content, "patch": {**content["patch"], "patch_ratio": ratio}}
