"""Datasets of images with foreground masks, and the loader that makes batches of views of them."""

from bgsweep.data.donors import BackgroundPools
from bgsweep.data.sample import UNLABELLED, Image, ImageDataset, Mask, Sample
from bgsweep.data.splits import SplitName, Splits, notes, open_splits

__all__ = [
    "UNLABELLED",
    "BackgroundPools",
    "Image",
    "ImageDataset",
    "Mask",
    "Sample",
    "SplitName",
    "Splits",
    "notes",
    "open_splits",
]
