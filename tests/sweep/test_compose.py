"""Cells composed in several processes are those composed in one, in their order; the first that is wrong is said."""

from __future__ import annotations

import os

import pytest
from omegaconf import DictConfig, OmegaConf

from shapelaw.errors import UserError
from shapelaw.sweep.compose import compose_all

LINES = [[f"a={number}"] for number in range(70)]


def compose(number: int, overrides: list[str]) -> DictConfig:
    return OmegaConf.create({"number": number, "overrides": overrides, "process": os.getpid()})


def test_many_cells_are_shared_out_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    configs = compose_all(compose, LINES, 5)
    assert [(config.number, list(config.overrides)) for config in configs] == list(enumerate(LINES, 5))
    assert os.getpid() not in {config.process for config in configs}
    few = compose_all(compose, LINES[:3], 0)
    assert {config.process for config in few} == {os.getpid()}


def test_cells_are_composed_where_no_process_is_bound_to_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, which has no sched_getaffinity."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    configs = compose_all(compose, LINES, 0)
    assert [config.number for config in configs] == list(range(70))
    assert os.getpid() not in {config.process for config in configs}


def test_the_first_wrong_cell_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(number: int, overrides: list[str]) -> DictConfig:
        if number >= 40:
            raise UserError(f"{overrides[0]}: no")
        return compose(number, overrides)

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    with pytest.raises(UserError, match="a=40: no"):
        compose_all(picky, LINES, 0)
