"""A checkpoint as a folder that transformers loads.

OUT/config.json               GemmaConfig's values
    model.safetensors         weights in float32, by GemmaForCausalLM's names
    tokenizer.json            of the corpus; for bytes an equivalent of the tokenizers library
    tokenizer_config.json     separator, which also pads batches, and context
    generation_config.json    the same, for texts that the model continues
    README.md                 the model card

Writing it does not need transformers.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shapelaw.data.tokenizers import SEPARATOR, TOKENIZER_FILE, JsonTokenizer, Tokenizer
from shapelaw.errors import UserError
from shapelaw.export.card import card
from shapelaw.files import check_room, write_json, write_text
from shapelaw.training.stored import StoredCheckpoint, newest_checkpoint

if TYPE_CHECKING:
    import torch

    from shapelaw.model.transformer import ModelSpec

UNKNOWN = "unknown"
"""The hub's word for a licence that nobody states."""


def export(source: Path, out: Path, license_id: str = UNKNOWN) -> Path:
    """Write a checkpoint for transformers' AutoModelForCausalLM and AutoTokenizer; the folder is either complete or missing.

    Args:
        source: folder of a run (its newest checkpoint is used) or of a checkpoint, checkpoints/step-NNNNNNNN.
        out: folder to write; it must not exist.
        license_id: the hub's name of the licence, for the model card.

    Returns:
        The exported checkpoint.

    Raises:
        UserError: if there is no checkpoint, it is damaged, its corpus was removed or `out` exists.
    """
    if out.exists():
        raise UserError(f"out={out} exists; give a new folder, or remove this one")
    from shapelaw.training.checkpoint import MODEL

    checkpoint = newest_checkpoint(source, "run")
    model = checkpoint.path / MODEL
    check_room(out, model.stat().st_size if model.exists() else 0, "the model")
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        write_folder(checkpoint, aside, license_id)
        aside.rename(out)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error}); give another folder or free some space") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.path


def write_folder(checkpoint: StoredCheckpoint, folder: Path, license_id: str) -> None:
    """Write a checkpoint's files into an empty folder.

    Raises:
        UserError: if it is damaged, or its corpus was removed.
        OSError: if they cannot be written.
    """
    weights = checkpoint.weights()
    spec = checkpoint.spec(weights["embedding.weight"].shape[0])
    tokenizer, separator = exported_tokenizer(checkpoint.tokenizer())
    end = tokenizer.token_to_id(separator) if separator else None
    _write_model(folder, spec, weights, end)
    _write_tokenizer(folder, tokenizer.to_str(), separator, spec.seq_len)
    write_json(folder / "generation_config.json", {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end})
    write_text(folder / "README.md", card(checkpoint, license_id))


def byte_tokenizer() -> Any:
    """`BytesTokenizer` as one of the tokenizers library: ids 1 to 255 are bytes, 0 is the separator.

    The library writes bytes as printable characters by GPT-2's table: printable ones stand for themselves, the others
    follow from U+0100 on. A byte 0 in a text, which means the separator in the corpus, is dropped.
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


def exported_tokenizer(tokenizer: Tokenizer) -> tuple[Any, str | None]:
    """A corpus's tokenizer as one of the tokenizers library, and its separator."""
    if not isinstance(tokenizer, JsonTokenizer):
        return byte_tokenizer(), SEPARATOR
    from tokenizers import Tokenizer as Library

    return Library.from_str(tokenizer.definition), tokenizer.separator_token


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
        **(dict.fromkeys(("bos_token", "eos_token", "pad_token"), separator) if separator else {}),
    }
    write_json(folder / "tokenizer_config.json", settings)
