"""A mask method."""

from collections.abc import Iterator, Sequence

import numpy as np

from bgsweep.images.compositing import Image, Mask
from bgsweep.masks.registry import MaskMethodClass


class Centre(MaskMethodClass):
    """The middle of each image."""

    parameters = {"share": 0.5}  # noqa: RUF012

    def masks(self, prepared: Sequence[Image]) -> Iterator[Mask]:
        for image in prepared:
            height, width = image.shape[:2]
            mask = np.zeros((height, width), np.uint8)
            mask[height // 4 : -(height // 4), width // 4 : -(width // 4)] = 255
            yield mask
