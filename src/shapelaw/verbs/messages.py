"""What users are told of an error: one line with the key, what was given, what is allowed and what to do next."""

from __future__ import annotations

import difflib
import errno
import re
import sys

import yaml
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from shapelaw.config.option import groups_of, keys_of
from shapelaw.config.schema import INTERPOLATED
from shapelaw.errors import UserError, WorkFailed
from shapelaw.extras import explained
from shapelaw.verbs.meant import choice_meant

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
UNWRITABLE |= {errno.ENOTDIR, errno.EEXIST, errno.ENOENT}  # for a folder below a file, or one that cannot be created


def explain(error: BaseException, schema: type | None = None) -> str | None:
    """One line for the user, or None if the error is not theirs.

    Args:
        error: the error that ended a command.
        schema: schema of its options, to find the nearest one to a misspelt option.
    """
    if isinstance(error, UserError | WorkFailed):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return explained(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return (
            f"{error.filename or 'a file'}: {error.strerror}; free some space, get permission to write there, or give "
            "another outputs_dir; then run the same command again"
        )
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if isinstance(error, OverrideParseException):
        reason = re.sub(r"^Error when parsing index: .*\n", "", str(error)).partition("\n")[0]
        return f"{error.override}: not an override ({reason}); write KEY=VALUE, quoted for the shell"
    if isinstance(error, yaml.YAMLError):
        return _yaml(error)
    if swept := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", str(error)):
        return f"{swept[1]}: several values need -m; give -m, or one value"
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        return f"{_unnamed(schema) or _line(error)}: a group takes the name of one of its choices; --help lists them"
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException | HydraException):
        return _composition(error, schema)
    return None


def _composition(error: BaseException, schema: type | None) -> str:
    """The fault of an override, with the nearest valid key."""
    if inside := re.match(r"In '([^']+)': \w+ raised while composing config:\n(.+)", str(error)):
        return _in_file(inside[1], inside[2], re.search(r"full_key: (\S+)", str(error)))
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    key = str(getattr(cause, "full_key", None) or "") or _quoted(str(error))
    text = _line(cause)
    if key and (
        "not in" in text or "not in" in str(error) or ("Could not override" in str(error) and "struct" in text)
    ):
        return f"{key}: there is no such key{_nearest(key, schema)}; --help lists all keys"
    if "Could not override" in str(error):
        return f"{_line(error)} {text}" if text not in _line(error) else _line(error)
    given = re.match(r"Error merging override (.+)", str(error))
    place = given[1] if given else key if key not in text else ""
    return f"{place + ': ' if place else ''}{text.rstrip('.')}; {_remedy(text)}"


def _in_file(file: str, what: str, key: re.Match[str] | None) -> str:
    """The fault in a file of a group, with its key if Hydra's own line omits it."""
    if what.startswith(f"Key '{file.partition('/')[0]}' not in"):
        return f"{file}.yaml: its keys are read as those of a group; make # @package _global_ its first line"
    place = f"{file}.yaml: {key[1]}" if key and key[1] not in what else f"{file}.yaml"
    if "is not a ListConfig" in what:
        return f"{place}: its values must be a list, [A, B]; correct the file"
    return f"{place}: {what}; --help lists all keys and their types"


UNNAMED = re.compile(r"([-+\d.][\d.,e+-]*|true|false|null)(,|$)", re.IGNORECASE)
"""A value that is not a name."""
REMEDIES = {
    "Could not delete": "--help lists the keys that can be deleted",
    "Could not append": "leave the + out",
    "Interpolation key": INTERPOLATED,
    "Unsupported interpolation": "refer to other options as ${KEY}, or to the environment as ${oc.env:NAME}",
    "Environment variable": "set it, or write the value itself",
    "looks like a config group": "--help lists the groups and their choices",
    "Could not load": "give the hydra.searchpath that conf/ gives its verbs, or leave it unchanged",
    "Invalid hydra.mode": "give -m for a sweep, or nothing for one run",
}
"""Part of Hydra's message -> what to do."""


def _remedy(text: str) -> str:
    """What to do about a value that its key does not allow."""
    if several := re.match(r"Value '\[(.+)\]' of type 'list'", text):
        return f"write several values as {several[1].replace(', ', ',')}, without brackets, and give -m"
    return next((remedy for said, remedy in REMEDIES.items() if said in text), "give a value of that type")


def _yaml(error: yaml.YAMLError) -> str:
    """The place at which a file is not valid YAML."""
    mark: yaml.Mark | None = getattr(error, "problem_mark", None)
    found = f"{mark.name}, line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)
    return f"{found}; correct the file's YAML there: its indentation, quotes and brackets"


def _missing(error: MissingConfigException) -> str:
    name = error.missing_cfg_file or ""
    first, _, rest = name.partition("/")
    group, choice = (first, rest) if choice_meant(first, rest) else name.rpartition("/")[::2]
    meant = choice_meant(group, choice)
    brought = ["path/to/file.py:NAME", "package.module:NAME"] if f"choices://{group}" in str(error) else []
    options = ", ".join([*(error.options or []), *brought])
    if group:
        return f"{group}={choice}: there is no such choice; allowed values are {options}{meant and '; ' + meant}"
    return f"{_line(error).rstrip('.')}; {_remedy(_line(error))}"


def _unnamed(schema: type | None) -> str:
    """The words of the command line that give a group a number, a truth value or nothing, which Hydra does not name."""
    groups = groups_of(schema) if schema else {}
    pairs = (word.partition("=") for word in sys.argv[1:])
    return " ".join(f"{key}={value}" for key, _, value in pairs if key.lstrip("+") in groups and UNNAMED.match(value))


def _nearest(key: str, schema: type | None) -> str:
    known = list(keys_of(schema)) if schema else []
    near = difflib.get_close_matches(key.lstrip("+"), sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _quoted(text: str) -> str:
    found = re.search(r"[\"']([\w.@+/-]+)[\"']", text)
    return found.group(1) if found else ""


def _line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip()
