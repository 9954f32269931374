"""No one let in: the environment does not leak, nothing unsafe is read, servers stay on this machine unless told otherwise."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shapelaw.config import ReportConfig, TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.planned_run import corpus_folder, plan_run
from shapelaw.verbs.report import folder_of
from support import ROOT, Compose, Script

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-7c1d",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-55aa",
    "HF_TOKEN": "planted-hf-0b9e",
    "MY_DATABASE_URL": "postgresql://me:planted-url-91f3@host/db",
}
PICKLES = {"sweep/records.py", "training/processes.py", "sweep/compose.py"}
"""Where pickles are read: what a launcher wrote for its own jobs, in a folder that is checked; a pipe to a child; and a copy
that the process itself holds in memory."""
CODE = {"plugins.py"}
"""Where code is run that the user names: a law, model, optimizer or schedule of their own."""
UNSAFE = {
    *(
        "pickle.load",
        "pickle.loads",
        "torch.load",
        "eval",
        "exec",
        "os.system",
        "os.popen",
        "yaml.load",
        "marshal.loads",
    ),
    *("joblib.load", "pd.read_pickle", "subprocess.getoutput"),
}


def test_no_secret_of_the_environment_is_kept(script: Script, outputs: Path) -> None:
    """A run, a fit and their MLflow records, searched byte by byte for what the environment held."""
    trained = script("train.py", **PLANTED)
    assert trained.returncode == 0, trained.stderr
    failed = script("train.py", "lr_base=1e30", "optim.clip_norm=0", **PLANTED)
    assert failed.returncode != 0
    said = trained.stdout + trained.stderr + failed.stdout + failed.stderr
    for secret in PLANTED.values():
        assert secret not in said
        assert not _files_with(outputs, secret)
    assert _files_with(outputs, "val/loss"), "the search finds what is there"


def _files_with(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", ".hidden", "a\nb", ""])
def test_names_lead_nowhere_else(composed: Compose, name: str) -> None:
    """Suites, corpora and tokenizers are refused by such a name; a report's folder is named otherwise."""
    said = name.replace("\n", "\\n")
    for key in ("suite.name", "data.name", "tokenizer.name"):
        config: TrainConfig = to_dataclass(composed())
        group = key.split(".")[0]
        config = replace(config, **{group: replace(getattr(config, group), name=name)})
        with pytest.raises(UserError) as refused:
            plan_run(config, corpus_folder(config).name)
        assert str(refused.value).startswith(f"{key}='{said}'")
    report: ReportConfig = to_dataclass(composed(name="report"))
    asked = replace(report, runs=replace(report.runs, experiment=name or None))
    folder = folder_of(asked)
    assert folder.resolve().parent == (Path(asked.outputs_dir) / "reports").resolve()


def test_nothing_unsafe_is_read() -> None:
    """No pickle, eval or shell anywhere but in the two places that read what the program itself has just written."""
    found = set()
    for path in (ROOT / "src" / "shapelaw").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            shell = any(word.arg == "shell" for word in node.keywords)
            pickles = any(word.arg == "allow_pickle" for word in node.keywords)
            if name in UNSAFE or shell or pickles:
                found.add(path.relative_to(ROOT / "src" / "shapelaw").as_posix())
    assert found == PICKLES | CODE


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_the_server_stays_on_this_machine_unless_told_otherwise(tmp_path: Path, host: str, warned: bool) -> None:
    """`make ui` with a stand-in for mlflow that says what it was called with."""
    stand_in = tmp_path / "bin" / "mlflow"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$@" jobs="$MLFLOW_SERVER_ENABLE_JOB_EXECUTION"\n')
    stand_in.chmod(0o755)
    given = [] if host == "127.0.0.1" else [f"HOST={host}"]
    command = ["make", "-s", "ui", f"BIN={stand_in.parent}", f"READY={stand_in}", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"--host {host} " in done.stdout
    assert done.stdout.endswith("jobs=false\n"), "ten processes for evaluations of chat models"
    assert ("warning" in done.stderr) is warned
    assert ("docs/guarantees.md" in done.stderr) is warned


def locked_lines() -> list[str]:
    """Of torch.lock and requirements.lock."""
    return [line for name in ("torch", "requirements") for line in (ROOT / f"{name}.lock").read_text().splitlines()]


def test_what_ci_installs_is_locked_by_hashes() -> None:
    """Every line of both locks names one version, every package has hashes, and none is there twice."""
    lines = locked_lines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert len(packages) > 100
    assert all("==" in line and line.endswith("\\") for line in packages)
    for number, line in enumerate(lines):
        if line in packages:
            assert lines[number + 1].strip().startswith("--hash=sha256:")
    assert {"torch", "uv", "numpy"} <= {line.partition("==")[0] for line in packages}
    assert len(set(packages)) == len(packages)


def test_the_bill_of_materials_holds_what_is_locked(tmp_path: Path) -> None:
    """Every package of the lock with its version and all of its hashes."""
    out = tmp_path / "bill.json"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "sbom.py"), str(out)], check=True)
    bill = json.loads(out.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    lines = locked_lines()
    locked = {line.split(" ")[0].partition(";")[0].strip() for line in lines if re.match(r"[a-z0-9]", line)}
    held = {f"{part['name']}=={part['version']}" for part in bill["components"]}
    assert held == {re.sub(r"\[.*\]", "", name) for name in locked}
    hashes = {file["hashes"][0]["content"] for part in bill["components"] for file in part["externalReferences"]}
    assert hashes == {line.split("sha256:")[1][:64] for line in lines if "--hash=" in line}
