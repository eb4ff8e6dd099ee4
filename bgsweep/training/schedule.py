"""Learning rate schedules, as pure functions of the step."""

import math


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """Factor on the base rate: linear from 1/warmup to 1 in `warmup` steps, then half a cosine down to 0 at `total`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
