"""A checkpoint as a run's folder holds it: what was trained, its weights and its tokenizer."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from shapelaw.config import TokenizerKind, TrainConfig
from shapelaw.config.parts import OURS
from shapelaw.data import Tokenizer, load_corpus
from shapelaw.data.tokenizers import BytesTokenizer
from shapelaw.errors import Damaged, UserError
from shapelaw.files import check_sealed_text
from shapelaw.planned_run import checkpoint_path, checkpoint_steps, corpus_folder
from shapelaw.shapes import Shape

if TYPE_CHECKING:
    import torch

    from shapelaw.model.transformer import ModelSpec

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint of a run.

    Args:
        run: the run's folder.
        step: optimizer steps done.
        config: the run's configuration; options that are younger than the run are missing.
    """

    run: Path
    step: int
    config: TrainConfig

    @property
    def path(self) -> Path:
        """Its own folder."""
        return checkpoint_path(self.run, self.step)

    @property
    def tokens(self) -> int:
        """Training tokens seen."""
        return self.step * int(self.config.batch_tokens)

    @property
    def shape(self) -> Shape:
        """The model's shape."""
        return Shape(self.config.shape.width, self.config.shape.depth, self.config.suite.head_size)

    def weights(self) -> dict[str, torch.Tensor]:
        """Its weights by parameter name, checked against their checksums.

        Raises:
            UserError: if they are damaged or of another version.
        """
        from shapelaw.training.checkpoint import load_weights

        return load_weights(self.path)

    def spec(self, vocab_size: int) -> ModelSpec:
        """The model of these weights, by the attention that every device has."""
        from shapelaw.model.transformer import ModelSpec

        return ModelSpec(self.shape, vocab_size, self.config.seq_len)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the corpus that the run was trained on.

        Raises:
            UserError: if the corpus was removed.
        """
        if self.config.tokenizer.kind is TokenizerKind.bytes:
            return BytesTokenizer()
        return load_corpus(corpus_folder(self.config)).tokenizer()


def newest_checkpoint(source: Path, key: str) -> StoredCheckpoint:
    """A checkpoint that its own folder names, or the newest of a run.

    Args:
        source: folder of a run or of a checkpoint, checkpoints/step-NNNNNNNN.
        key: option that named it, for the message.

    Raises:
        UserError: if there is none.
    """
    return all_checkpoints(source, key)[-1]


def all_checkpoints(source: Path, key: str) -> list[StoredCheckpoint]:
    """The checkpoint that its own folder names, or all of a run in their order.

    Args:
        source: folder of a run or of a checkpoint, checkpoints/step-NNNNNNNN.
        key: option that named it, for the message.

    Raises:
        UserError: if there is none.
    """
    if source.name.startswith("step-") and (source / "state.json").exists():
        folder = source.resolve()
        return [_stored(folder.parent.parent, [int(folder.name.removeprefix("step-"))])[0]]
    steps = checkpoint_steps(source)
    if not steps:
        raise UserError(
            f"{key}={source}: no checkpoint there; give a run's folder (outputs/runs/SUITE/RUN) or a checkpoint's"
        )
    return _stored(source.resolve(), steps)


def folders_of(name: str, key: str) -> list[Path]:
    """The folders that a name or a pattern stands for.

    Args:
        name: a folder, or a pattern such as 'outputs/runs/nano/*'.
        key: option that named it, for the message.

    Raises:
        UserError: if a pattern matches none.
    """
    if not glob.has_magic(name):
        return [Path(name)]
    found = sorted(path for path in map(Path, glob.glob(name)) if path.is_dir())
    if not found:
        raise UserError(f"{key}={name}: matches no folder; give a pattern such as 'outputs/runs/SUITE/*'")
    return found


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, or of one of its checkpoints."""
    return (folder / CONFIG_FILE).exists() or (
        folder.name.startswith("step-") and (folder.resolve().parent.parent / CONFIG_FILE).exists()
    )


def _stored(run: Path, steps: list[int]) -> list[StoredCheckpoint]:
    config = _config(run)
    return [StoredCheckpoint(run, step, config) for step in steps]


def _config(run: Path) -> TrainConfig:
    path = run / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{path} is missing: it says what was trained; give the folder as the run left it")
    try:
        merged = _merged(path)
        model = str(merged.model.name)
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError, AttributeError) as error:
        check_sealed_text(path)
        raise Damaged(f"{path} is damaged ({str(error).splitlines()[0]}); put back what was written there") from error
    if model != OURS:  # a run's folder may come from anybody, and only whoever types a command names code
        raise UserError(
            f"{run.name}: was trained with model={model}, which only train.py loads; give a run of the built-in model, or "
            "read the checkpoint with safetensors"
        )
    check_sealed_text(path)
    return merged


def _merged(path: Path) -> TrainConfig:
    """No dataclass: options that are younger than the run are missing, and none of them is asked for here."""
    recorded = OmegaConf.load(path)
    # a suite's own studies are no part of a checkpoint, and older runs hold them as text
    recorded.suite = {"name": recorded.suite.name, "head_size": recorded.suite.head_size}
    return cast(TrainConfig, OmegaConf.merge(OmegaConf.structured(TrainConfig), recorded))
