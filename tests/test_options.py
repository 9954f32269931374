"""One record is the schema, the check and the help of its options."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from enum import Enum
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from shapelaw.config import BootstrapOptions, OptimConfig, SpikesConfig
from shapelaw.config.help import texts
from shapelaw.config.option import defaults_of, groups_of, keys_of, option, options_of, record, record_of
from shapelaw.config.schema import schema_of, to_dataclass
from shapelaw.errors import UserError
from shapelaw.verbs.doors import schema_of as schema_of_verb
from shapelaw.verbs.doors import verbs
from support import Compose


class Program(Enum):
    """What an oven does."""

    bake = "bake"
    grill = "grill"


@record("oven")
class Oven:
    """An oven."""

    celsius: float = option("Temperature inside.", above=0, high=300, unit="degrees")
    trays: int = option("Trays in it.", default=1, low=1, advice="2 is usual")
    minutes: float | None = option("How long; null is until it is stopped.", default=None, low=0, also=(math.inf,))
    program: Program = option("What it does.", default=Program.bake)
    rack: str = option("Where the tray is.", default="middle", choices=("top", "middle"))
    steps: list[float] = option("Shares of the temperature on the way.", default_factory=list, above=0, below=1)
    tokens: float = option("A count that may be typed as 2e9.", default=1.0, low=0, whole=True)


@record()
class Kitchen:
    """A kitchen."""

    oven: Oven
    name: str = option("Its name.")


OVEN = Oven(celsius=180)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"celsius": 0.0}, "oven.celsius=0: allowed values are numbers above 0 up to 300, in degrees; give one"),
        ({"celsius": 300.5}, "oven.celsius=300.5: allowed values are numbers above 0 up to 300, in degrees; give one"),
        ({"celsius": math.nan}, "oven.celsius=nan: allowed values are numbers above 0 up to 300, in degrees; give one"),
        ({"celsius": "hot"}, "oven.celsius=hot: allowed values are numbers above 0 up to 300, in degrees; give one"),
        ({"celsius": None}, "oven.celsius=null: allowed values are numbers above 0 up to 300, in degrees; give one"),
        ({"trays": 0}, "oven.trays=0: allowed values are whole numbers from 1; 2 is usual"),
        ({"trays": 1.5}, "oven.trays=1.5: allowed values are whole numbers from 1; 2 is usual"),
        ({"minutes": -1.0}, "oven.minutes=-1: allowed values are finite numbers from 0, and inf; give one"),
        ({"program": "bake"}, "oven.program=bake: allowed values are bake, grill; give one"),
        ({"rack": "floor"}, "oven.rack=floor: allowed values are top, middle; give one"),
        ({"steps": [0.5, 1.0]}, "oven.steps=[0.5, 1]: allowed values are numbers above 0 and below 1; give one"),
        ({"tokens": 1234567.5}, "oven.tokens=1234567.5: allowed values are whole numbers from 0; give one"),
        ({"tokens": math.inf}, "oven.tokens=inf: allowed values are whole numbers from 0; give one"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_in_one_sentence(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as made:
        Oven(**{"celsius": 180, **values})
    with pytest.raises(UserError) as changed:
        replace(OVEN, **values)
    assert str(made.value) == str(changed.value) == said


@pytest.mark.parametrize(
    "values",
    [
        {"celsius": 300},
        {"minutes": None},
        {"minutes": math.inf},
        {"minutes": 0},
        {"steps": [0.5, 0.9]},
        {"tokens": 2e9},
        {"program": Program.grill},
    ],
)
def test_what_is_allowed_is_taken_as_it_is(values: dict[str, Any]) -> None:
    (name,) = values
    assert getattr(Oven(**{"celsius": 180, **values}), name) == values[name]


def test_records_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        OVEN.trays = 2  # type: ignore[misc]


def test_the_schema_is_the_record() -> None:
    schema = schema_of(Kitchen)
    assert OmegaConf.is_missing(schema.oven, "celsius")
    composed = OmegaConf.merge(schema, {"name": "mine", "oven": {"celsius": 200, "program": "grill"}})
    assert to_dataclass(composed) == Kitchen(name="mine", oven=Oven(celsius=200.0, program=Program.grill))  # type: ignore[arg-type]
    for wrong in ({"oven": {"celsius": "hot"}}, {"oven": {"program": "boil"}}, {"stove": 1}):
        with pytest.raises(OmegaConfBaseException):
            OmegaConf.merge(schema, wrong)


def test_values_refer_to_others_and_are_of_their_own_type() -> None:
    oven = {"celsius": "${oven.trays}", "trays": 3}
    composed = OmegaConf.merge(
        schema_of(Kitchen), {"name": "no ${oven.trays}", "oven": {**oven, "steps": ["${share}"]}}
    )
    with pytest.raises(UserError, match="share"):
        to_dataclass(composed)  # type: ignore[arg-type]
    kitchen = to_dataclass(OmegaConf.merge(composed, {"oven": {"steps": [0.5]}}))  # type: ignore[arg-type]
    assert (kitchen.name, kitchen.oven.celsius, type(kitchen.oven.celsius)) == ("no 3", 3.0, float)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"oven": {"celsius": 180}}, "name: is missing; give name=VALUE \\(--help explains it\\)"),
        ({"name": "a"}, "oven.celsius: is missing; give oven.celsius=VALUE"),
        ({"name": "a", "oven": {"celsius": "???"}}, "oven.celsius: is missing"),
        ({"name": "a", "oven": {"celsius": 1.0, "trays": "???"}}, "oven.trays: is missing"),
        ({"name": "a", "oven": {"celsius": 1.0, "lamp": 1}}, r"\+oven.lamp: there is no such key"),
        ({"name": "a", "oven": {"celsius": -1.0}}, "oven.celsius=-1: allowed"),
    ],
)
def test_nested_values_make_a_record_or_are_refused_by_their_key(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        record_of(Kitchen, values)


def test_help_says_type_bounds_unit_and_meaning() -> None:
    assert texts(Oven) == {
        "celsius": "number above 0 up to 300, in degrees. Temperature inside.",
        "trays": "whole number from 1. Trays in it.",
        "minutes": "number from 0, or inf, or null. How long; null is until it is stopped.",
        "program": "bake | grill. What it does.",
        "rack": "top | middle. Where the tray is.",
        "steps": "list of numbers above 0 and below 1. Shares of the temperature on the way.",
        "tokens": "whole number from 0. A count that may be typed as 2e9.",
    }


def test_keys_and_defaults_of_a_record() -> None:
    assert list(keys_of(Kitchen))[:3] == ["oven", "oven.celsius", "oven.trays"]
    assert defaults_of(Kitchen)["oven"]["trays"] == 1
    assert "celsius" not in defaults_of(Kitchen)["oven"]


@pytest.mark.parametrize("script", verbs())
def test_every_field_is_an_option_or_a_group(script: str) -> None:
    kinds: list[type] = [schema_of_verb(script)]
    for kind in kinds:
        kinds += groups_of(kind).values()
        assert {*options_of(kind), *groups_of(kind)} == set(kind.__dataclass_fields__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["train", "fit", "report", "coordinates"])
def test_a_composed_configuration_is_what_omegaconf_itself_makes_of_it(composed: Compose, name: str) -> None:
    config = composed(name=name)
    assert to_dataclass(config) == OmegaConf.to_object(config)


def test_options_that_must_fit_each_other(composed: Compose) -> None:
    spikes: SpikesConfig = to_dataclass(composed()).spikes
    with pytest.raises(UserError, match=r"spikes.least_steps=500: allowed values are 1 to spikes.window_steps=128"):
        replace(spikes, least_steps=500)


def test_python_takes_the_same_records() -> None:
    assert BootstrapOptions.of({"n": 10}) == BootstrapOptions(n=10)
    assert BootstrapOptions.of(BootstrapOptions(n=0)) is None
    with pytest.raises(
        UserError, match=r"bootstrap.level=1: allowed values are numbers above 0 and below 1; 0.9 is usual"
    ):
        BootstrapOptions.of({"level": 1})
    assert OptimConfig() == OptimConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)


def test_records_need_no_hydra() -> None:
    code = (
        "import sys, shapelaw.config, shapelaw.config.option, shapelaw.fitting.fit, shapelaw.laws, shapelaw.prescribe\n"
        "sys.exit(' '.join({'hydra', 'omegaconf'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
