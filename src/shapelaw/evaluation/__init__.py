"""Held-out loss of existing models, per token and per byte: a run's checkpoints, and any model of transformers."""
