"""Fits of laws: objectives, solvers, starts, hold-outs, bootstrap and profile intervals, and saved results."""
