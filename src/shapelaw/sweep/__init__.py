"""Sweeps: overrides become jobs, and launchers run or queue them. Nothing here knows about models."""
