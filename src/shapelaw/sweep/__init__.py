"""Sweeps: overrides become jobs, and launchers run or queue them. Knows nothing of models."""
