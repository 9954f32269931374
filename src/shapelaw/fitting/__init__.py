"""Fits of laws: objectives, solvers, starts, hold-outs, bootstrap and profile intervals, and the results that are saved."""
