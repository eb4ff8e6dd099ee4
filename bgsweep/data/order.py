"""The order of images in an epoch, and the draws of which images exchange backgrounds."""

import numpy as np
import numpy.typing as npt

# Donors come from the same block of an epoch's order: batches hold whole blocks, so that nothing is decoded for a donor
# alone, which would cost 0.9 ms, 40 % of a sample. A cache of recent images would be as fast, but then results would
# depend on which process made which batch.
DONOR_BLOCK = 32


def epoch_order(seed: int, epoch: int, length: int) -> npt.NDArray[np.int64]:
    """The order of an epoch: a permutation of the images' indices."""
    # From seed and epoch alone, so that a resumed run continues with the same order.
    return np.random.default_rng([seed, epoch]).permutation(length)


def donor_position(key: int, position: int, length: int) -> int:
    """Position of the image that gives its background to the one at `position`: drawn by the key, never the same."""
    block = _block_of(position, length)
    # Of a 64-bit key the remainder is uniform to within 32 / 2^64.
    drawn = block.start + key % (len(block) - 1)
    return drawn + 1 if drawn >= position else drawn


def swap_position(key: int, position: int, donor: int, length: int) -> int:
    """Position of the image that BG_Swaps shows in the negative of the one at `position`, or behind its key.

    Drawn by the key; never the same, nor, where there is any other, the donor of its query's background.
    """
    # With the query's own donor as the other image, the negative would show an image in front of its own background.
    others = [other for other in _block_of(position, length) if other not in (position, donor)] or [donor]
    return others[key % len(others)]


def _block_of(position: int, length: int) -> range:
    """The positions that exchange backgrounds; the last block reaches back to be a whole one."""
    first = max(0, min(position // DONOR_BLOCK * DONOR_BLOCK, length - DONOR_BLOCK))
    return range(first, min(first + DONOR_BLOCK, length))


def spread_evenly(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """At most `wanted` of the numbers from 0 to `count` - 1, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).astype(np.int64))
