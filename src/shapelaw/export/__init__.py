"""Checkpoints as folders that transformers loads: one, or all of a run as revisions of a repository."""
