"""Every checkpoint of a run as a revision that transformers loads without a network, and what is uploaded of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from hub_server import REFUSAL, hub
from shapelaw.errors import UserError
from shapelaw.export.release import Repository, push, release
from shapelaw.model.transformer import ModelSpec, Transformer
from shapelaw.planned_run import PlannedRun, checkpoint_path, checkpoint_steps
from shapelaw.tracking.journal import records
from shapelaw.training.checkpoint import load_weights
from support import Compose, Door, train

STEPS = [4, 8, 12, 16, 20]


def released(planned: PlannedRun, out: Path) -> tuple[Repository, list[str]]:
    said: list[str] = []
    (repository,) = release([planned.folder], out, "me", "mit", said.append)
    return repository, said


def logits(model: Any, planned: PlannedRun) -> torch.Tensor:
    tokens = torch.randint(planned.vocab_size, (3, planned.seq_len), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model(tokens)
    return found if isinstance(found, torch.Tensor) else found.logits


def test_transformers_loads_every_revision_of_the_folder(composed: Compose, tmp_path: Path) -> None:
    planned = train(composed)
    assert checkpoint_steps(planned.folder) == STEPS
    repository, said = released(planned, tmp_path / "hub")
    assert said == [f"me/{planned.folder.name}: 5 revisions, 5 of them new, step-20 is main"]
    for revision, step in [*((f"step-{step}", step) for step in STEPS), (None, 20)]:
        where: dict[str, Any] = {
            "revision": revision or "main",
            "cache_dir": tmp_path / "hub",
            "local_files_only": True,
        }
        ours = Transformer(ModelSpec(planned.shape, planned.vocab_size, planned.seq_len))
        ours.load_state_dict(load_weights(checkpoint_path(planned.folder, step)))
        theirs = AutoModelForCausalLM.from_pretrained(repository.name, **where)
        torch.testing.assert_close(logits(theirs, planned), logits(ours, planned), rtol=1e-5, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(repository.name, **where)
    padded = tokenizer(["abc", "a"], padding=True)
    assert (padded["input_ids"], padded["attention_mask"][1]) == ([[97, 98, 99], [97, 0, 0]], [1, 0, 0])
    generation = GenerationConfig.from_pretrained(repository.name, **where)
    assert (generation.eos_token_id, generation.pad_token_id) == (0, 0)


def test_its_card_has_licence_data_configuration_and_the_losses_so_far(composed: Compose, tmp_path: Path) -> None:
    planned = train(composed)
    repository, _ = released(planned, tmp_path / "hub")
    snapshot = repository.snapshot("step-12")
    assert snapshot is not None
    text = (snapshot / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["license"], head["library_name"], head["pipeline_tag"]) == ("mit", "transformers", "text-generation")
    journal = [record for record, _ in records(planned.folder / "tracking.jsonl") if record["kind"] == "metrics"]
    losses = {one["tokens"]: one["values"]["val/loss"] for one in journal if "val/loss" in one["values"]}
    rows = [f"| {tokens:,} | {losses[tokens]:.4f} |" for tokens in sorted(losses) if tokens <= 12 * 128]
    assert len(rows) == 3
    assert [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()] == rows
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])["corpus"]["name"] == "text"
    assert yaml.safe_load(text.split("```yaml\n")[2].split("```")[0])["corpus"] == planned.fingerprint["corpus"]
    assert str(tmp_path.parent) not in text  # no path of this machine


def test_a_release_that_was_interrupted_goes_on_and_repeats_nothing(composed: Compose, tmp_path: Path) -> None:
    planned = train(composed)
    repository, _ = released(planned, tmp_path / "hub")
    written = {path: path.lstat().st_mtime_ns for path in repository.folder.rglob("*") if path.is_file()}
    assert released(planned, tmp_path / "hub")[1][0].endswith("5 revisions, 0 of them new, step-20 is main")
    (repository.folder / ".step-12.1.tmp" / "files").mkdir(parents=True)
    repository.ref("step-12").unlink()
    assert released(planned, tmp_path / "hub")[1][0].endswith("5 revisions, 1 of them new, step-20 is main")
    again = {path: path.lstat().st_mtime_ns for path in repository.folder.rglob("*") if path.is_file()}
    assert set(again) == set(written)  # the same files have the same names
    kinds = [json.loads(path.read_text()) for path in (repository.folder / "blobs").iterdir() if _is_json(path)]
    assert len([one for one in kinds if "model_type" in one]) == 1  # which all revisions share


def _is_json(path: Path) -> bool:
    return path.read_bytes()[:1] == b"{"


@pytest.fixture
def logged_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the real client of the hub speak to an address, by plain HTTP."""

    def speak_to(address: str) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")

    return speak_to


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's own client
def test_the_hub_has_every_byte_of_every_revision_and_main_last(
    composed: Compose, tmp_path: Path, logged_in: Callable[[str], None]
) -> None:
    """By the real client, to a server of this machine; a second upload sends nothing again."""
    repository, _ = released(train(composed, "tokens=1024"), tmp_path / "hub")
    said: list[str] = []
    with hub() as server:
        logged_in(server.address)
        push(repository, True, said.append)
        assert said == [f"{repository.name}: {name} is on the hub" for name in ("step-4", "step-8", "main")]
        assert server.commits == [(repository.name, name, name) for name in ("step-4", "step-8", "main")]
        assert (server.private, server.tokens) == ({repository.name: True}, {"Bearer hf_of_the_test"})
        assert server.large, "the weights go as large files"
        held = server.branches[repository.name]
        assert set(held) == {"main", "step-4", "step-8"}
        for revision, files in held.items():
            snapshot = repository.snapshot(revision)
            assert snapshot is not None
            released_files = {path.name: path.read_bytes() for path in snapshot.iterdir()}
            assert {name: content for name, content in files.items() if name != ".gitattributes"} == released_files
        sent = (list(server.commits), dict(server.large))
        push(repository, True, said.append)
        assert (server.commits, server.large) == sent


def test_a_hub_that_refuses_or_is_away_is_one_line(
    composed: Compose, tmp_path: Path, logged_in: Callable[[str], None]
) -> None:
    repository, _ = released(train(composed, "tokens=512"), tmp_path / "hub")
    with hub(refuse=403) as server:
        logged_in(server.address)
        with pytest.raises(
            UserError, match=rf"could not be uploaded \(.*403.*{REFUSAL}.*\); log in with `hf auth login`"
        ) as refused:
            push(repository, True, print)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r"could not be uploaded \(.*Connection refused.*\)"):
        push(repository, True, print)  # the server is gone


def test_what_cannot_be_released_is_one_line(
    composed: Compose, tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(composed, "tokens=512").folder
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    empty = run.parent / "16x1-empty"
    empty.mkdir()
    out = f"out={tmp_path / 'hub'}"
    cases = {
        (f"run={run}", out, "push=true"): "push=true: only revisions are uploaded; give revisions=true too",
        (f"run={run}", out, "license=MIT"): "license='MIT': allowed values are the hub's names",
        (f"run={run}", out, "revisions=true", "namespace=a/b"): "namespace='a/b': allowed values are names",
        (f"run={run.parent}/*", out, "revisions=true"): f"run={empty}: no checkpoint there",
        (f"run={tmp_path}/none/*", out, "revisions=true"): "matches no folder",
        (f"run={run}", f"out={tmp_path / 'taken'}", "revisions=true"): "holds notes.txt, which is not a repository",
    }
    for words, expected in cases.items():
        code, said = door("export", *words)
        assert (code, len(said.splitlines()), expected in said) == (2, 1, True), (words, said)
    assert not (tmp_path / "hub").exists()

    class Refusing:
        """A hub that nobody is logged in to."""

        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            raise huggingface_hub.errors.LocalTokenNotFoundError("Token is required\nlong help")

    monkeypatch.setattr(huggingface_hub, "HfApi", Refusing)
    code, said = door("export", f"run={run}", out, "revisions=true", "push=true")
    assert (code, said.splitlines()[0]) == (2, f"shapelaw/{run.name}: 1 revision, 1 of them new, step-4 is main")
    assert "could not be uploaded (Token is required); log in with `hf auth login`" in said.splitlines()[1]
