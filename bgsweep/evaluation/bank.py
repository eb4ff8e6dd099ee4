"""The training images that kNN during training compares with: all of a small set, a part of a large one."""

import numpy as np
import numpy.typing as npt

from bgsweep.config import Evaluate
from bgsweep.data import ImageDataset
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.seeding import Draw, rng_key


def online_bank(train: ImageDataset, settings: Evaluate) -> ImageDataset:
    """The training images, or, where they are more than `evaluate.online_bank`, as many of each class as fit.

    The choice depends on the seed, the classes and their files alone: it is the same for every epoch, worker, trial and
    resumed run.
    """
    most = settings.online_bank
    if most is None or len(train) <= most or not train.classes:
        return train
    chosen = np.concatenate(
        [
            members[np.sort(_shuffled(len(members), settings.seed, train.classes[label])[:each])]
            for label, members, each in _shares(train.labels, most)
        ]
    )
    return Subset(train, np.sort(chosen), f"{train.name}, {len(chosen)} drawn by class (seed {settings.seed})")


def _shuffled(count: int, seed: int, name: str) -> npt.NDArray[np.int64]:
    return np.random.default_rng(rng_key(seed, 0, name, Draw.KNN_BANK)).permutation(count)


def _shares(labels: npt.NDArray[np.int64], most: int) -> list[tuple[int, npt.NDArray[np.int64], int]]:
    """Label, members, and the number that is taken of each class; at least one."""
    order = np.argsort(labels, kind="stable")
    found, firsts = np.unique(labels[order], return_index=True)
    members = np.split(order, firsts[1:])
    left, shares = most, {}
    # Small classes first: what they do not fill is shared by the larger ones.
    for served, number in enumerate(np.argsort([len(part) for part in members], kind="stable").tolist()):
        shares[number] = min(len(members[number]), max(1, left // (len(members) - served)))
        left -= shares[number]
    return [(int(label), members[number], shares[number]) for number, label in enumerate(found)]
