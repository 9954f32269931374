"""All checkpoints of runs as revisions of repositories, in the layout of the Hugging Face hub's cache.

OUT/models--NAMESPACE--RUN/blobs/SHA256          every file once, as many revisions share tokenizer and configuration
                           snapshots/COMMIT/     the files of a revision, as links
                           refs/step-N, main     names of revisions -> commits; main is the newest checkpoint

transformers loads a revision of a repository from a cache, never from a plain folder or a local git repository. So this is
the layout that `from_pretrained("NAMESPACE/RUN", revision="step-N", cache_dir=OUT)` reads without a network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapelaw.errors import UserError
from shapelaw.export.folder import write_folder
from shapelaw.extras import installed
from shapelaw.files import check_room, write_text
from shapelaw.training.stored import StoredCheckpoint, all_checkpoints
from shapelaw.wording import counted

COMMIT_DIGITS = 40


@dataclass(frozen=True)
class Repository:
    """A repository in the layout of the hub's cache.

    Args:
        cache: folder of the cache.
        name: NAMESPACE/RUN.
    """

    cache: Path
    name: str

    @property
    def folder(self) -> Path:
        """Its own folder."""
        return self.cache / f"models--{self.name.replace('/', '--')}"

    def ref(self, revision: str) -> Path:
        """File that names a revision's commit."""
        return self.folder / "refs" / revision

    def snapshot(self, revision: str) -> Path | None:
        """Folder of a revision's files; None if there is no such revision."""
        ref = self.ref(revision)
        folder = self.folder / "snapshots" / ref.read_text(errors="replace") if ref.exists() else None
        return folder if folder and folder.is_dir() else None

    def add(self, revision: str, write: Callable[[Path], None]) -> None:
        """Add a revision; it is either complete or missing.

        Args:
            revision: its name.
            write: writes its files into an empty folder.
        """
        aside = self.folder / f".{revision}.{os.getpid()}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            (aside / "files").mkdir(parents=True)
            write(aside / "files")
            self.name_commit(revision, self._link(aside))
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def name_commit(self, revision: str, commit: str) -> None:
        """Let a revision name a commit."""
        self.ref(revision).parent.mkdir(parents=True, exist_ok=True)
        write_text(self.ref(revision), commit)

    def _link(self, aside: Path) -> str:
        """Move files to the blobs and link to them from a snapshot; returns its commit, which follows from the files."""
        blobs, links = self.folder / "blobs", aside / "links"
        for folder in (blobs, links, self.folder / "snapshots"):
            folder.mkdir(exist_ok=True)
        sums = {file.name: _sha256(file) for file in sorted((aside / "files").iterdir())}
        for name, digest in sums.items():
            (aside / "files" / name).replace(blobs / digest)
            (links / name).symlink_to(Path("..", "..", "blobs", digest))
        commit = hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()[:COMMIT_DIGITS]
        snapshot = self.folder / "snapshots" / commit
        if not snapshot.exists():
            links.rename(snapshot)
        return commit


def release(
    sources: Sequence[Path], out: Path, namespace: str, license_id: str, tell: Callable[[str], None]
) -> list[Repository]:
    """Write every checkpoint of runs as a revision of the run's repository; existing revisions stay unchanged.

    Args:
        sources: folders of runs, or of single checkpoints.
        out: folder of the cache; it is missing, empty, or holds repositories.
        namespace: first part of the repositories' names.
        license_id: the hub's name of the licence.
        tell: called with a line for every run.

    Raises:
        UserError: before anything is written, if a run has no checkpoint or `out` holds something else.
    """
    from shapelaw.training.checkpoint import MODEL

    _check_cache(out)
    runs = [all_checkpoints(source, "run") for source in sources]
    check_room(out, sum((one.path / MODEL).stat().st_size for some in runs for one in some), "the models")
    made = []
    for checkpoints in runs:
        repository = Repository(out, f"{namespace}/{checkpoints[0].run.name}")
        new = [one for one in checkpoints if repository.snapshot(revision_of(one)) is None]
        for one in new:
            repository.add(revision_of(one), lambda folder, one=one: write_folder(one, folder, license_id))  # type: ignore[misc]
        newest = revision_of(checkpoints[-1])
        repository.name_commit("main", repository.ref(newest).read_text())
        count = counted(len(checkpoints), "revision")
        tell(f"{repository.name}: {count}, {len(new)} of them new, {newest} is main")
        made.append(repository)
    return made


def revision_of(checkpoint: StoredCheckpoint) -> str:
    """Name of a checkpoint's revision."""
    return f"step-{checkpoint.step}"


def push(repository: Repository, private: bool, tell: Callable[[str], None]) -> None:
    """Upload all revisions of a repository to the hub, by the login of huggingface_hub.

    Raises:
        UserError: if huggingface_hub is not installed, or the hub refuses.
    """
    if not installed("huggingface_hub"):
        raise UserError(
            "push=true: huggingface_hub is not installed; run: pip install 'shapelaw[hub]', or give push=false"
        )
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository.name, private=private, exist_ok=True)
        for ref in sorted(
            (repository.folder / "refs").iterdir(), key=lambda ref: (ref.name == "main", len(ref.name), ref.name)
        ):
            _upload(hub, repository, ref.name)
            tell(f"{repository.name}: {ref.name} is on the hub")
    except Exception as error:  # its own, those of httpx, of the store behind it, and of the disk
        said = [_first_line(each) for each in (error, error.__cause__) if each]
        raise UserError(
            f"push=true: {repository.name} could not be uploaded ({': '.join(said)}); log in with `hf auth login` and "
            "run the same command again: revisions that are on the hub stay unchanged"
        ) from error


def _first_line(error: BaseException) -> str:
    return next((line.rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _upload(hub: Any, repository: Repository, revision: str) -> None:
    snapshot = repository.snapshot(revision)
    assert snapshot is not None
    if revision != "main":
        hub.create_branch(repository.name, branch=revision, exist_ok=True)
    hub.upload_folder(repo_id=repository.name, folder_path=snapshot, revision=revision, commit_message=revision)


def _check_cache(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file; give a folder")
    others = [path.name for path in out.glob("*") if not path.name.startswith("models--")] if out.exists() else []
    if others:
        raise UserError(
            f"out={out} holds {others[0]}, which is not a repository of revisions; give an empty or new folder"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
