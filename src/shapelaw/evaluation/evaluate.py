"""The requested models, found and checked before the first one is loaded, and the evaluation of one model."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from shapelaw.data import Corpus
from shapelaw.errors import UserError
from shapelaw.evaluation import hub
from shapelaw.evaluation.held_out import HeldOut, held_out
from shapelaw.evaluation.measuring import Evaluation, Sample, Show, measure
from shapelaw.evaluation.models import Evaluated, Facts, Place, batch_for, load_own, own_facts
from shapelaw.evaluation.records import file_of, keep, partial_of, read
from shapelaw.evaluation.vocabulary import Vocabulary, vocabulary_of
from shapelaw.training.stored import StoredCheckpoint, all_checkpoints, folders_of, is_run


@dataclass(frozen=True)
class Subject:
    """A model that was found and checked, but not loaded yet.

    Args:
        facts: facts about it.
        vocabulary: its tokenizer.
        context: predicted tokens of a window.
        load: loads it.
        checkpoint: the stored checkpoint, for our own runs.
    """

    facts: Facts
    vocabulary: Vocabulary = field(repr=False)
    context: int
    load: Callable[[Place], Evaluated] = field(repr=False)
    checkpoint: StoredCheckpoint | None = None


@dataclass(frozen=True)
class Wanted:
    """How to evaluate models.

    Args:
        tokens: predicted tokens of the sample; None for the whole held-out part.
        context: predicted tokens of a window; None for the model's own.
        all_checkpoints: whether to evaluate every checkpoint of a run, or only the newest.
        batch_sequences: windows of a forward pass; None for a number that suits the model.
        trained_tokens: training tokens of a model of transformers, for its row.
        revision, download: options of a model of the hub.
    """

    tokens: int | None = None
    context: int | None = None
    all_checkpoints: bool = False
    batch_sequences: int | None = None
    trained_tokens: float | None = None
    revision: str | None = None
    download: bool = False


def subjects_of(models: Sequence[str], wanted: Wanted) -> list[Subject]:
    """The requested models, in their order.

    Args:
        models: folders of runs, of checkpoints or of transformers' models, patterns for such folders, or names of the hub.
        wanted: how to evaluate them.

    Raises:
        UserError: for the first model that is missing, or cannot be evaluated.
    """
    return [subject for name in models for source in _sources(name) for subject in _subjects(source, wanted)]


def _sources(name: str) -> list[str]:
    """The folders of a pattern; a name of the hub is not a path, and stays unchanged."""
    return [str(path) for path in folders_of(name, "model")] if glob.has_magic(name) else [name]


def _subjects(source: str, wanted: Wanted) -> list[Subject]:
    if is_run(Path(source)) or (Path(source) / "checkpoints").is_dir():
        checkpoints = all_checkpoints(Path(source), "model")
        return [_own(one, wanted) for one in checkpoints[0 if wanted.all_checkpoints else -1 :]]
    found = hub.find(source, wanted.revision, wanted.download)
    vocabulary, opening = hub.vocabulary_of(found)
    context = hub.context_of(found, wanted.context, len(opening))
    facts = hub.facts_of(found, wanted.trained_tokens)
    return [Subject(facts, vocabulary, context, partial(hub.load, found, facts, opening))]


def _own(checkpoint: StoredCheckpoint, wanted: Wanted) -> Subject:
    context = wanted.context or checkpoint.config.seq_len
    if context > checkpoint.config.seq_len:
        raise UserError(
            f"context={context}: {checkpoint.run.name} was trained with seq_len={checkpoint.config.seq_len}, which is "
            "its longest context; give that or less, or leave context out"
        )
    facts = own_facts(checkpoint)
    vocabulary = vocabulary_of(checkpoint.tokenizer())
    return Subject(facts, vocabulary, context, partial(load_own, checkpoint, facts), checkpoint)


class Evaluations:
    """Evaluations on one corpus.

    Args:
        corpus: corpus whose held-out part is used.
        folder: folder for them; they get a subfolder with the corpus's name.
        wanted: how to evaluate models.
        place: device and precision.
    """

    def __init__(self, corpus: Corpus, folder: Path, wanted: Wanted, place: Place) -> None:
        self.corpus, self.folder, self.wanted, self.place = corpus, folder, wanted, place
        self._text: tuple[str, HeldOut] | None = None

    def of(self, subject: Subject, show: Show) -> Evaluation:
        """The evaluation of a model: read if it exists, otherwise measured now, and written.

        Raises:
            UserError: if the model's tokenizer does not preserve the text, or the text is too short.
        """
        sample = self.sample(subject)
        file = file_of(self.folder, subject.facts, sample)
        found = read(file)
        if found is None:
            text = self.text(subject)
            text.windows(sample.context, sample.asked_tokens)  # refused before the weights are read
            found = measure(subject.load(self.place), text, sample, partial_of(file), show)
        keep(replace(found, model=subject.facts), file)
        return found

    def sample(self, subject: Subject) -> Sample:
        """The sample for a model."""
        batch = self.wanted.batch_sequences or batch_for(subject.context, subject.facts.vocab_size)
        hashed, precision = self.corpus.hash, self.place.precision.value
        return Sample(self.corpus.name, hashed, subject.context, self.wanted.tokens, batch, precision)

    def text(self, subject: Subject) -> HeldOut:
        """The held-out text as a model's tokens; models of one tokenizer share it.

        Raises:
            UserError: if a tokenizer does not preserve it.
        """
        identity = subject.vocabulary.identity
        if self._text is None or self._text[0] != identity:
            self._text = (identity, held_out(self.corpus, subject.vocabulary, "model", subject.facts.source))
        return self._text[1]
