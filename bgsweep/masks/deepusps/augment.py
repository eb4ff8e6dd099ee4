"""Augmentation of images and masks for the saliency network: colours, crops and mirroring."""

import random
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.augment.color import Colors, render
from bgsweep.augment.crop_window import draw_window
from bgsweep.images.compositing import Image
from bgsweep.masks.network import Floats, network_input

# Ranges of a crop's share of the image, and of its width / height.
_SCALE, _RATIO = (0.3, 1.0), (3 / 4, 4 / 3)


class TrainingExample(NamedTuple):
    """A network input, 3 x side x side, and its targets, masks x side x side, 0 to 1."""

    pixels: Floats
    masks: Floats
    mirrored: bool


class TrainingAugmentation:
    """Makes training examples; each depends on its inputs and its key only."""

    def __init__(self) -> None:
        self._uniform = random.Random()
        self._colors = Colors(gray=0.1, blur=0.0)
        self._colors.py_random = self._uniform

    def apply(self, image: Image, masks: npt.NDArray[np.bool_], key: int, cropped: bool) -> TrainingExample:
        """Augment one image and its masks.

        Args:
            image: side x side, RGB.
            masks: number of masks x side x side.
            key: from `seeding.rng_key`.
            cropped: train on a random crop, resized to the full side; else on the whole image.
        """
        self._uniform.seed(key)
        side, targets = len(image), masks.astype(np.float32)
        if cropped:
            part = draw_window(side, side, _SCALE, _RATIO, self._uniform)
            image = _enlarge(part.of(image), side)
            targets = np.stack([_enlarge(part.of(mask), side) for mask in targets])
        pixels = network_input(render(image, self._colors.draw(), self._colors.color), (side, side))
        mirrored = self._uniform.random() < 0.5
        if mirrored:
            pixels, targets = pixels[..., ::-1], targets[..., ::-1]
        return TrainingExample(pixels, targets, mirrored)


def _enlarge(values: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    return cv2.resize(np.ascontiguousarray(values), (side, side), interpolation=cv2.INTER_LINEAR)
