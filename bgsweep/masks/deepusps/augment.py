"""What a network sees of a photograph and its masks while it learns: other colours each time, mirrored or not."""

import random
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.augment.color import Photometric
from bgsweep.augment.crop_window import draw_window
from bgsweep.images.compositing import Image
from bgsweep.masks.u2net import Floats, network_input

# Of a crop: its share of the photograph, and its width / height.
_SCALE, _RATIO = (0.3, 1.0), (3 / 4, 4 / 3)


class TrainingExample(NamedTuple):
    """A picture, as the network takes it, 3 x side x side, and what it is to say of it, masks x side x side, 0 to 1."""

    picture: Floats
    masks: Floats
    mirrored: bool


class TrainingAugmentation:
    """Gives lessons; each is a function of its key alone."""

    def __init__(self) -> None:
        self._uniform = random.Random()
        self._colors = Photometric(gray=0.1, blur=0.0)
        self._colors.set_random_state(np.random.default_rng(0), self._uniform)

    def give(self, photograph: Image, masks: npt.NDArray[np.bool_], key: int, cropped: bool) -> TrainingExample:
        """Of one photograph.

        Args:
            photograph: side x side, RGB.
            masks: any number x side x side.
            key: from `seeding.rng_key`.
            cropped: show a part, enlarged; else all of it.
        """
        self._uniform.seed(key)
        side, wanted = len(photograph), masks.astype(np.float32)
        if cropped:
            part = draw_window(side, side, _SCALE, _RATIO, self._uniform)
            photograph = _enlarged(part.of(photograph), side)
            wanted = np.stack([_enlarged(part.of(mask), side) for mask in wanted])
        picture = network_input(self._colors.apply(photograph, **self._colors.get_params()), (side, side))
        mirrored = self._uniform.random() < 0.5
        if mirrored:
            picture, wanted = picture[..., ::-1], wanted[..., ::-1]
        return TrainingExample(picture, wanted, mirrored)


def _enlarged(values: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    return cv2.resize(np.ascontiguousarray(values), (side, side), interpolation=cv2.INTER_LINEAR)
