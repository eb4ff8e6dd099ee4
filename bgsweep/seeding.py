"""Keys of all random draws: each says which draw it is for, so that a draw can be repeated alone, anywhere.

A key is made of (seed, epoch, sample id, kind of draw, index). Two draws with the same key are the same draw: all
kinds are listed in `Draw`, and no two share a number.
"""

import hashlib
from enum import IntEnum, unique


@unique
class Draw(IntEnum):
    """Kinds of random draws. The number goes into the key, so that changing one changes every result that has it.

    Kinds that take an index use the numbers from theirs on, away from zero, up to the next kind's.
    """

    LARGE_VIEW = 0  # index: which of the two
    MIXED_SAME = 4  # these three: which background a foreground of the evaluation set meets; the epoch is the repeat
    MIXED_RAND = 5
    MIXED_NEXT = 7
    SMALL_VIEW = 100  # index: which crop of multi-crop
    SWAP = -2  # whether BG_Swaps fires, and with which image
    VALIDATION = -3  # which images are held out of the training split for validation
    FEW_LABELS = -4  # which training images keep their labels
    ATTACK = -5  # where PGD starts; the epoch is the restart
    TEST = -6  # which images are held out for the final evaluation
    PROBE_CROP = -7  # crops and flips that published linear evaluations and fine-tuning train on
    PROBE_ORDER = -8  # the order in which they take up the images
    PROBE_WEIGHTS = -9  # initial weights of the classifiers of these, and of detectors
    PROBE_HOLD_OUT = -10  # which training features choose the linear probe's learning rate and decay
    DETECTION_FLIP = -11
    BOOTSTRAP = -12
    LEAK_SAMPLE = -13  # which images of large sets are compared with each other
    SWAP_CROP = -14  # which part of the other image BG_Swaps' negative shows
    SWAP_COLORS = -15  # jitter, gray, blur and solarization of that negative
    PLACEMENT = -16  # size and place of a foreground before a new background; its seed is the view's own draw
    KNN_BANK = -17  # which training images online kNN compares with; the id is the class
    CORRUPTION = -100  # index: corruption and severity, below 100
    MASK_VIEW = -200  # what the network that learns masks sees; index: stage of its training
    MASK_ORDER = -300  # index: as above
    MASK_WEIGHTS = -400
    # Published results depend on these three, which are older than this list; `_OLDER` has the keys that they keep.
    SHORTCUT = -1000  # the background that data.shortcut puts behind a training image
    MASK_NOISE = -1001  # how data.mask_noise spoils a mask
    TRAINING_STEP = 1000  # torch's own draws in an epoch of training; index: rank of the worker


# The number and what stands before the id. An id is a path that ends in an image's suffix, so that "torch" is none.
_OLDER = {Draw.SHORTCUT: (-1, "shortcut/"), Draw.MASK_NOISE: (-1, "mask_noise/"), Draw.TRAINING_STEP: (0, "torch")}


def rng_key(seed: int, epoch: int, sample_id: str, draw: Draw, index: int = 0) -> int:
    """The 64-bit key of a random draw, the same in every process, on every machine.

    Args:
        seed: of the run, or of what the draw belongs to.
        epoch: 0 for draws that are made once.
        sample_id: the image's id; empty for a draw that is not of one image.
        draw: its kind.
        index: which of the kind, from 0 on.
    """
    first, prefix = _OLDER.get(draw, (int(draw), ""))
    number = first + index if first >= 0 else first - index
    text = f"{seed}/{epoch}/{number}/{prefix}{sample_id}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def view_key(seed: int, epoch: int, sample_id: str, view: int) -> int:
    """The key of a view: 0 and 1 are the large ones, then come the small ones of multi-crop."""
    large = 2
    if view < large:
        return rng_key(seed, epoch, sample_id, Draw.LARGE_VIEW, view)
    return rng_key(seed, epoch, sample_id, Draw.SMALL_VIEW, view - large)


def swap_keys(seed: int, epoch: int, sample_id: str) -> tuple[int, int]:
    """The keys of BG_Swaps' negative: of the part of the other image that it shows, and of its colors."""
    return rng_key(seed, epoch, sample_id, Draw.SWAP_CROP), rng_key(seed, epoch, sample_id, Draw.SWAP_COLORS)
