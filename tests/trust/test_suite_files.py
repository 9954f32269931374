"""A suite is data: whatever stands in somebody's folder, nothing of it runs, and nothing is sent or read elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shapelaw.errors import UserError
from shapelaw.verbs.suite_files import check_suite
from shapelaw.verbs.suites import environment
from support import ROOT, TINY, Script

GLOBAL = "# @package _global_\n"
ATTACKS = {
    "a callback of Hydra": "hydra:\n  callbacks:\n    x:\n      _target_: os.system\n",
    "a callback by a dotted key": "hydra.callbacks.x._target_: os.system\n",
    "an object anywhere": "suite:\n  name:\n    _target_: os.getcwd\n",
    "an object in a list": "suite:\n  branches:\n    - _target_: os.getcwd\n",
    "a launcher": "defaults:\n  - override /hydra/launcher: slurm\n  - _self_\n",
    "a package moved": "defaults:\n  - /tokenizer@hydra.callbacks: byte\n",
    "code of the suite's own": "defaults:\n  - /law: x.py:f\n",
    "a search path": "hydra:\n  searchpath: [file:///tmp]\n",
    "a variable of the environment": "tokens: ${oc.env:HOME}\n",
    "a nested reference": "tokens: ${oc.env:SHAPELAW_X,${oc.env:HOME}}\n",
    "a reference in a key": "suite:\n  ${oc.env:HOME}: 1\n",
    "a resolver's name by reference": "tokens: ${${seed}:HOME}\n",
    "another resolver": "tokens: ${oc.create:${seed}}\n",
    "a file by a resolver": "tokens: ${oc.decode:'x'}\n",
    "a store": "tracker:\n  uri: http://example.org\n",
    "a place for artifacts": "tracker:\n  artifacts: /tmp/x\n",
    "where outputs lie": "outputs_dir: /tmp/x\n",
    "where corpora lie": "data_dir: /etc\n",
    "a program": "trainer:\n  name: command\n  command: touch /tmp/x\n",
    "the choice of a program": "defaults:\n  - /trainer: command\n  - _self_\n",
    "an object of Python": "tokens: !!python/object/apply:os.system [true]\n",
    "brackets without end": "x: " + "[" * 500_000 + "\n",
    "an alias": "suite: &a\n  name: x\nlimits: *a\n",
}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "mine"))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("file", ["suite.yaml", "shape/16x1.yaml"])
def test_what_a_suite_may_not_set_is_refused(suite: Path, file: str, attack: str) -> None:
    (suite / file).write_text(GLOBAL + attack)
    with pytest.raises(UserError, match=rf"mine: {file} .* on the command line"):
        environment(ROOT, str(suite))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("hydra/launcher/mine.yaml", "_target_: os.system\n"),
        ("hydra/launcher/mine.yaml", "workers: 1\n"),
        ("tracker/mine.yaml", "name: mlflow\nuri: http://example.org\n"),
        ("shape/x.yaml", "# @package tracker\nuri: http://example.org\n"),
        ("shape/x.yaml", "# @package _global_.hydra.callbacks\nx: 1\n"),
        (
            "sweeps/x.yaml",
            "# @package _global_\nhydra:\n  sweeper:\n    params:\n      tracker.uri: http://example.org\n",
        ),
        ("sweeps/x.yaml", "# @package _global_\nhydra:\n  sweeper:\n    params:\n      hydra/launcher: slurm\n"),
        ("sweeps/x.yaml", "# @package _global_\nhydra:\n  sweeper:\n    params:\n      +hydra.callbacks.x: 1\n"),
        ("sweeps/x.yaml", "# @package _global_\nhydra:\n  sweeper:\n    storage: postgresql://example.org/x\n"),
        ("sweeps/x.yaml", "# @package _global_\nhydra:\n  sweeper:\n    _target_: os.system\n"),
        ("sweeps/x.yaml", "# @package _global_\nhydra:\n  launcher:\n    workers: 1\n"),
        ("hydra/x.yml", "# @package _group_\nverbose: true\n"),
    ],
)
def test_a_file_counts_where_hydra_puts_it(suite: Path, file: str, content: str) -> None:
    (suite / file).parent.mkdir(parents=True, exist_ok=True)
    (suite / file).write_text(content)
    with pytest.raises(UserError, match=file):
        check_suite(suite)


def test_what_suites_need_is_allowed(suite: Path) -> None:
    (suite / "shape" / "y.yaml").write_text(
        GLOBAL
        + "tokens: ${oc.env:SHAPELAW_TOKENS,2560}\nwarmup_tokens: ${batch_tokens}\ntracker:\n  log_every_steps: 3\n"
    )
    (suite / "sweeps").mkdir()
    (suite / "sweeps" / "mine.yaml").write_text(
        GLOBAL + "hydra:\n  sweeper:\n    params:\n      shape: ${suite.extremes}\n"
    )
    check_suite(suite)
    for folder in (ROOT / "conf" / "suite").iterdir():
        check_suite(folder)


def test_nothing_of_it_runs_and_a_line_says_why(suite: Path, script: Script, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (suite / "shape" / "16x1.yaml").write_text(
        f"{GLOBAL}hydra:\n  callbacks:\n    x:\n      _target_: os.mkdir\n      path: {trace}\n"
    )
    done = script("train.py", SHAPELAW_SUITE=str(suite))
    assert (done.returncode, len(done.stderr.splitlines()), trace.exists()) == (2, 1, False), done.stderr
    assert "sets hydra.callbacks.x._target_" in done.stderr


VALUES = st.recursive(
    st.sampled_from(["os.system", "${oc.env:HOME}", "${oc.env:SHAPELAW_X}", "${seed}", "x", 1, None]),
    lambda held: st.dictionaries(
        st.sampled_from(["_target_", "hydra", "uri", "tracker", "suite", "tokens"]), held, max_size=3
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    content=st.dictionaries(st.sampled_from(["hydra", "tracker", "suite", "tokens", "defaults", "data_dir"]), VALUES)
)
def test_what_names_code_or_the_environment_never_passes(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]
) -> None:
    import yaml

    folder = tmp_path_factory.mktemp("suite")
    text = yaml.safe_dump(content, default_flow_style=False)
    (folder / "suite.yaml").write_text(GLOBAL + text)
    bad = "_target_" in text or "oc.env:HOME" in text or not {"hydra", "data_dir"}.isdisjoint(content)
    try:
        check_suite(folder)
        passed = True
    except UserError:
        passed = False
    assert not (bad and passed), text


@pytest.mark.parametrize("text", ["[" * 65, "a: " + "{b: " * 65, "[[]" * 65])
def test_brackets_are_counted_before_they_are_read(suite: Path, text: str) -> None:
    (suite / "suite.yaml").write_text(GLOBAL + text)
    with pytest.raises(UserError, match="more than 64 brackets"):
        check_suite(suite)
