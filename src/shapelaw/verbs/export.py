"""A checkpoint as a folder that transformers loads: shapelaw export run=RUN_FOLDER_OR_CHECKPOINT out=OUT

OUT/config.json               GemmaConfig's values
    model.safetensors         weights in float32, by GemmaForCausalLM's names
    tokenizer.json            of the corpus; for bytes an equivalent of the tokenizers library
    tokenizer_config.json     separator and context

transformers itself is not needed to write it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from shapelaw.config import TokenizerKind, TrainConfig
from shapelaw.config.option import option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import load_corpus
from shapelaw.data.tokenizers import SEPARATOR, TOKENIZER_FILE, JsonTokenizer
from shapelaw.errors import UserError
from shapelaw.files import check_room, write_json, write_text
from shapelaw.planned_run import checkpoint_path, checkpoint_steps, corpus_folder
from shapelaw.plugins import is_reference
from shapelaw.shapes import Shape
from shapelaw.terminal import write
from shapelaw.verbs.doors import Door

if TYPE_CHECKING:
    import torch

    from shapelaw.model.transformer import ModelSpec


@record()
class ExportConfig(PlacesConfig):
    """A checkpoint for transformers."""

    run: str = option(
        "Folder of a run, whose newest checkpoint is taken, or of a checkpoint (checkpoints/step-NNNNNNNN)."
    )
    out: str = option("Folder to write; it must not exist.")


def export(source: Path, out: Path) -> Path:
    """Write a checkpoint for transformers' AutoModelForCausalLM and AutoTokenizer; it is whole or not there.

    Args:
        source: folder of a run (its newest checkpoint is taken) or of a checkpoint, checkpoints/step-NNNNNNNN.
        out: folder to write; it must not exist.

    Returns:
        The checkpoint that was taken.

    Raises:
        UserError: if there is no checkpoint, it is damaged, its corpus was removed or `out` exists.
    """
    if out.exists():
        raise UserError(f"out={out} exists; name a folder that does not, or remove it")
    from shapelaw.training.checkpoint import MODEL, load_weights

    checkpoint = _checkpoint(source)
    check_room(out, (checkpoint / MODEL).stat().st_size if (checkpoint / MODEL).exists() else 0, "the model")
    config = _config(checkpoint.parent.parent)
    if is_reference(config.model.name):
        raise UserError(
            f"run={source}: was trained with model={config.model.name}, and transformers loads the built-in model alone; read "
            f"{checkpoint / MODEL} with safetensors"
        )
    weights = load_weights(checkpoint)
    spec = _spec(config, weights["embedding.weight"].shape[0])
    tokenizer, separator = _tokenizer(config)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        _write_model(aside, spec, weights, tokenizer.token_to_id(separator) if separator else None)
        _write_tokenizer(aside, tokenizer.to_str(), separator, spec.seq_len)
        aside.rename(out)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error}); name another folder or free some space") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return checkpoint


def byte_tokenizer() -> Any:
    """`BytesTokenizer` as one of the tokenizers library: ids 1 to 255 are bytes, 0 is the separator.

    The library writes bytes as printable characters, GPT-2's table: those that print stand for themselves, the others
    follow from U+0100 on. A byte 0 in a text, which stands for the separator in the corpus, is left out.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    vocabulary = {chr(byte if byte in printable else 256 + others.index(byte)): byte for byte in range(1, 256)}
    tokenizer = Tokenizer(models.BPE(vocab={SEPARATOR: 0, **vocabulary}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([SEPARATOR])
    return tokenizer


def _checkpoint(source: Path) -> Path:
    """The checkpoint itself, or the newest of a run."""
    if source.name.startswith("step-") and (source / "state.json").exists():
        return source.resolve()
    steps = checkpoint_steps(source)
    if not steps:
        raise UserError(
            f"run={source}: no checkpoint there; give a run's folder (outputs/runs/SUITE/RUN) or a checkpoint's"
        )
    return checkpoint_path(source.resolve(), steps[-1])


def _config(run: Path) -> TrainConfig:
    path = run / "config.yaml"
    if not path.exists():
        raise UserError(f"{path} is missing: it says what was trained; give the folder as the run left it")
    recorded = OmegaConf.load(path)
    # a suite's own studies are no part of a checkpoint, and older runs hold them as text
    recorded.suite = {"name": recorded.suite.name, "head_size": recorded.suite.head_size}
    merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), recorded)
    # no dataclass: options that are younger than the run are missing, and none of them is asked for here
    return cast(TrainConfig, merged)


def _spec(config: TrainConfig, vocab_size: int) -> ModelSpec:
    from shapelaw.model.transformer import ModelSpec

    shape = Shape(config.shape.width, config.shape.depth, config.suite.head_size)
    return ModelSpec(shape, vocab_size, config.seq_len)


def _tokenizer(config: TrainConfig) -> tuple[Any, str | None]:
    """The corpus's tokenizer, of the tokenizers library, and its separator."""
    if config.tokenizer.kind is TokenizerKind.bytes:
        return byte_tokenizer(), SEPARATOR
    from tokenizers import Tokenizer

    tokenizer = load_corpus(corpus_folder(config)).tokenizer()
    assert isinstance(tokenizer, JsonTokenizer)
    return Tokenizer.from_str(tokenizer.definition), tokenizer.separator_token


def _write_model(folder: Path, spec: ModelSpec, weights: dict[str, torch.Tensor], separator: int | None) -> None:
    from shapelaw.model.gemma import gemma_config, to_gemma_state_dict
    from shapelaw.training.checkpoint import write_tensors

    config = {
        "architectures": ["GemmaForCausalLM"],
        "model_type": "gemma",
        "dtype": "float32",
        **gemma_config(spec),
        "bos_token_id": separator,
        "eos_token_id": separator,
    }
    write_json(folder / "config.json", config)
    renamed = {name: weight.contiguous() for name, weight in to_gemma_state_dict(weights, spec.shape).items()}
    write_tensors(folder / "model.safetensors", renamed, {"format": "pt"})


def _write_tokenizer(folder: Path, definition: str, separator: str | None, seq_len: int) -> None:
    write_text(folder / TOKENIZER_FILE, json.dumps(json.loads(definition), indent=1, ensure_ascii=False) + "\n")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seq_len,
        "clean_up_tokenization_spaces": False,
        **({"bos_token": separator, "eos_token": separator} if separator else {}),
    }
    write_json(folder / "tokenizer_config.json", settings)


def export_run(config: DictConfig) -> None:
    """Write the checkpoint that the configuration names and say so."""
    asked: ExportConfig = to_dataclass(config)
    checkpoint = export(Path(asked.run), Path(asked.out))
    write(f"{checkpoint} written to {asked.out}\n")


DOOR = Door(ExportConfig, export_run)
