"""Antialiased resizing beside Pillow's, on real images."""

import warnings
from typing import Literal

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from bgsweep.data.sample import Sample
from bgsweep.images.resizing import resize_antialiased

PILLOW = {"bilinear": PIL.Image.Resampling.BILINEAR, "bicubic": PIL.Image.Resampling.BICUBIC}
TORCHVISION = {"bilinear": transforms.InterpolationMode.BILINEAR, "bicubic": transforms.InterpolationMode.BICUBIC}
# Crop windows, which shrink, keep their size, grow, and do all of it.
WINDOWS = [(0, 0, 375, 500), (30, 40, 330, 360), (10, 10, 234, 234), (200, 99, 280, 170), (5, 7, 6, 400)]


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_resizing_is_that_of_pillow_and_torchvision(
    large: list[Sample], kernel: Literal["bilinear", "bicubic"]
) -> None:
    means = []
    for sample in large:
        for top, left, bottom, right in WINDOWS:
            window = sample.image[top:bottom, left:right]
            before = window.copy()
            found = resize_antialiased(window, (224, 200), kernel)
            assert found.shape == (224, 200, 3) and found.dtype == np.uint8 and found.flags.c_contiguous
            assert np.array_equal(window, before) and not np.shares_memory(found, window)
            pillow = np.asarray(PIL.Image.fromarray(before).resize((200, 224), PILLOW[kernel]))
            off = np.abs(found.astype(int) - pillow)
            assert off.max() <= 2
            means.append(off.mean())
            tensor = torch.from_numpy(before).permute(2, 0, 1)
            theirs = transforms.resize(tensor, [224, 200], TORCHVISION[kernel], antialias=True)
            assert np.abs(found.astype(int) - theirs.permute(1, 2, 0).numpy()).max() <= 2
    assert np.mean(means) < 0.01


def test_an_image_that_cannot_be_written_to_is_resized_without_a_warning(large: list[Sample]) -> None:
    image = large[0].image.copy()
    expected = resize_antialiased(image, (64, 64), "bilinear")
    image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(resize_antialiased(image, (64, 64), "bilinear"), expected)
