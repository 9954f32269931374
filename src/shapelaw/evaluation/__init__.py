"""Held-out loss of models that exist: a run's checkpoints, and any model of transformers, per token and per byte."""
