"""Text to token shards: `python prepare.py`, `python prepare.py data=text data.path=/my/texts tokenizer=bpe`."""

from pathlib import Path

from shapelaw.verbs.main import main
from shapelaw.verbs.prepare import prepare_corpus

if __name__ == "__main__":
    main(Path(__file__).resolve().parent, "prepare", prepare_corpus)
