"""Hydra's schema of the records, and the records of what Hydra composed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from shapelaw.config.option import groups_of, record_of
from shapelaw.errors import UserError
from shapelaw.secrets import refuse_passwords


def store_schema(name: str, kind: type) -> None:
    """Register the schema that conf/NAME.yaml starts from, as `NAME_schema`."""
    ConfigStore.instance().store(name=f"{name}_schema", node=schema_of(kind), replace=True)


def schema_of(kind: type) -> DictConfig:
    """The schema of a record. What OmegaConf makes of it is read-only as the record is frozen, has no groups that must be
    given, and takes no names in mappings without a +; each is undone here."""
    schema: DictConfig = OmegaConf.structured(kind)
    OmegaConf.set_readonly(schema, None)
    groups = groups_of(kind)
    for name in (one.name for one in fields(kind)):
        if name in groups:
            schema[name] = schema_of(groups[name])
        elif isinstance(schema._get_node(name), DictConfig):
            OmegaConf.set_struct(schema[name], False)
    return schema


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
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}: {reason}; give it on the command line as {key}=VALUE") from error
    options = record_of(kind, values)
    refuse_passwords(options)
    return options


def _said_by_a_resolver(error: BaseException) -> UserError | None:
    """The user's error that a resolver raised, which OmegaConf wraps."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, UserError):
        inner = inner.__cause__ or inner.__context__
    return inner


def _plain(config: DictConfig) -> dict[str, Any]:
    """The values as plain objects. OmegaConf's own way resolves each by a search from the root; few are interpolations."""
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return _resolved(config, values)


def _resolved(config: DictConfig, values: dict[Any, Any]) -> dict[Any, Any]:
    for key, value in values.items():
        if isinstance(value, dict):
            _resolved(config._get_node(key), value)  # type: ignore[arg-type]
        elif isinstance(value, list):
            values[key] = OmegaConf.to_container(config[key], resolve=True)
        elif isinstance(value, str) and "${" in value:
            held = config[key]
            values[key] = OmegaConf.to_container(held, resolve=True) if OmegaConf.is_config(held) else held
    return values
