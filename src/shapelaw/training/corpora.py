"""The corpora that runs read: each is opened once in a command, and read through at most once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shapelaw.config import TrainConfig
from shapelaw.data import Corpus, ValidationSample, load_corpus, validation
from shapelaw.data.manifest import MANIFEST_FILE
from shapelaw.data.part import part_of
from shapelaw.planned_run import corpus_folder, further_folders
from shapelaw.tracking.protocol import VAL_LOSS, further_loss


@dataclass(frozen=True)
class Corpora:
    """What one run reads.

    Args:
        own: what it trains on, and whose held-out part gives its loss.
        further: corpora whose held-out parts are measured too, by the names of their losses.
    """

    own: Corpus
    further: Mapping[str, Corpus]

    @property
    def hash(self) -> str:
        """Hash of what the run trains on."""
        return self.own.manifest.corpus_hash

    @property
    def further_hashes(self) -> dict[str, str]:
        """Hashes of the further corpora, by the names of their losses."""
        return {name: corpus.hash for name, corpus in self.further.items()}

    def samples(self, seq_len: int, tokens: int) -> dict[str, ValidationSample]:
        """Held-out samples of so many tokens each, by the metrics that are their losses."""
        corpora = {VAL_LOSS: self.own} | {further_loss(name): corpus for name, corpus in self.further.items()}
        return {metric: validation(corpus, seq_len, tokens) for metric, corpus in corpora.items()}


class Library:
    """Opens corpora, and remembers them as long as their manifests stay as they are. A pickled one is empty."""

    def __init__(self) -> None:
        self._opened: dict[Path, tuple[int, Corpus]] = {}
        self._checked: set[tuple[Path, int]] = set()

    def __reduce__(self) -> tuple[type[Library], tuple[()]]:
        return Library, ()

    def of(self, config: TrainConfig, check: bool = False) -> Corpora:
        """What a run reads.

        Args:
            config: of the run.
            check: whether the shards are read through and compared with their hashes, as data.verify says.

        Raises:
            NotPrepared: if there is no whole corpus.
            UserError: if a shard is missing, cut short or changed, or there are fewer tokens than data.unique_tokens.
        """
        hashes = config.data.verify.hashes if check else False
        parts = further_folders(config)
        further = {name: self.open(folder, hashes).of_source(source) for name, (folder, source) in parts.items()}
        own = part_of(self.open(corpus_folder(config), hashes), config.data.unique_tokens, config.seq_len)
        return Corpora(own, further)

    def open(self, folder: Path, hashes: bool | None = False) -> Corpus:
        """A corpus; its shards are read through once if `hashes` says so (None: where that takes seconds)."""
        written = _written(folder)
        known = self._opened.get(folder)
        read = hashes is not False and (folder, written) not in self._checked
        if known is None or known[0] != written or read:
            self._opened[folder] = (written, load_corpus(folder, verify_hashes=hashes if read else False))
        if read:
            self._checked.add((folder, written))
        return self._opened[folder][1]


def _written(folder: Path) -> int:
    """When the manifest was written, in nanoseconds; 0 where there is none."""
    path = folder / MANIFEST_FILE
    return path.stat().st_mtime_ns if path.exists() else 0
