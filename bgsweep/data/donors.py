"""Backgrounds without foreground, grouped by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bgsweep.data.sample import Image


@dataclass(frozen=True)
class BackgroundPools:
    """Pools of backgrounds: Mixed-Same draws from that of the foreground's class, Mixed-Rand from that of another.

    Attributes:
        backgrounds: without hole or foreground, RGB, of any size.
        by_class: indices into `backgrounds` for each class; none is empty.
        origins: index of the image that each is the background of, -1 for one of another split.
    """

    # A hole would be shown as an object: these are inpainted or tiled.
    backgrounds: Sequence[Image]
    by_class: Sequence[npt.NDArray[np.int64]]
    origins: npt.NDArray[np.int64]
