"""Masks made worse on purpose: how good they must be is a question that the paper asks."""

import random
from dataclasses import replace
from typing import cast

import cv2
import numpy as np

from bgsweep.config import MaskNoise
from bgsweep.data.sample import ImageDataset, Mask, Sample
from bgsweep.images.compositing import binarize
from bgsweep.seeding import Draw, rng_key


class NoisyMasks:
    """A source whose masks are spoilt, each photograph's always in the same way.

    The draws are addressed by `noise.seed` and the photograph's id. What is drawn for a photograph (a lost mask,
    another one's, the bounding box) comes first, then all are grown and blurred.
    """

    def __init__(self, source: ImageDataset, noise: MaskNoise) -> None:
        self.source = source
        self.noise = noise
        self.name = f"{source.name}, masks spoilt"
        self.classes = source.classes
        self.ids = source.ids
        self.labels = source.labels
        self.has_masks = source.has_masks

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        return sample if sample.load_mask is None else replace(sample, load_mask=lambda: self._spoilt(index, sample))

    def digests(self) -> dict[str, str]:
        """Those of the source: what follows from the configuration is not digested."""
        return self.source.digests()

    def _spoilt(self, index: int, sample: Sample) -> Mask:
        noise = self.noise
        draws = random.Random(rng_key(noise.seed, 0, sample.id, Draw.MASK_NOISE))
        kind, other = draws.random(), draws.randrange(len(self) - 1)
        mask = cast(Mask, sample.mask)
        if kind < noise.drop:
            return np.zeros_like(mask)
        if kind < noise.drop + noise.other:
            mask = _at_size_of(mask, cast(Mask, self.source[other + (other >= index)].mask))
        elif kind < noise.drop + noise.other + noise.box:
            mask = bounding_box(mask)
        return blurred(grown(mask, noise.grow), noise.blur)


def bounding_box(mask: Mask) -> Mask:
    """255 in the smallest rectangle that holds all foreground, 0 elsewhere."""
    left, top, width, height = cv2.boundingRect(binarize(mask))
    box = np.zeros_like(mask)
    box[top : top + height, left : left + width] = 255
    return box


def grown(mask: Mask, pixels: int) -> Mask:
    """The mask dilated by a disc of this radius, or eroded where it is negative; the picture's edge erodes nothing."""
    if pixels == 0:
        return mask
    side = 2 * abs(pixels) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cast(Mask, cv2.dilate(mask, disc) if pixels > 0 else cv2.erode(mask, disc))


def blurred(mask: Mask, sigma: float) -> Mask:
    """The mask after a Gaussian of this standard deviation in pixels."""
    return cast(Mask, cv2.GaussianBlur(mask, (0, 0), sigma)) if sigma > 0 else mask


def _at_size_of(mask: Mask, other: Mask) -> Mask:
    return cast(Mask, cv2.resize(other, mask.shape[::-1], interpolation=cv2.INTER_LINEAR))
