"""When an epoch takes up which photograph, and which ones exchange backgrounds."""

import numpy as np
import numpy.typing as npt

# Donors come from the same block of an epoch's order: most batches hold whole blocks and decode nothing for a donor.
DONOR_BLOCK = 32


def epoch_order(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch takes up the photographs."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def donor_position(key: int, position: int, length: int) -> int:
    """Which photograph of the order gives its background to the one at `position`: never itself, drawn by the key."""
    block = _block_of(position, length)
    drawn = block.start + key % (len(block) - 1)
    return drawn + 1 if drawn >= position else drawn


def swap_position(key: int, position: int, donor: int, length: int) -> int:
    """Which photograph of the order BG_Swaps shows in the negative of the one at `position`, or behind its key.

    Drawn by the key; never itself, nor, where there is any other, the donor of its query's background.
    """
    others = [place for place in _block_of(position, length) if place not in (position, donor)] or [donor]
    return others[key % len(others)]


def _block_of(position: int, length: int) -> range:
    """The positions that exchange backgrounds; the last block reaches back to be a whole one."""
    first = max(0, min(position // DONOR_BLOCK * DONOR_BLOCK, length - DONOR_BLOCK))
    return range(first, min(first + DONOR_BLOCK, length))


def spread_evenly(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """At most so many of the numbers from 0 to `count` - 1."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
