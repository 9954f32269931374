"""The contestants of train_step.py: each runs in a process of its own (`worker`), litgpt in an environment of its own."""
