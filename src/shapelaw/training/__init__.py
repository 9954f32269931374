"""Training of one run: the step, what happens between steps, checkpoints, rollbacks, cost and memory."""
