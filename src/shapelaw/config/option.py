"""One frozen record per group of options. The fields of a record hold all that is known of its options: type, default,
bounds, unit and meaning. Hydra's schema (schema.py), the checks and --help (help.py) read them there. Needs no Hydra.

>>> @record("oven")
... class Oven:
...     '''An oven.'''
...     celsius: float = option("Temperature inside.", above=0, high=300, unit="degrees")
...     program: str = option("What it does.", default="bake", choices=("bake", "grill"))
>>> Oven(celsius=180)
Oven(celsius=180, program='bake')
>>> Oven(celsius=400)
Traceback (most recent call last):
    ...
shapelaw.errors.UserError: oven.celsius=400: allowed values are numbers above 0 up to 300, in degrees; give one
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from inspect import isclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from shapelaw.errors import UserError

T = TypeVar("T")
METADATA = "option"
MISSING = "???"
"""A value that is to be given still, as Hydra writes it."""


@dataclass(frozen=True)
class Option:
    """What the field of an option says of it. Bounds hold for every element of a list.

    Args:
        meaning: a sentence or more for --help.
        unit: of its numbers.
        low, above: the smallest number, or the one that all are above.
        high, below: the largest number, or the one that all are below.
        whole: whether fractions are refused.
        choices: all that is allowed, if that can be listed.
        also: what is allowed beside the numbers.
        advice: what to do about a value that is refused.
    """

    meaning: str
    unit: str = ""
    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None
    whole: bool = False
    choices: tuple[Any, ...] = ()
    also: tuple[Any, ...] = ()
    advice: str = "give one"

    def accepts(self, value: Any) -> bool:
        """Whether a value is allowed."""
        if self.choices:
            return value in self.choices
        if isinstance(value, list | tuple):
            return all(map(self.accepts, value))
        if value in self.also:
            return True
        try:
            return math.isfinite(value) and not (
                (self.low is not None and value < self.low)
                or (self.above is not None and value <= self.above)
                or (self.high is not None and value > self.high)
                or (self.below is not None and value >= self.below)
                or (self.whole and value != int(value))
            )
        except (TypeError, OverflowError):
            return False

    @property
    def range(self) -> str:
        """The bounds in words; empty without any.

        >>> Option("", low=0, below=1).range, Option("", above=0, high=1).range, Option("", low=1).range
        ('from 0 to below 1', 'above 0 up to 1', 'from 1')
        """
        lower = f"from {_bound(self.low)}" if self.low is not None else ""
        lower = f"above {_bound(self.above)}" if self.above is not None else lower
        upper = f"{'to' if self.low is not None else 'up to'} {_bound(self.high)}" if self.high is not None else ""
        if self.below is not None:
            upper = f"{'to' if self.low is not None else 'and' if lower else ''} below {_bound(self.below)}".strip()
        return f"{lower} {upper}".strip()

    @property
    def allowed(self) -> str:
        """Every allowed value in words."""
        if self.choices:
            return ", ".join(map(said, self.choices))
        bounded = self.high is not None or self.below is not None
        noun = "whole numbers" if self.whole else "numbers" if bounded else "finite numbers"
        unit = [f"in {self.unit}"] if self.unit else []
        return ", ".join([f"{noun} {self.range}".strip(), *unit, *(f"and {said(one)}" for one in self.also)])

    def refusal(self, key: str, value: Any) -> UserError:
        """The error that says that a value is not allowed."""
        return UserError(f"{key}={said(value)}: allowed values are {self.allowed}; {self.advice}")


def option(
    meaning: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Callable[[], Any] | Any = dataclasses.MISSING,
    **bounds: Any,
) -> Any:
    """The field of an option; one without a default must be given.

    Args:
        meaning: a sentence or more for --help.
        default, default_factory: as of `dataclasses.field`.
        bounds: unit, bounds, choices and advice, as of `Option`.
    """
    metadata = {METADATA: Option(meaning, **bounds)}
    return field(default=default, default_factory=default_factory, metadata=metadata)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option, field))
def record(key: str = "") -> Callable[[type[T]], type[T]]:
    """Makes a class a frozen record of options that is checked when it is made: every option by itself, and then, by the
    method `check` if the class has one, those that must fit each other.

    Args:
        key: of its group on the command line; empty for a script's own options.
    """

    def make(cls: type[T]) -> type[T]:
        def check(self: Any) -> None:
            _check(self, key)
            if further := getattr(self, "check", None):
                further()

        cls.__post_init__ = check  # type: ignore[attr-defined]
        return dataclass(frozen=True, kw_only=True)(cls)

    return make


def part_of(kind: type[T], options: Any) -> T:
    """The options of a record alone, of one that extends it."""
    return kind(**{one.name: getattr(options, one.name) for one in fields(kind)})  # type: ignore[arg-type]


def given_options(kind: type[T], given: T | Mapping[str, Any] | None, key: str) -> T | None:
    """Options that a call was given as their record, as a mapping, or not at all.

    Raises:
        UserError: for an unknown name, or a value that is not allowed.
    """
    if given is None or isinstance(given, kind):
        return given
    assert isinstance(given, Mapping)
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(
            f"{key}: unknown {', '.join(unknown)}; allowed names are {', '.join(known)}; give some of these"
        )
    return kind(**given)


def check_option(kind: type, name: str, value: T, key: str = "") -> T:
    """`value` if the option `name` of a record may have it.

    Raises:
        UserError: naming the key, which is the option's name if none is given.
    """
    found = _checked(kind).get(name)
    if found and not (found[0] and value is None) and not found[1].accepts(value):
        raise found[1].refusal(key or name, value)
    return value


def _check(options: Any, key: str) -> None:
    values, kind = vars(options), options.__class__
    for name, (optional, about) in _checked(kind).items():
        value = values[name]
        if not (optional and value is None) and not about.accepts(value):
            raise about.refusal(f"{key}.{name}" if key else name, value)


@cache
def _checked(kind: type) -> dict[str, tuple[bool, Option]]:
    """Option -> whether it may be None, and what is known of it; those whose every value is allowed are left out."""
    found = {}
    for name, (annotation, about) in options_of(kind).items():
        parts = set(_parts(annotation))
        if about.choices or parts & {int, float}:
            found[name] = NoneType in parts, about
    return found


@cache
def options_of(kind: type) -> dict[str, tuple[Any, Option]]:
    """Option of a record -> its type and what is known of it, completed by what the type says: whole numbers, choices."""
    hints = get_type_hints(kind)
    given = {one.name: one.metadata[METADATA] for one in fields(kind) if METADATA in one.metadata}
    return {name: (hints[name], _completed(about, hints[name])) for name, about in given.items()}


def _completed(about: Option, annotation: Any) -> Option:
    parts = set(_parts(annotation))
    if not about.choices:
        enums = [part for part in parts if isclass(part) and issubclass(part, Enum)]
        about = dataclasses.replace(about, choices=tuple(member for one in enums for member in one))
    return dataclasses.replace(about, whole=about.whole or (int in parts and float not in parts))


def _parts(annotation: Any) -> Iterator[Any]:
    """The types that a value or an element of a list may have."""
    if get_origin(annotation) in (Union, UnionType, list, tuple):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


@cache
def groups_of(kind: type) -> dict[str, type]:
    """Field of a record that is a group of options -> the group's record."""
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind) if is_dataclass(hints[one.name])}


def keys_of(kind: type, prefix: str = "") -> Iterator[str]:
    """Every key of a record, groups and what lies below them."""
    for name in (one.name for one in fields(kind)):
        yield f"{prefix}{name}"
        if name in groups_of(kind):
            yield from keys_of(groups_of(kind)[name], f"{prefix}{name}.")


def leaf_keys_of(kind: type, prefix: str = "") -> Iterator[str]:
    """Every key of a record that holds a value and not a group."""
    for name in (one.name for one in fields(kind)):
        if name in groups_of(kind):
            yield from leaf_keys_of(groups_of(kind)[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def defaults_of(kind: type) -> dict[str, Any]:
    """Every option of a record that has a default, groups as mappings of their own."""
    groups, found = groups_of(kind), {}
    for one in fields(kind):
        if one.name in groups:
            found[one.name] = defaults_of(groups[one.name])
        elif one.default is not dataclasses.MISSING:
            found[one.name] = one.default
        elif one.default_factory is not dataclasses.MISSING:
            found[one.name] = one.default_factory()
    return found


def record_of(kind: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """The record of nested values.

    Raises:
        UserError: for a key that there is none of, an option without a value, or a value that is not allowed.
    """
    groups, known = groups_of(kind), {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"+{prefix}{key}: there is no such key; --help lists all keys")
    made: dict[str, Any] = {}
    for name, one in known.items():
        value = values.get(name, {} if name in groups else MISSING)
        if name in groups:
            made[name] = record_of(groups[name], value, f"{prefix}{name}.")
        elif isinstance(value, str) and value == MISSING:
            if name in values or _required(one):
                raise UserError(f"{prefix}{name}: is missing; give {prefix}{name}=VALUE (--help explains it)")
        else:
            made[name] = value
    return kind(**made)


def _bound(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _required(one: dataclasses.Field[Any]) -> bool:
    return one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING


def said(value: Any) -> str:
    """A value as it is written on the command line.

    >>> said(None), said(2.0), said(1234567.5), said(100_000)
    ('null', '2', '1234567.5', '100000')
    """
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and math.isinf(value):
        return f"{value:g}"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return f"[{', '.join(map(said, value))}]" if isinstance(value, list | tuple) else str(value)
