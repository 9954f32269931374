"""Options of prepare.py: a corpus and its tokenizer."""

from __future__ import annotations

import os

from shapelaw.config.option import option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.config.values import Source, TokenizerKind, Verify


@record("data")
class DataConfig:
    """A corpus: its source (prepare.py) and its use (train.py)."""

    name: str = option("Name of the corpus; its folder is data_dir/NAME-TOKENIZER.")
    source: Source = option(
        "What is read: text of this Python's own library or of packages, files, or a data set of the Hugging Face hub."
    )
    path: str | None = option(
        "text, jsonl, parquet: a file, a folder or a glob; packages: the folder they are installed in, if not "
        "this Python's.",
        default=None,
    )
    text_key: str = option("jsonl, parquet, huggingface: field that holds the text.", default="text")
    document_chars: int = option(
        "text: a file is one document; a longer one is cut at line ends into pieces of about so many characters.",
        default=1048576,
        low=1,
        unit="characters",
    )
    dataset: str | None = option("huggingface: name of the dataset.", default=None)
    subset: str | None = option("huggingface: name of its configuration.", default=None)
    split: str = option("huggingface: split to read.", default="train")
    revision: str | None = option(
        "huggingface: commit or tag; give one, as a data set may change under its name.", default=None
    )
    val_fraction: float = option(
        "Share of documents held out for validation, chosen by hash.", above=0, below=1, advice="0.02 is usual"
    )
    shard_tokens: float = option("Tokens of one shard file.", low=1, whole=True, unit="tokens")
    max_epochs: float = option("How often a run may repeat the corpus before it is refused.", above=0)
    verify: Verify = option(
        "train.py: whether every shard is read and its hash compared before a sweep and before each run; auto "
        "does so for corpora of up to 2 GB. File sizes are compared always.",
        default=Verify.auto,
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


def corpus_options(data: DataConfig, tokenizer: TokenizerConfig) -> dict[str, str | None]:
    """The options that name a corpus's text and its kind of tokenizer; paths are absolute."""
    named = {f"data.{name}": getattr(data, name) for name in NAMED_BY[data.source]}
    if path := named.get("data.path"):
        named["data.path"] = os.path.abspath(os.path.expanduser(path))
    return {"data.source": data.source.value, **named, "tokenizer.kind": tokenizer.kind.value}


@record()
class PrepareConfig(PlacesConfig):
    """Text to token shards."""

    data: DataConfig
    tokenizer: TokenizerConfig
    workers: int = option("Processes; 0 is one per core.", default=0, low=0)
    progress: bool = option("Whether a progress bar is drawn.", default=True)
