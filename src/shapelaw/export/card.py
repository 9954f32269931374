"""The model card of an exported checkpoint: README.md, with the head that the Hugging Face hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from shapelaw.files import read_sealed_text
from shapelaw.fingerprint import FILE as FINGERPRINT_FILE
from shapelaw.tracking.journal import JOURNAL, records
from shapelaw.tracking.protocol import FURTHER_LOSS, VAL_LOSS
from shapelaw.training.stored import StoredCheckpoint

NAMED_DATA = ("name", "source", "dataset", "subset", "split", "revision", "val_fraction")
"""Options of the corpus that are meaningful to people elsewhere, unlike local paths."""


def card(checkpoint: StoredCheckpoint, license_id: str) -> str:
    """The model card of a checkpoint: its description, data, training, losses, and how to load it.

    Args:
        checkpoint: the exported checkpoint.
        license_id: the hub's name of the licence, such as apache-2.0.
    """
    shape, config = checkpoint.shape, checkpoint.config
    head = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": license_id,
        "tags": ["shapelaw"],
    }
    return (
        f"---\n{_yaml(head)}---\n\n# {checkpoint.run.name}, step {checkpoint.step:,}\n\n"
        f"A decoder of width {shape.width} and depth {shape.depth} (Gemma's equations) after {checkpoint.tokens:,} training "
        f"tokens, context {config.seq_len}. Trained and exported by shapelaw; weights are float32.\n\n"
        f"## Losses\n\n{_losses(checkpoint)}\n## Data\n\n```yaml\n{_yaml(_data(config))}```\n\n"
        f"## Configuration\n\nAll that decided the result:\n\n```yaml\n{_configuration(checkpoint.run)}```\n"
    )


def losses_of(run: Path) -> dict[int, dict[str, float]]:
    """Tokens -> held-out losses that a run recorded there, by metric, without those that a rollback undid."""
    found: dict[int, dict[str, float]] = {}
    for record, _ in records(run / JOURNAL):
        if record["kind"] == "rewind":
            found = {tokens: losses for tokens, losses in found.items() if tokens <= record["tokens"]}
        elif record["kind"] == "metrics":
            values = {key: float(value) for key, value in record["values"].items() if _is_loss(key)}
            if values:
                found.setdefault(record["tokens"], {}).update(values)
    return found


def _is_loss(metric: str) -> bool:
    return metric == VAL_LOSS or FURTHER_LOSS.fullmatch(metric) is not None


def _losses(checkpoint: StoredCheckpoint) -> str:
    """A table of the losses up to the checkpoint; the last one is its own."""
    rows = {tokens: losses for tokens, losses in losses_of(checkpoint.run).items() if tokens <= checkpoint.tokens}
    if not rows:
        return "None was recorded.\n"
    metrics = sorted({metric for losses in rows.values() for metric in losses})
    lines = [["tokens", *metrics], ["---"] * (len(metrics) + 1)]
    lines += [
        [f"{tokens:,}", *(f"{losses[metric]:.4f}" if metric in losses else "" for metric in metrics)]
        for tokens, losses in sorted(rows.items())
    ]
    return "Held out, nats per token:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _data(config: Any) -> dict[str, Any]:
    """The corpus and its tokenizer, as far as they have names."""
    there = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(there, dict)
    data = {key: value for key, value in there["data"].items() if key in NAMED_DATA and value not in (None, "???")}
    tokenizer = {key: there["tokenizer"][key] for key in ("kind", "vocab_size")}
    return {"corpus": _plain(data), "tokenizer": _plain(tokenizer)}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Choices by their names."""
    return {str(key): getattr(value, "value", value) for key, value in values.items()}


def _configuration(run: Path) -> str:
    """The run's fingerprint as it lies in its folder."""
    file = run / FINGERPRINT_FILE
    return read_sealed_text(file).rstrip() + "\n" if file.exists() else "not recorded\n"


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
