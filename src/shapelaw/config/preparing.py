"""Options of prepare.py: a corpus and its tokenizer."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from shapelaw.config.option import option, record, said
from shapelaw.config.places import PlacesConfig
from shapelaw.config.values import Source, TokenizerKind, Verify, file_name, positive
from shapelaw.errors import UserError

SOURCE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
WEIGHED = (Source.text, Source.jsonl, Source.parquet)
"""Sources that may be several, by weights."""


@record("data")
class DataConfig:
    """A corpus: its source (prepare.py) and its use (train.py)."""

    name: str = option("Name of the corpus; its folder is data_dir/NAME-TOKENIZER.")
    source: Source = option(
        "What is read: text of this Python's own library or of packages, files, or a data set of the Hugging Face hub."
    )
    path: Any = option(
        "text, jsonl, parquet: a file, a folder or a glob, or a list of these; packages: the folder they are installed in, if "
        "not this Python's.",
        default=None,
    )
    weights: dict[str, float] = option(
        "text, jsonl, parquet: name of a source -> its share of the text. Sources are named by the last parts of the listed "
        "paths, or by what lies in the one given folder (NAME, or files NAME-*).",
        default_factory=dict,
    )
    text_key: str = option("jsonl, parquet, huggingface: field that holds the text.", default="text")
    document_chars: int = option(
        "text: a file is one document; a longer one is cut at line ends into pieces of about this length.",
        default=1048576,
        low=1,
        unit="characters",
    )
    dataset: str | None = option("huggingface: name of the dataset.", default=None)
    subset: str | None = option("huggingface: name of its configuration.", default=None)
    split: str = option("huggingface: split to read.", default="train")
    revision: str | None = option(
        "huggingface: commit or tag; give one, because a data set may change under its name.", default=None
    )
    val_fraction: float = option(
        "Share of documents held out for validation, chosen by hash.", above=0, below=1, advice="0.02 is usual"
    )
    shard_tokens: float = option("Tokens of one shard file.", low=1, whole=True, unit="tokens")
    max_epochs: float = option("Most passes over the corpus that a run may make; a longer run is refused.", above=0)
    unique_tokens: float | None = option(
        "train.py: different training tokens that a run draws from, a random part of the corpus that is the same for all runs; "
        "a longer run repeats them. null takes the whole corpus.",
        default=None,
        low=1,
        whole=True,
        unit="tokens",
    )
    verify: Verify = option(
        "train.py: whether every shard is read and its hash compared before a sweep and before each run; auto "
        "does so for corpora of up to 2 GB. File sizes are always compared.",
        default=Verify.auto,
    )

    def check(self) -> None:
        """Paths are text, and weights are of sources that have paths."""
        if not all(isinstance(path, str) and path for path in paths_of(self)) or self.path == []:
            raise UserError(f"data.path={said(self.path)}: allowed values are a path, or a list of paths; give one")
        if self.source is Source.packages and isinstance(self.path, list | tuple):
            raise UserError(f"data.path={said(self.path)}: data.source=packages reads one folder; give one")
        if self.weights:
            check_weights(self)


def paths_of(data: DataConfig) -> list[str]:
    """The paths that are given, as a list."""
    if data.path is None:
        return []
    return list(data.path) if isinstance(data.path, list | tuple) else [data.path]


def check_weights(data: DataConfig) -> None:
    """Refuse weights that are none, or of what has no paths.

    Raises:
        UserError: naming the weight.
    """
    if data.source not in WEIGHED:
        allowed = ", ".join(source.value for source in WEIGHED)
        raise UserError(
            f"data.weights: data.source={data.source.value} has one source; weights are for data.source={allowed}; "
            "leave them out"
        )
    for name, weight in data.weights.items():
        if not SOURCE_NAME.fullmatch(name):
            raise UserError(
                f"data.weights: {name!r} cannot name a source; allowed characters are letters, digits, _ and -; give another"
            )
        positive(f"data.weights.{name}", weight)
    if len(data.weights) < 2:
        raise UserError(
            f"data.weights={{{name}: {weight:g}}}: one source needs no weight; name two or more, or leave it out"
        )


@record("tokenizer")
class TokenizerConfig:
    """A tokenizer."""

    name: str = option("Name of the tokenizer, a part of the name of the corpus's folder.")
    kind: TokenizerKind = option("bytes, bpe (trained on the corpus) or file (a given tokenizer.json).")
    vocab_size: int = option(
        "Rows of the embedding; for a tokenizer file it may be padded above the file's vocabulary.", low=2
    )
    path: str | None = option("file: a tokenizer.json.", default=None)
    separator: str | None = option("file: token that follows every document; null for none.", default="<|endoftext|>")


NAMED_BY = {
    Source.text: ("path",),
    Source.jsonl: ("path", "text_key"),
    Source.parquet: ("path", "text_key"),
    Source.huggingface: ("dataset", "subset", "split", "revision", "text_key"),
    Source.stdlib: (),
    Source.packages: ("path",),
}
"""Source -> the options that say which text it is."""


def corpus_options(data: DataConfig, tokenizer: TokenizerConfig) -> dict[str, Any]:
    """The options that name a corpus's text and its kind of tokenizer; paths are absolute."""
    named = {f"data.{name}": getattr(data, name) for name in NAMED_BY[data.source]}
    if named.get("data.path"):
        absolute = [os.path.abspath(os.path.expanduser(path)) for path in paths_of(data)]
        named["data.path"] = absolute if isinstance(data.path, list | tuple) else absolute[0]
    if data.weights:
        named["data.weights"] = dict(data.weights)
    return {"data.source": data.source.value, **named, "tokenizer.kind": tokenizer.kind.value}


@record()
class PrepareConfig(PlacesConfig):
    """Text to token shards."""

    data: DataConfig
    tokenizer: TokenizerConfig
    workers: int = option("Processes; 0 is one per core.", default=0, low=0)
    progress: bool = option("Whether a progress bar is drawn.", default=True)


def corpus_dir(data_dir: str, data: DataConfig, tokenizer: TokenizerConfig) -> Path:
    """Folder of the prepared corpus: data_dir/CORPUS-TOKENIZER.

    Raises:
        UserError: for a name that would lead out of data_dir.
    """
    return Path(data_dir) / f"{file_name('data.name', data.name)}-{file_name('tokenizer.name', tokenizer.name)}"


def part_of_corpus(data_dir: str, key: str, value: str) -> tuple[Path, str | None]:
    """Folder of a prepared corpus that is named by CORPUS, or the source of a mixture by CORPUS@SOURCE; and the source.

    Raises:
        UserError: for a name that would lead out of data_dir.
    """
    corpus, marked, source = value.partition("@")
    return Path(data_dir) / file_name(key, corpus), file_name(key, source) if marked else None
