"""Runs that see their text more than once: what is recorded of it, and what a fit of such runs needs."""

from __future__ import annotations

import numpy as np
import pytest

from shapelaw import fit, load_runs
from shapelaw.runs.worlds import flags
from shapelaw.training.corpora import Library
from shapelaw.training.run_info import run_info
from support import Compose, prepared, train
from test_repetition import table

PART = ("data.unique_tokens=647", "data.max_epochs=4")
"""640 tokens in sequences of 16, that the suite's 2560 tokens see four times."""


def test_a_run_records_its_different_tokens_and_its_table_has_them(composed: Compose, uri: str) -> None:
    train(composed, *PART, "tracker=mlflow", f"tracker.uri={uri}", "tracker.finish_seconds=120")
    runs = load_runs("mlflow", uri=uri, experiment="tiny")
    assert set(runs.kept["unique_tokens"]) == {640.0}
    repeated = int((runs.kept["tokens"] > 640).sum())
    assert 0 < repeated < len(runs.kept) + 1
    assert any(flag.startswith(f"repeated_rows: {repeated} kept rows") for flag in flags(runs, ("tokens",)))
    assert not any(flag.startswith("repeated_rows") for flag in flags(runs, ("tokens", "unique_tokens")))


def test_the_part_is_part_of_the_identity_and_no_part_leaves_it_as_it_was(composed: Compose) -> None:
    whole, less, more, same = (
        prepared(composed, PART[1], *given)[1]
        for given in ((), (PART[0],), ("data.unique_tokens=1280",), ("data.unique_tokens=640",))
    )
    assert len({whole.identity, less.identity, more.identity}) == 3
    assert less.identity == same.identity
    assert "data" not in whole.fingerprint


def test_what_a_run_reads_is_its_part(composed: Compose) -> None:
    config, planned = prepared(composed, *PART)
    own = Library().of(config).own
    assert own.unique_tokens(16) == 640 < Library().of(prepared(composed)[0]).own.unique_tokens(16)
    assert run_info(config, planned, {}, own.unique_tokens(16)).params["unique_tokens"] == 640
    assert "unique_tokens" not in run_info(config, planned, {}).params, "of a program's text nothing is known"


def test_tables_of_runs_that_repeat_are_fitted_without_an_option() -> None:
    """A table with the column needs the law's name alone; a law without a term for repeats says that the rows have some."""
    runs = table("data_constrained")
    result = fit(runs, law="data_constrained", delta=1e-3)
    np.testing.assert_allclose(result.predict(runs), runs.kept["loss"], rtol=1e-8)
    plain = fit(runs, law="params_tokens", delta=1e-3)
    assert any(flag.startswith("repeated_rows: ") for flag in plain.flags)
    assert np.abs(plain.predict(runs) / runs.kept["loss"] - 1).max() > 1e-2
    assert pytest.approx(15.4, rel=1e-4) == result.parameters["r_T"]
