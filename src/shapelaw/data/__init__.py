"""Corpora: from text to one deterministic order of training sequences.

    source --prepare--> shards + manifest --load_corpus--> memory maps --SequenceOrder, Loader--> batches

`torch_batches` (the only module that imports torch) is not imported here.
"""

from shapelaw.data.corpus import Corpus, TokenStream, check_repeats, epochs_needed, load_corpus
from shapelaw.data.installed import PackagesSource, StdlibSource
from shapelaw.data.loader import Loader, ValidationSample, validation
from shapelaw.data.manifest import Manifest
from shapelaw.data.order import SequenceOrder
from shapelaw.data.prepare import prepare
from shapelaw.data.progress import PrepareStatus, terminal_progress
from shapelaw.data.sources import HubSource, JsonSource, ParquetSource, Source, TextSource
from shapelaw.data.tokenizers import BpeChoice, BytesChoice, FileChoice, Tokenizer, TokenizerChoice

__all__ = [
    "BpeChoice",
    "BytesChoice",
    "Corpus",
    "FileChoice",
    "HubSource",
    "JsonSource",
    "Loader",
    "Manifest",
    "PackagesSource",
    "ParquetSource",
    "PrepareStatus",
    "SequenceOrder",
    "Source",
    "StdlibSource",
    "TextSource",
    "TokenStream",
    "Tokenizer",
    "TokenizerChoice",
    "ValidationSample",
    "check_repeats",
    "epochs_needed",
    "load_corpus",
    "prepare",
    "terminal_progress",
    "validation",
]
