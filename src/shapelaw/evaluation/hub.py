"""Models of transformers, from a folder or the hub's cache: found, refused if their loss would mean nothing, loaded."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shapelaw.errors import UserError
from shapelaw.evaluation.models import CONTEXT_MAX, Facts, Place, TransformersModel
from shapelaw.evaluation.vocabulary import LibraryVocabulary
from shapelaw.extras import installed

NO_LENGTH = 10**9
"""From this value on, a tokenizer's model_max_length means that there is no limit."""


@dataclass(frozen=True)
class HubModel:
    """A model of transformers that was found.

    Args:
        name: a folder, or the hub's name of it.
        revision: branch, tag or commit; None for the newest one.
        download: whether files missing from the cache may be downloaded.
        config: transformers' configuration.
    """

    name: str
    revision: str | None
    download: bool
    config: Any = field(repr=False)

    @property
    def text(self) -> Any:
        """The configuration of its language model."""
        return self.config.get_text_config()

    @property
    def context_max(self) -> int | None:
        """Tokens of its longest context, if given."""
        length = getattr(self.text, "max_position_embeddings", None)
        return int(length) if length else None

    @property
    def identity(self) -> str:
        """Identity that changes with its files: the hub's commit, or names, sizes and times of a folder's files."""
        folder = Path(self.name)
        files = sorted(
            (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.glob("*") if path.is_file()
        )
        commit = getattr(self.config, "_commit_hash", None)
        said = json.dumps([files, commit, self.config.to_dict()], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    @property
    def where(self) -> dict[str, Any]:
        """Arguments for transformers to find it; other people's code is never run."""
        return {"revision": self.revision or "main", "local_files_only": not self.download, "trust_remote_code": False}


def find(name: str, revision: str | None, download: bool) -> HubModel:
    """A model by its folder, or by its name in the hub's cache.

    Raises:
        UserError: if it is missing, or has no causal head.
    """
    if not installed("transformers"):
        raise UserError(f"model={name}: transformers is not installed; run: pip install 'shapelaw[hub]'")
    from transformers import AutoConfig

    where = HubModel(name, revision, download, None).where
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(name, **where)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"model={name}: is neither a run nor a model of transformers, and the hub's cache has no model with that "
            f"name ({_first_line(error)}); give a folder, or a name with download=true"
        ) from error
    _check_causal(name, config)
    return HubModel(name, revision, download, config)


def _check_causal(name: str, config: Any) -> None:
    """Refuse a model whose head does not predict the next token."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    known = {one for made in CAUSAL.values() for one in ([made] if isinstance(made, str) else made)}
    said = config.architectures or []
    if config.model_type not in CAUSAL or (said and not known & set(said)):
        what = ", ".join(said) or config.model_type
        raise UserError(
            f"model={name}: {what} has no causal head, so it gives no probability of a next token; give a model that "
            "was saved from AutoModelForCausalLM"
        )


def context_of(found: HubModel, asked: int | None, opening: int) -> int:
    """Predicted tokens of a window: the requested number, or the model's own context up to CONTEXT_MAX.

    Raises:
        UserError: if the model supports fewer.
    """
    most = found.context_max
    if asked is not None and most is not None and asked + opening > most:
        raise UserError(
            f"context={asked}: {found.name} takes up to {most - opening}; give that or less, or leave context out"
        )
    return asked if asked is not None else min(most or CONTEXT_MAX, CONTEXT_MAX) - opening


def vocabulary_of(found: HubModel) -> tuple[LibraryVocabulary, tuple[int, ...]]:
    """A model's own tokenizer, and the ids that it puts before every text. A document ends with the end-of-text token, or
    else with the token that begins one.

    Raises:
        UserError: if it has no tokenizer that tells which characters a token stands for.
    """
    from transformers import AutoTokenizer

    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(found.name, **found.where)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"model={found.name}: its tokenizer cannot be loaded ({_first_line(error)}); save it beside the model"
        ) from error
    library = getattr(tokenizer, "backend_tokenizer", None)
    if library is None:
        raise UserError(
            f"model={found.name}: its tokenizer has no tokenizer.json, which has the characters of each token; convert "
            "it with transformers' own converters, and save it beside the model"
        )
    library.no_padding()
    library.no_truncation()
    begins = library.encode("", add_special_tokens=True).ids[:1] == [tokenizer.bos_token_id]
    library.encode_special_tokens = True
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
    return LibraryVocabulary(library, end), (tokenizer.bos_token_id,) if begins else ()


def facts_of(found: HubModel, tokens: float | None) -> Facts:
    """Facts about a model, from its configuration; parameters are counted from shapes, without memory for weights."""
    import torch

    with torch.device("meta"), _quiet():
        params = _causal_class().from_config(found.config, trust_remote_code=False).num_parameters()
    return Facts(
        name=found.name.rstrip("/").split("/")[-1] + (f"@{found.revision}" if found.revision else ""),
        source=found.name,
        identity=found.identity,
        params=params,
        width=found.text.hidden_size,
        depth=found.text.num_hidden_layers,
        vocab_size=found.text.vocab_size,
        tokens=tokens,
    )


def load(found: HubModel, facts: Facts, opening: tuple[int, ...], place: Place) -> TransformersModel:
    """The model, ready to be evaluated.

    Raises:
        UserError: if weights are missing.
    """
    try:
        with _quiet():
            model, report = _causal_class().from_pretrained(
                found.name, dtype=place.dtype, output_loading_info=True, **found.where
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"model={found.name}: its weights cannot be loaded ({_first_line(error)}); give a complete copy of the model"
        ) from error
    if missing := sorted(report["missing_keys"]):
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise UserError(
            f"model={found.name}: its weights lack {missing[0]}{more}, which would be random numbers; give a model "
            "that was saved from AutoModelForCausalLM"
        )
    return TransformersModel(model.eval().to(place.device), opening, facts, place)


def _causal_class() -> Any:
    """transformers' own choice of a class; its type hints omit the return type."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' own messages and bars; errors are reported here."""
    from transformers.utils import logging as library

    theirs: Any = library
    before = theirs.get_verbosity()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(before)
