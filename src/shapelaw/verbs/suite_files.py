"""A suite is data: what the YAML files of somebody's folder may set, checked before Hydra reads any of them.

Hydra builds the objects that a configuration names (`_target_`, `hydra.callbacks`), and its resolvers read the environment and
files. So the folder of somebody else may set options of a run, but nothing of Hydra, of the tracking store, or of where things
lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from shapelaw.errors import UserError
from shapelaw.plugins import is_reference

MAX_BYTES = 2**20
MAX_DEPTH = 64
"""Most nested brackets; the time of YAML's reader grows at least with its square."""
MAX_FILES = 10_000
OWN = frozenset({"hydra", "search", "outputs_dir", "data_dir", "trainer"})
"""Options and groups that belong to whoever runs a suite."""
OWN_KEYS = frozenset({"tracker.uri", "tracker.artifacts", "tracker.experiment_id", "tracker.parent_run_id"})
"""Further single options that belong to them: where records are sent."""
SWEEPER, PARAMS = "hydra.sweeper.", "hydra.sweeper.params."
"""The part of Hydra that the files of a suite's own sweeps may set, and the place of their overrides."""
CONNECTED = frozenset({"hydra.sweeper.storage", "hydra.sweeper.sampler", "hydra.sweeper.pruner"})
"""Exceptions: the database of a search, and its components."""
CODE_OPTIONS = frozenset({"model", "optim", "schedule", "cooldown", "law", "tracker"})
"""Groups whose choice may be code, by its file or its module; only whoever starts a command may name it, never a suite."""
CODE_KEYS = frozenset({"_target_", "_partial_", "_args_"})
INTERPOLATION = re.compile(r"\$\{([^}]*)")
REFERENCE = re.compile(r"\.*[A-Za-z_]\w*(?:\.\w+|\[\w+\])*")
RESOLVER = re.compile(r"suite_name:|oc\.env:SHAPELAW_\w+(?:,[^$]*)?")
PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)


def check_suite(folder: Path) -> None:
    """Refuse a suite's folder whose files set more than a suite may.

    Raises:
        UserError: naming the file, its forbidden setting, and the settings that a suite may make.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml"))
    if len(files) > MAX_FILES:
        raise UserError(f"SHAPELAW_SUITE={folder}: contains {len(files)} YAML files; a suite has at most {MAX_FILES}")
    for path in files:
        for fault in _faults(path, path.relative_to(folder)):
            raise UserError(
                f"SHAPELAW_SUITE={folder}: {path.relative_to(folder)} {fault}; a suite's files set only options of a "
                "run, and refer only to other options, to SHAPELAW_* of the environment and to ${suite_name:}; give the "
                "rest on the command line"
            )


def _faults(path: Path, inside: Path) -> Iterator[str]:
    """Forbidden settings of a file, as ends of a sentence that begins with its name."""
    if path.stat().st_size > MAX_BYTES:
        yield f"is larger than {MAX_BYTES // 2**20} MB"
        return
    text = path.read_text(errors="replace")
    if _depth(text) > MAX_DEPTH:
        yield f"nests more than {MAX_DEPTH} brackets"
        return
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            yield "contains a YAML alias (*NAME); write the value out"
            return
        content = yaml.safe_load(text)
    except yaml.constructor.ConstructorError as error:
        yield f"is not YAML of plain values ({error.problem})"
        return
    except yaml.YAMLError:
        return  # Hydra reports where it is broken
    if isinstance(content, dict):
        defaults = content.pop("defaults", None)
        if not isinstance(defaults, list | None):
            yield "has defaults that are not a list"
            return
        for entry in map(_entry, defaults or ()):
            words = set(re.split(r"[\s/.:]+", entry))
            if words & OWN or "@" in entry or "://" in entry or "$" in entry or _names_code(entry):
                yield f"chooses {entry} in its defaults, which a suite may not choose"
        sweeps = inside.parts[0] == "sweeps"
        yield from _content_faults(content, _package(text, inside), sweeps)


def _depth(text: str) -> int:
    """Most brackets that are open at once, including those without a meaning in YAML."""
    opened = accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    return max(opened, default=0)


def _package(text: str, inside: Path) -> str:
    """Hydra's package for the settings of a file: the one in its head, or that of its folder."""
    group = ".".join(inside.parent.parts)
    head = PACKAGE.search(text)
    parts = (head[1] if head else group).replace("_group_", group).split(".")
    return ".".join(part for part in parts if part not in ("_global_", ""))


def _content_faults(content: dict[Any, Any], package: str, sweeps: bool) -> Iterator[str]:
    for key, value in _leaves(content, package):
        named = key.removeprefix(PARAMS) if sweeps else key
        swept = sweeps and named.startswith(SWEEPER) and not any(named.startswith(name) for name in CONNECTED)
        if not swept and (set(re.split(r"[./@]", named.lstrip("+~"))[:1]) & OWN or named in OWN_KEYS):
            yield f"sets {key}, which a suite may not set"
        if CODE_KEYS & set(key.split(".")):
            yield f"sets {key}={value}: it names code to be run"
        if _is_code_option(named) and ("$" in str(value) or _names_code(str(value))):
            yield f"sets {key}={value}: it names code to be run"
        yield from (f"holds {said}, which a suite may not contain" for said in _foreign(f"{key} {value}"))


def _is_code_option(key: str) -> bool:
    """Whether an option chooses a part that may be code."""
    group, _, rest = key.lstrip("+~").partition("@")[0].partition(".")
    return group in CODE_OPTIONS and rest in ("", "name")


def _names_code(text: str) -> bool:
    """Whether a choice, one of a list or one of a group's, is a part by its file or its module."""
    return any(is_reference(word) for word in re.split(r"[\s,'\"\[\]()]+", text))


def _entry(entry: Any) -> str:
    """An entry of a defaults list as text."""
    return " ".join(f"{group}: {choice}" for group, choice in entry.items()) if isinstance(entry, dict) else str(entry)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value, including empty mappings, with its dotted key."""
    if isinstance(value, dict) and value:
        for name, held in value.items():
            yield from _leaves(held, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for held in value:
            yield from _leaves(held, key)
    else:
        yield key, value


def _foreign(text: str) -> Iterator[str]:
    """Interpolations of a text that are neither references to options nor resolvers that a suite may use."""
    for found in INTERPOLATION.findall(text):
        inner = found.strip()
        if not (REFERENCE.fullmatch(inner) or RESOLVER.fullmatch(inner)):
            yield "${" + inner + "}"
