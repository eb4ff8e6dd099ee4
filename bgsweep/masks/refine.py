"""Maps that follow a photograph's edges: the guided filter (He et al. 2010) with a colour guide."""

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.augment.composite import Image

Map = npt.NDArray[np.floating[Any]]

_EPSILON = 1e-3


def refined(level: Map, guide: Image, radius: int) -> Map:
    """Within each window the map becomes that linear function of the colours which fits it best.

    It is linear in the map, so that the average of many refined maps is the refined average.

    Args:
        level: height x width, 0 to 1.
        guide: RGB, uint8, of the same size.
        radius: of the window in pixels.
    """
    colors = guide.astype(np.float32) / np.float32(255)
    side = 2 * radius + 1

    def mean(values: Map) -> Map:
        return cast(Map, cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT))

    center, average = mean(colors), mean(level)
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    products = mean(np.stack([colors[:, :, i] * colors[:, :, j] for i, j in pairs], axis=2))
    spread = np.empty((*level.shape, 3, 3), np.float32)
    for number, (i, j) in enumerate(pairs):
        spread[:, :, i, j] = spread[:, :, j, i] = products[:, :, number] - center[:, :, i] * center[:, :, j]
    spread += _EPSILON * np.eye(3, dtype=np.float32)
    shared = mean(colors * level[:, :, None]) - center * average[:, :, None]
    slope = np.linalg.solve(spread, shared[..., None])[..., 0]
    offset = average - (slope * center).sum(axis=2)
    return cast(Map, ((mean(slope) * colors).sum(axis=2) + mean(offset)).clip(0, 1))
