"""Hydra's schema of the records, and the records of what Hydra composed."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, StringNode
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from shapelaw.config.option import MISSING, groups_of, record_of
from shapelaw.errors import UserError
from shapelaw.secrets import refuse_passwords, texts_of
from shapelaw.terminal import printable

SURROGATE = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes that are no UTF-8."""
REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")
"""An interpolation that names another option."""
OmegaConf.register_resolver("absolute", os.path.abspath, replace=True)  # `${absolute:PATH}` in conf/, in every process


@cache
def store_schema(name: str, kind: type) -> None:
    """Register the schema that conf/NAME.yaml starts from, as `NAME_schema`; once in a process."""
    ConfigStore.instance().store(name=f"{name}_schema", node=schema_of(kind), replace=True)


@cache
def schema_of(kind: type) -> DictConfig:
    """The schema of a record, made once. What OmegaConf makes of it is read-only as the record is frozen, has no groups that
    must be given, and takes no names in mappings without a +; each is undone here."""
    schema: DictConfig = OmegaConf.structured(kind)
    OmegaConf.set_readonly(schema, None)
    groups = groups_of(kind)
    for name in (one.name for one in fields(kind)):
        if name in groups:
            schema[name] = schema_of(groups[name])
        elif isinstance(schema._get_node(name), DictConfig):
            OmegaConf.set_struct(schema[name], False)
    return schema


INTERPOLATED = "name a key that there is, or write ${oc.env:NAME} for a variable of the environment"
"""What to do about a `${NAME}` that is no option's."""


def to_dataclass(config: DictConfig) -> Any:
    """The record of a composed configuration.

    Raises:
        UserError: for missing values, values that are not allowed, keys that `+KEY=VALUE` put where there are none, and
            URIs with a password.
    """
    kind = OmegaConf.get_type(config)
    assert kind is not None
    try:
        values = _plain(config)
    except OmegaConfBaseException as error:
        if said := _said_by_a_resolver(error):
            raise said from error
        key = getattr(error, "full_key", "") or ""
        reason, advice = str(error).splitlines()[0], f"give it on the command line as {key}=VALUE"
        if isinstance(error, InterpolationKeyError):
            advice = INTERPOLATED
        raise UserError(f"{key}: {reason}; {advice}") from error
    options = record_of(kind, values)
    refuse_passwords(options)
    refuse_bytes(options)
    return options


def refuse_bytes(options: Any) -> None:
    """Refuse a text of options that is no UTF-8, such as a folder's name: neither JSON, YAML nor a store can keep it.

    Raises:
        UserError: that says what to do.
    """
    for key, text in texts_of(options):
        if SURROGATE.search(text):
            raise UserError(
                f"{key}={printable(text)}: contains bytes that are not UTF-8, which no record can store; rename it, or "
                "work in another folder"
            )


def _said_by_a_resolver(error: BaseException) -> UserError | None:
    """The user's error that a resolver raised, which OmegaConf wraps."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, UserError):
        inner = inner.__cause__ or inner.__context__
    return inner


def _plain(config: DictConfig) -> dict[str, Any]:
    """The values as plain objects, as OmegaConf gives them when it resolves; it parses every interpolation anew, though."""
    values: Any = OmegaConf.to_container(config)
    _resolve(config, values, values)
    return values  # type: ignore[no-any-return]


def _resolve(config: DictConfig, values: dict[Any, Any], root: dict[Any, Any]) -> None:
    """Put the values of interpolations in their places."""
    for key, value in values.items():
        if isinstance(value, dict):
            _resolve(config._get_node(key), value, root)  # type: ignore[arg-type]
        elif isinstance(value, list) and "${" in str(value):
            values[key] = OmegaConf.to_container(config[key], resolve=True)
        elif isinstance(value, str) and "${" in value:
            values[key] = _referred(config._get_node(key), value, root)
            if values[key] is None:
                held = config[key]
                values[key] = OmegaConf.to_container(held, resolve=True) if OmegaConf.is_config(held) else held


def _referred(node: Any, text: str, root: dict[Any, Any]) -> Any:
    """What plain references to values say that are known already; None where OmegaConf has to say it."""
    keys = REFERENCE.findall(text)
    known = [_known(root, key) for key in keys]
    if len(keys) == 1 and text == f"${{{keys[0]}}}" and type(known[0]) is node._metadata.ref_type:
        return known[0]
    if not all(isinstance(value, str) for value in known) or not isinstance(node, StringNode):
        return None
    filled = REFERENCE.sub(lambda match: str(_known(root, match[1])), text)
    return None if "${" in filled or "\\" in filled else filled


def _known(root: dict[Any, Any], key: str) -> Any:
    held: Any = root
    for name in key.split("."):
        held = held.get(name) if isinstance(held, dict) else None
    return None if isinstance(held, str) and ("${" in held or held == MISSING) else held
