"""Masks degraded on purpose, to measure how good masks must be (Ryali et al., arXiv 2103.12719)."""

import random
from dataclasses import replace
from typing import cast

import cv2
import numpy as np

from bgsweep.config import MaskNoise
from bgsweep.data.datasets.wrappers import Wrapper
from bgsweep.data.sample import ImageDataset, Mask, Sample
from bgsweep.images.compositing import binarize
from bgsweep.seeding import Draw, rng_key


class NoisyMasks(Wrapper):
    """A dataset with degraded masks, each image's always in the same way.

    Draws are keyed by `noise.seed` and the image's id. The noise that is drawn for an image (a lost mask, another
    image's, the bounding box) comes first, then all masks are grown and blurred.
    """

    def __init__(self, dataset: ImageDataset, noise: MaskNoise) -> None:
        super().__init__(dataset, f"{dataset.name}, masks degraded")
        self.noise = noise

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        if sample.load_mask is None:
            return sample
        # What is kept of the clean mask would show foreground as background, or the other way round.
        return replace(sample, load_mask=lambda: self._noisy(index, sample), load_rect=None, load_inpainted=None)

    def _noisy(self, index: int, sample: Sample) -> Mask:
        noise = self.noise
        draws = random.Random(rng_key(noise.seed, 0, sample.id, Draw.MASK_NOISE))
        # Both are always drawn, so that the share of one kind does not change which image another mask comes from.
        kind, other = draws.random(), draws.randrange(len(self) - 1)
        mask = cast(Mask, sample.mask)
        if kind < noise.drop:
            return np.zeros_like(mask)
        if kind < noise.drop + noise.other:
            mask = _at_size_of(mask, cast(Mask, self.dataset[other + (other >= index)].mask))
        elif kind < noise.drop + noise.other + noise.box:
            mask = bounding_box(mask)
        return blur(grow(mask, noise.grow), noise.blur)


def bounding_box(mask: Mask) -> Mask:
    """255 in the smallest rectangle that holds all foreground, 0 elsewhere."""
    left, top, width, height = cv2.boundingRect(binarize(mask))
    box = np.zeros_like(mask)
    box[top : top + height, left : left + width] = 255
    return box


def grow(mask: Mask, pixels: int) -> Mask:
    """The mask dilated by a disc of a radius, or eroded where it is negative; the image's edge does not erode."""
    if pixels == 0:
        return mask
    side = 2 * abs(pixels) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return cast(Mask, cv2.dilate(mask, disc) if pixels > 0 else cv2.erode(mask, disc))


def blur(mask: Mask, sigma: float) -> Mask:
    """The mask after a Gaussian of this standard deviation in pixels."""
    return cast(Mask, cv2.GaussianBlur(mask, (0, 0), sigma)) if sigma > 0 else mask


def _at_size_of(mask: Mask, other: Mask) -> Mask:
    return cast(Mask, cv2.resize(other, mask.shape[::-1], interpolation=cv2.INTER_LINEAR))
