"""Text to token shards: `python prepare.py`, `python prepare.py data=text data.path=/my/texts tokenizer=bpe`."""

from shapelaw.verbs.main import main

if __name__ == "__main__":
    main("prepare")
