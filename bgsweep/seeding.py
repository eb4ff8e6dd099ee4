"""Keys of all random draws, so that any draw can be repeated alone, in any process and on any machine.

A key is made of (seed, epoch, sample id, kind of draw, index). Two draws with the same key are the same draw, so all
kinds are listed in `Draw`, and no two share a number. Streams of a generator would depend on which process draws when:
forked DataLoader workers give identical streams in albumentations 2.0.8, and a resumed run could not continue one.
"""

import hashlib
from enum import IntEnum, unique


@unique
class Draw(IntEnum):
    """Kinds of random draws. The number is part of the key: changing a number changes all results that depend on it.

    Kinds that take an index use the numbers from their own on, away from zero, up to the next kind's.
    """

    LARGE_VIEW = 0  # index: which of the two
    MIXED_SAME = 4  # these three: the background of a foreground in an evaluation variant; the epoch is the repeat
    MIXED_RAND = 5
    MIXED_NEXT = 7
    SMALL_VIEW = 100  # index: which crop of multi-crop
    SWAP = -2  # if BG_Swaps is applied, and the other image
    VALIDATION = -3  # images held out of the training split for validation
    FEW_LABELS = -4  # training images that keep their labels
    ATTACK = -5  # starts of PGD; the epoch is the restart
    TEST = -6  # images held out for the final evaluation
    PROBE_CROP = -7  # crops and flips in published linear evaluations and fine-tuning
    PROBE_ORDER = -8  # the order of their training images
    PROBE_WEIGHTS = -9  # initial weights of their classifiers, and of detectors
    PROBE_HOLD_OUT = -10  # training features that choose the linear probe's learning rate and weight decay
    DETECTION_FLIP = -11
    BOOTSTRAP = -12
    LEAK_SAMPLE = -13  # images of large sets that are compared with each other
    SWAP_CROP = -14  # crop of the other image in BG_Swaps' negative
    SWAP_COLORS = -15  # jitter, grey, blur and solarization of that negative
    PLACEMENT = -16  # size and position of a foreground on a new background; its seed is the view's own draw
    KNN_BANK = -17  # training images that online kNN compares with; the id is the class
    METRIC_IMAGE = -18  # the order in which metrics without labels take images
    REGROUPING = -19  # resamplings of foregrounds and backgrounds
    GROUPS = -20  # splits, kinds and backgrounds of a set of groups that `backgrounds make --groups` writes
    AUDIT = -60  # images, pixels' noise and compositions of `bgsweep audit`; the id says of which measure
    CORRUPTION = -100  # index: corruption and severity, below 100
    MASK_VIEW = -200  # augmentation for the network that learns masks; index: stage of its training
    MASK_ORDER = -300  # index: as above
    MASK_WEIGHTS = -400
    METRIC_VIEW = -500  # views for metrics without labels; index: which
    # Published results depend on these three, which are older than this list; `_OLDER` keeps their keys.
    SHORTCUT = -1000  # the background that data.shortcut gives a training image
    MASK_NOISE = -1001  # changes of a mask by data.mask_noise
    TRAINING_STEP = 1000  # torch's own draws in an epoch of training; index: rank of the worker


# The number, and the text before the id. No id is "torch", since ids are paths that end in an image's suffix.
_OLDER = {Draw.SHORTCUT: (-1, "shortcut/"), Draw.MASK_NOISE: (-1, "mask_noise/"), Draw.TRAINING_STEP: (0, "torch")}


def rng_key(seed: int, epoch: int, sample_id: str, draw: Draw, index: int = 0) -> int:
    """The 64-bit key of a random draw, the same in every process, on every machine.

    Args:
        seed: of the run, or of the evaluation or data set to which the draw belongs.
        epoch: 0 for draws that are made only once.
        sample_id: the image's id; empty for a draw that does not concern one image.
        draw: its kind.
        index: counts draws of the kind, from 0 on.
    """
    first, prefix = _OLDER.get(draw, (int(draw), ""))
    number = first + index if first >= 0 else first - index
    text = f"{seed}/{epoch}/{number}/{prefix}{sample_id}"
    # A hash, because Python's own hash of a text differs from process to process.
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def view_key(seed: int, epoch: int, sample_id: str, view: int) -> int:
    """The key of a view: 0 and 1 are the large views, the others the small ones of multi-crop."""
    large = 2
    if view < large:
        return rng_key(seed, epoch, sample_id, Draw.LARGE_VIEW, view)
    return rng_key(seed, epoch, sample_id, Draw.SMALL_VIEW, view - large)


def swap_keys(seed: int, epoch: int, sample_id: str) -> tuple[int, int]:
    """The keys of BG_Swaps' negative: for the crop of the other image, and for the colours."""
    return rng_key(seed, epoch, sample_id, Draw.SWAP_CROP), rng_key(seed, epoch, sample_id, Draw.SWAP_COLORS)
