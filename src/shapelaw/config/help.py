"""What `--help` shows: a verb's choices and values, each with its type, bounds, unit and meaning, as its record says."""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from shapelaw.config.option import Option, options_of, said

LAUNCHING = ("hydra/sweeper", "hydra/launcher")
SWEEPS = """
With -m every value may be a list (a,b,c), a range (range(1,4)) or, for a choice, a pattern (glob(*)), in quotes:
all combinations are run; finished runs are skipped.
"""
KINDS = {float: "number", int: "whole number", str: "text", bool: "true or false", NoneType: "null"}
KEY_COLUMNS = 30
VALUE_COLUMNS = 80
LEAST_COLUMNS, MOST_COLUMNS = 80, 128


def help_text(conf: Path, verb: str, program: str, overrides: list[str]) -> str:
    """The help of a verb, with the values that these overrides give.

    Args:
        conf: folder of the configuration.
        verb: name of its configuration.
        program: how its command begins.
        overrides: of the command line.
    """
    with initialize_config_dir(str(conf)):
        config = compose(verb, overrides, return_hydra_config=True)
        chosen: Mapping[str, str | None] = config.hydra.runtime.choices
        launching = LAUNCHING if chosen[LAUNCHING[0]] != "basic" else ()  # Hydra's own: nothing of ours is swept
        groups = [*(group for group in chosen if not group.startswith("hydra/")), *launching]
        loader = GlobalHydra.instance().config_loader()
        options = {group: loader.get_group_options(group, config_name=verb) for group in sorted(groups, key=_last)}
        choices = [_line(f"{group}={_shown(chosen[group])}", ", ".join(options[group])) for group in options]
        values = [*_values(config, launching)]
    return (
        f"{program} {'[-m] ' if launching else ''}{'[GROUP=CHOICE ...] ' if options else ''}[KEY=VALUE ...]\n\n"
        f"{_about(conf / f'{verb}.yaml')}\n{SWEEPS if launching else ''}\n"
        f"{_section('Choices: the current one, and all there are', choices)}"
        f"{_section('Values: the current one, its type and its meaning', values)}"
        "--cfg job shows the values as YAML; --hydra-help shows Hydra's own options.\n"
    )


def _section(title: str, lines: list[str]) -> str:
    """Lines under a title; nothing where there are none."""
    return f"{title}:\n\n" + "\n".join(lines) + "\n\n" if lines else ""


def _last(group: str) -> tuple[bool, str]:
    return group.startswith("hydra/"), group


def _about(file: Path) -> str:
    """The comment at the head of a configuration."""
    lines = file.read_text().splitlines()
    head = lines[: next(k for k, line in enumerate(lines) if not line.startswith("#"))]
    return "\n".join(textwrap.fill(line.removeprefix("#").strip(), _columns()) for line in head)


def _values(config: DictConfig, launching: Iterable[str]) -> Iterator[str]:
    yield from _described(config, "", ("hydra",))
    for group in launching:
        name = group.replace("/", ".")
        yield from _described(config.hydra[group.removeprefix("hydra/")], f"{name}.", ("_target_",))


def _described(node: DictConfig, prefix: str, without: Iterable[str] = ()) -> Iterator[str]:
    """A line or more for every value below a node."""
    schema = OmegaConf.get_type(node)
    told = texts(schema) if is_dataclass(schema) else {}
    for key in map(str, node):
        if key in without:
            continue
        if OmegaConf.is_missing(node, key):
            shown: Any = "???"
        elif isinstance(node[key], DictConfig) and is_dataclass(OmegaConf.get_type(node[key])):
            yield from _described(node[key], f"{prefix}{key}.")
            continue
        else:
            shown = _shown(node[key])
        yield _line(f"{prefix}{key}={shown}", told.get(key, ""))


def _shown(value: Any) -> str:
    if OmegaConf.is_config(value):
        text = str(OmegaConf.to_container(value, resolve=True))
        return text if len(text) <= VALUE_COLUMNS else f"{text[0]}...{text[-1]}"
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e12
    return said(int(value) if whole else value)


def kind(annotation: Any) -> str:
    """A type in the user's words.

    >>> kind(float | None)
    'number or null'
    """
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(kind(part) for part in get_args(annotation))
    if get_origin(annotation) is list:
        return f"list of {kind(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return f"names with {kind(get_args(annotation)[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " | ".join(member.name for member in annotation)
    return KINDS.get(annotation, "any value")


def texts(schema: Any) -> dict[str, str]:
    """Option of a record -> its type, bounds and meaning."""
    return {
        key: f"{_kind(annotation, about)}. {about.meaning}" for key, (annotation, about) in options_of(schema).items()
    }


def _kind(annotation: Any, about: Option) -> str:
    """A type with its bounds.

    >>> _kind(int | None, Option("", low=1, unit="steps", whole=True))
    'whole number from 1, in steps, or null'
    """
    also = [*map(said, about.also), *(["null"] if NoneType in get_args(annotation) else [])]
    if about.choices:
        return " | ".join([*map(said, about.choices), *also])
    if not about.range:
        return kind(annotation)
    number = "whole number" if about.whole else "number"
    several = "list of " if any(get_origin(part) is list for part in (annotation, *get_args(annotation))) else ""
    unit = [f"in {about.unit}"] if about.unit else []
    return ", ".join(
        [f"{several}{number}{'s' if several else ''} {about.range}", *unit, *(f"or {one}" for one in also)]
    )


def _columns() -> int:
    return min(max(shutil.get_terminal_size((MOST_COLUMNS, 1)).columns, LEAST_COLUMNS), MOST_COLUMNS)


def _line(key: str, text: str) -> str:
    """A key beside its text; a long key has a line of its own."""
    filled = textwrap.wrap(text, _columns() - KEY_COLUMNS - 4) or [""]
    if len(key) > KEY_COLUMNS:
        filled = ["", *filled]
    first, *rest = filled
    return "\n".join([f"  {key:<{KEY_COLUMNS}}  {first}".rstrip(), *(" " * (KEY_COLUMNS + 4) + line for line in rest)])
