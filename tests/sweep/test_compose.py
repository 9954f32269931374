"""A run's configuration is the one that Hydra composes, node by node, and what Hydra refuses is refused in its words."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, Node, open_dict

from shapelaw.sweep.compose import Composer, SweepConfigs
from support import ROOT, Compose

pytestmark = pytest.mark.filterwarnings("ignore:extend_list")
FILES = {
    "main": """
        defaults: [compose_schema, {db: mysql}, {db@backup: mysql}, {model: small}, {extra: null}, _self_]
        top: 1
        name: ${db.name}-${model.width}
        there: ${oc.env:SHAPELAW_TEST_THERE,nowhere}
        alias: ${inner}
        inner: {a: 1, b: {c: 2, d: "${top}"}}
        items: [1, 2, "${top}"]
        free: {}
        hydra: {run: {dir: .}, output_subdir: null, job: {chdir: false}}
    """,
    "db/mysql": "{name: mysql, port: 3306, tables: [x, y]}",
    "db/pg": "defaults: [engine: fast, _self_]\nname: pg\nport: 5432\nbatch: ${top}",
    "db/engine/fast": "{kind: fast, share: 0.5}",
    "db/engine/slow": "{kind: slow, share: '${top}', more: {deep: 1}}",
    "db/old/lite": "# @package db\nname: lite\nport: 0",
    "model/small": "width: 16",
    "model/large": "width: 64\ndepth: 2",
    "model/deep": "# @package _global_\nmodel: {width: 8, depth: 64}\ntop: 7",
    "extra/switch": "# @package _global_\ndefaults: [override /db: pg, override /db/engine: slow]\nswitched: true",
    "extra/follow": "# @package _global_\ndefaults: [/notes: '${db}']",
    "notes/mysql": "text: of mysql",
    "notes/pg": "text: of pg",
}
ALLOWED = (
    *("top=2", "top=${model.width}", "top=", "top=null", "top=a b", "top='quoted, text'", "top=[1,2]", "top={x:1}"),
    *("inner.a=5", "inner.b.c=1e-3", "inner={a:3}", "inner=null", "alias.a=8", "alias=3", "alias.b.c=${db.port}"),
    *(
        "items=[7]",
        "items.0=9",
        "items=extend_list(8,9)",
        "+free.x=1",
        "++free.x=2",
        "+free={y:1}",
        "++top=6",
        "+new=1",
    ),
    *("++free.deep.er={k:[1,{v:2}]}", "top=${nope}", "there=${hydra:job.num}"),
    *("~inner.a", "~inner.a=1", "~inner", "~items.0", "~free", "~name", "~inner.b.d=1", "~db", "~db=mysql", "~main"),
    *("db=pg", "db=mysql", "db=old/lite", "db=[mysql,pg]", "db={port:1}", "db.port=1", "+db/engine=slow"),
    *("db@backup=pg", "~db@backup", "+db@third=pg", "backup.port=2", "model=large", "model=deep", "+model.depth=4"),
    *("model=[small,large]", "extra=switch", "extra=follow", "~extra"),
    *(
        "typed.count=4",
        "typed.kind=b",
        "+typed.by_name.x=1",
        "typed.sizes=[3]",
        "hydra.job.name=other",
        "+hydra.job.more=1",
    ),
)
REFUSED = (
    *("inner={z:3}", "inner.b={d:1,e:[2]}", "inner.b.nope=1", "items.5=1", "free.x=3", "+top=4", "~inner.a=2", "~nope"),
    *(
        "db=nope",
        "~db=pg",
        "db=3",
        "db/engine=slow",
        "db.engine.share=2",
        "db@nope=pg",
        "db@backup.x=1",
        "model.depth=3",
    ),
    *("+model=large", "model=", "+extra=switch", "typed.count=x", "typed.nope=1", "typed.kind=c", "typed.by_name.x=1"),
    *("typed.sizes=[x]", "~hydra.job.name", "hydra=null", "~hydra", "hydra.launcher.x=1"),
    *("top=1,2", "top=range(3)", "top=glob(*)", "=", "top", "to p=1", ".top=3"),
)
"""Overrides of every kind, on keys that they share."""
VALUES = st.floats().map(str) | st.integers(-9, 9).map(str) | st.text("ab_1${}:.,'\"\\ ", max_size=8)


class Kind(Enum):
    a = "a"
    b = "b"


@dataclass
class Typed:
    count: int = 1
    kind: Kind = Kind.a
    by_name: dict[str, float] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=lambda: [1, 2])


def content(node: Any) -> Any:
    """All that a configuration holds: kinds of nodes, types, flags, order of keys, interpolations as they are written."""
    assert isinstance(node, Node)
    values = node._value()
    if isinstance(node, DictConfig) and isinstance(values, dict):
        values = [(key, content(value)) for key, value in values.items()]
    elif isinstance(node, ListConfig) and isinstance(values, list):
        values = [content(value) for value in values]
    about = dict(vars(node._metadata))
    about["resolver_cache"] = dict(about.get("resolver_cache", {}))
    return type(node), about, values


class Both:
    """A sweep's composer, and Hydra."""

    def __init__(self, name: str, *shared: str) -> None:
        self.loader: ConfigLoader = GlobalHydra.instance().config_loader()
        self.master = self.loader.load_configuration(name, list(shared), RunMode.MULTIRUN)
        self.composer = Composer(self.loader, self.master)

    def agree(self, overrides: Sequence[str]) -> bool:
        """Check that both make the same of overrides; whether they are allowed."""
        try:
            by_hydra = self.loader.load_sweep_config(self.master, list(overrides))
        except Exception as error:
            self._both_refuse(overrides, error)
            return False
        with open_dict(by_hydra):
            by_hydra.hydra.job.id, by_hydra.hydra.job.num = "4", 4
        assert content(self.composer.job(4, overrides)) == content(by_hydra)
        with open_dict(by_hydra):
            del by_hydra["hydra"]
        assert content(self.composer.task(overrides)) == content(by_hydra)
        return True

    def _both_refuse(self, overrides: Sequence[str], error: Exception) -> None:
        for compose in (self.composer.task, partial(self.composer.job, 4)):
            with pytest.raises(type(error)) as caught:
                compose(overrides)
            assert str(caught.value) == str(error)


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with nested groups, packages, overrides in defaults, interpolations, and typed values."""
    ConfigStore.instance().store(name="compose_schema", node={"typed": Typed})
    folder = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    return folder


@pytest.fixture(scope="module")
def both(conf: Path) -> Both:
    with initialize_config_dir(str(conf)):
        return Both("main")


@pytest.mark.parametrize(("overrides", "allowed"), [(ALLOWED, True), (REFUSED, False)])
def test_one_override(both: Both, overrides: Sequence[str], allowed: bool) -> None:
    assert [override for override in overrides if both.agree([override]) is not allowed] == []


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(ALLOWED), min_size=2, max_size=6))
@example(["alias.a=1", "~inner.a", "+inner.a=3"])
@example(["extra=switch", "db.engine.more.deep=9", "db=mysql"])
@example(["+inner.b.e=1", "~inner.b.e", "inner.b.c=${inner.b.d}"])
@example(["+db/engine=slow", "db=pg", "db.engine.share=2", "~db.batch"])
def test_several_overrides_in_any_order(both: Both, overrides: list[str]) -> None:
    both.agree(overrides)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.sampled_from(["top", "inner.a", "+new", "db", "typed.count", "typed.kind", "items", "model"]), VALUES)
def test_any_value(both: Both, key: str, value: str) -> None:
    both.agree([f"{key}={value}", "inner.b.c=4"])


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("train", ["shape=16x2", "lr_base=5e-1", "cooldown=linear10", "cooldown.from_tokens=1e3"]),
        ("train", ["tokens=${batch_tokens}", "batch_tokens=256", "schedule=wsd", "+validation.further={a: b}"]),
        ("train", ["sweeps=lr_nano", "spikes=rollback", "optim.beta1=0.5", "resources.mem_gb=null"]),
        ("fit", ["law=params_tokens", "delta=1e-4", "solver=reference", "bootstrap=none", "runs.columns.a=b"]),
    ],
)
def test_our_own_configurations(composed: Compose, name: str, overrides: list[str]) -> None:
    with initialize_config_dir(str(ROOT / "conf")):
        assert Both(name, "hydra/launcher=plan", "tracker=none", *overrides).agree(overrides)


def test_runs_are_composed_in_their_order_and_numbered(both: Both) -> None:
    lines = [[f"top={number}", f"db={name}"] for number, name in enumerate(("pg", "mysql", "pg"))]
    runs = SweepConfigs(both.composer, lines, first=5)
    assert [(config.top, config.db.name) for config in runs] == [(0, "pg"), (1, "mysql"), (2, "pg")]
    assert [config.top for config in runs[1:]] == [1, 2]
    jobs = [runs.job(index) for index in range(len(runs))]
    assert [(job.hydra.job.num, list(job.hydra.overrides.task)) for job in jobs] == list(enumerate(lines, 5))
    assert jobs[0].hydra.runtime.choices.db == "pg"


def test_a_run_that_is_changed_leaves_the_others_as_they_are(both: Both) -> None:
    runs = SweepConfigs(both.composer, [["inner.a=2"], ["inner.a=2"]])
    runs[0].inner.b.c = 99
    assert [config.inner.b.c for config in runs] == [2, 2]


def test_hydra_composes_each_combination_of_groups_once(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []
    by_hydra = both.loader.load_sweep_config

    def load_sweep_config(master: DictConfig, overrides: list[str]) -> DictConfig:
        made.append(overrides)
        return by_hydra(master, overrides)

    monkeypatch.setattr(both.loader, "load_sweep_config", load_sweep_config)
    composer = Composer(both.loader, both.master)
    lines = [[f"db={db}", f"top={top}", f"+new={top}"] for db in ("pg", "mysql") for top in range(50)]
    configs = list(SweepConfigs(composer, lines))
    assert [(config.db.name, config.top, config.new) for config in configs[48:52]] == [
        ("pg", 48, 48),
        ("pg", 49, 49),
        ("mysql", 0, 0),
        ("mysql", 1, 1),
    ]
    assert made == [["db=pg"], ["db=mysql"]]


def test_the_first_wrong_run_is_said(both: Both) -> None:
    runs = SweepConfigs(both.composer, [["top=1"], ["top=2", "nope=3"], ["worse=4"]])
    with pytest.raises(ConfigCompositionException, match="Could not override 'nope'"):
        list(runs)
