"""Backgrounds without foreground, sorted by the class that they speak for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bgsweep.data.sample import Image


@dataclass(frozen=True)
class BackgroundPools:
    """What Mixed-Same and Mixed-Rand draw from: the pool of the foreground's class, or that of another class.

    Attributes:
        plates: backgrounds without hole or foreground, RGB, of any size.
        by_class: for each class the indices into `plates`; none is empty.
        origins: for each plate the index of the photograph that it is the background of, -1 for one of another split.
    """

    plates: Sequence[Image]
    by_class: Sequence[npt.NDArray[np.int64]]
    origins: npt.NDArray[np.int64]
