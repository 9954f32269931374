"""The override list of every run, from a sweep's overrides: products, and pairs that advance together."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from hydra.core.override_parser.types import Override, ValueType

from shapelaw.errors import UserError


def expand(
    overrides: Sequence[Override], pairs: Sequence[Sequence[str]], options: dict[str, list[str]]
) -> list[list[str]]:
    """Override lists of every run.

    Args:
        overrides: parsed overrides; the last one of a key counts.
        pairs: groups of keys whose values advance together instead of forming a product.
        options: allowed values of the groups that are swept by glob, for the message.

    Raises:
        UserError: if a sweep has no values, a pair names a key that is not swept or belongs to another pair, or its members
            differ in length.
    """
    axes = {override.get_key_element().lstrip("+~"): _values(override, options) for override in overrides}
    paired = Counter(key for pair in pairs for key in pair)
    _check_apart(pairs, paired)
    blocks = [_zip(pair, axes) for pair in pairs]
    blocks += [[[value] for value in values] for key, values in axes.items() if key not in paired]
    return [list(itertools.chain(*choice)) for choice in itertools.product(*blocks)]


def refuse_lists(overrides: Iterable[Override], options: Callable[[str], Sequence[str]]) -> None:
    """Refuse choices of a group in brackets: Hydra merges them into one configuration, in which the last counts.

    Args:
        overrides: parsed overrides.
        options: the choices of a group; none for a key that is not a group.

    Raises:
        UserError: for the first such override.
    """
    for override in overrides:
        value = override.value()
        if isinstance(value, list) and options(override.key_or_group):
            raise UserError(
                f"{override.input_line}: a group has one choice at a time; write several as "
                f"{','.join(map(str, value))}, without brackets, and give -m"
            )


def _values(override: Override, options: dict[str, list[str]]) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"] if not override.is_delete() else [key]
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: an interval needs a search; give a list of values, or hydra/sweeper=optuna to search it"
        )
    values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not values:
        raise UserError(f"{override.input_line}: matches nothing; {_allowed(override, options)}")
    return values


def _allowed(override: Override, options: dict[str, list[str]]) -> str:
    if override.value_type is not ValueType.GLOB_CHOICE_SWEEP:
        return "give at least one value"
    names = options.get(override.key_or_group, [])
    if not names:
        return f"there is no group {override.key_or_group}"
    return f"allowed for {override.key_or_group} are {', '.join(names)}"


def _check_apart(pairs: Sequence[Sequence[str]], paired: Counter[str]) -> None:
    """Check that every group has keys, and that every key advances with one group."""
    groups = ",".join(f"[{','.join(pair)}]" for pair in pairs)
    given = f"hydra.sweeper.pair=[{groups}]"
    if not all(pairs):
        raise UserError(f"{given}: a group is empty; name the swept keys that advance together, or remove the group")
    if twice := [key for key, places in paired.items() if places > 1]:
        raise UserError(f"{given}: {', '.join(twice)} is named twice; put all keys that advance with it into one group")


def _zip(pair: Sequence[str], axes: dict[str, list[str]]) -> list[list[str]]:
    missing = [key for key in pair if key not in axes]
    if missing:
        raise UserError(
            f"hydra.sweeper.pair: {', '.join(missing)} is not swept; pairs may name only swept keys: {', '.join(axes)}"
        )
    lengths = {key: len(axes[key]) for key in pair}
    if len(set(lengths.values())) > 1:
        raise UserError(
            f"hydra.sweeper.pair: {lengths} have different lengths; paired keys need the same number of values"
        )
    return [list(values) for values in zip(*(axes[key] for key in pair), strict=True)]
