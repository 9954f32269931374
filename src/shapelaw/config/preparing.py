"""Options of prepare.py: a corpus and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from shapelaw.config.places import PlacesConfig
from shapelaw.config.values import Source, TokenizerKind, Verify


@dataclass
class DataConfig:
    """A corpus: its source (prepare.py) and its use (train.py)."""

    name: str = MISSING
    """Name of the corpus; its folder is data_dir/NAME-TOKENIZER."""
    source: Source = MISSING
    """What is read: text of this Python's own library or of packages, files, or a data set of the Hugging Face hub."""
    path: str | None = None
    """text, jsonl, parquet: a file, a folder or a glob; packages: the folder they are installed in, if not this Python's."""
    text_key: str = "text"
    """jsonl, parquet, huggingface: field that holds the text."""
    document_chars: int = 1048576
    """text: a file is one document; a longer one is cut at line ends into pieces of about so many characters."""
    dataset: str | None = None
    """huggingface: name of the dataset."""
    subset: str | None = None
    """huggingface: name of its configuration."""
    split: str = "train"
    """huggingface: split to read."""
    revision: str | None = None
    """huggingface: commit or tag; give one, as a data set may change under its name."""
    val_fraction: float = MISSING
    """Share of documents held out for validation, chosen by hash."""
    shard_tokens: float = MISSING
    """Tokens of one shard file."""
    max_epochs: float = MISSING
    """How often a run may repeat the corpus before it is refused."""
    verify: Verify = Verify.auto
    """train.py: whether every shard is read and its hash compared before a sweep and before each run; auto does so for
    corpora of up to 2 GB. File sizes are compared always."""


@dataclass
class TokenizerConfig:
    """A tokenizer."""

    name: str = MISSING
    """Part of the corpus's folder."""
    kind: TokenizerKind = MISSING
    """bytes, bpe (trained on the corpus) or file (a given tokenizer.json)."""
    vocab_size: int = MISSING
    """Rows of the embedding; for a tokenizer file it may be padded above the file's vocabulary."""
    path: str | None = None
    """file: a tokenizer.json."""
    separator: str | None = "<|endoftext|>"
    """file: token that follows every document; null for none."""


@dataclass
class PrepareConfig(PlacesConfig):
    """Text to token shards."""

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    workers: int = 0
    """Processes; 0 is one per core."""
    progress: bool = True
    """Whether a progress bar is drawn."""
