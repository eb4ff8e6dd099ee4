"""The order of images in an epoch, and the draws of which images exchange backgrounds."""

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

# Donors come from the same block of an epoch's order: batches hold whole blocks, so that nothing is decoded for a donor
# alone, which would cost 0.9 ms, 40 % of a sample. A cache of recent images would be as fast, but then results would
# depend on which process made which batch.
DONOR_BLOCK = 32


# A shuffled list of more images than this (268 MB) is replaced by a permutation that is computed where it is needed.
SHUFFLED = 1 << 25
_ROUNDS = 6


class KeyedOrder:
    """A permutation of any length that takes no memory: a Feistel network (Luby and Rackoff 1988), keyed by the epoch.

    It permutes the numbers below a power of 4; those from `length` on are permuted again until they are below.
    """

    def __init__(self, seed: int, epoch: int, length: int) -> None:
        self._length = length
        self._half = np.uint64(((length - 1).bit_length() + 1) // 2)
        self._keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, position: int) -> int: ...

    @overload
    def __getitem__(self, position: slice) -> npt.NDArray[np.int64]: ...

    def __getitem__(self, position: int | slice) -> int | npt.NDArray[np.int64]:
        if not isinstance(position, slice):
            return int(self[position : position + 1][0])
        values = self._permuted(np.arange(*position.indices(self._length)).astype(np.uint64))
        while (outside := values >= self._length).any():
            values[outside] = self._permuted(values[outside])
        return values.astype(np.int64)

    def _permuted(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        mask = (np.uint64(1) << self._half) - np.uint64(1)
        left, right = values >> self._half, values & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return (left << self._half) | right


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class OrderWindow:
    """The part of an epoch's order that some positions need: theirs, and their donors'."""

    first: int
    indices: npt.NDArray[np.int64]
    images: int

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, position: int) -> int:
        return int(self.indices[position - self.first])


Order = npt.NDArray[np.int64] | KeyedOrder


def epoch_order(seed: int, epoch: int, length: int) -> Order:
    """The order of an epoch: a permutation of the images' indices."""
    # From seed and epoch alone, so that a resumed run continues with the same order.
    if length > SHUFFLED:
        return KeyedOrder(seed, epoch, length)
    return np.random.default_rng([seed, epoch]).permutation(length)


def order_window(order: Order, positions: range) -> OrderWindow:
    """The part of an order that `ViewBuilder` needs for some positions."""
    first = _block_of(positions[0], len(order)).start
    last = _block_of(positions[-1], len(order)).stop
    first, last = min(first, positions[0]), max(last, positions[-1] + 1)
    return OrderWindow(first, np.array(order[first:last]), len(order))


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
