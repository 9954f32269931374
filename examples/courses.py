"""Courses of the rate of one's own: factors on the peak rate, as pure functions of tokens. They need no torch.

shapelaw train schedule=examples/courses.py:inverse_sqrt
shapelaw train cooldown=examples/courses.py:power cooldown.from_tokens=1638400 +cooldown.options.exponent=2
"""


def inverse_sqrt(tokens_seen: float, total_tokens: float, warmup_tokens: float, least: float = 0.0) -> float:
    """A line up to 1 over the warm-up, then sqrt(warmup / tokens), and never below `least`."""
    if tokens_seen < warmup_tokens:
        return tokens_seen / warmup_tokens
    return max((max(warmup_tokens, 1.0) / max(tokens_seen, 1.0)) ** 0.5, least)


def power(done: float, exponent: float = 1.5) -> float:
    """1 where a cooldown begins and 0 where it ends: (1 - done) to a power."""
    return (1.0 - done) ** exponent
