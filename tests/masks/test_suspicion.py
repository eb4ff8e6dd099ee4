"""Masks of real images, as they are and made worse."""

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.mask_noise import bounding_box, grow
from bgsweep.data.sample import Sample
from bgsweep.masks.registry import build_method
from bgsweep.masks.score import score
from bgsweep.masks.suspicion import suspicion

STEP = 12


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    embedded = EmbeddedSample("test")
    return [embedded[index] for index in range(0, len(embedded), STEP)]


def _worse(samples: list[Sample]) -> Iterator[tuple[Sample, np.ndarray]]:
    """Each image with a mask: its own, a coarser or larger one, another image's."""
    for number, (one, other) in enumerate(pairwise([*samples, samples[0]])):
        foreign = cv2.resize(other.mask, one.mask.shape[::-1])
        yield one, [one.mask, grow(one.mask, 4), bounding_box(one.mask), foreign[::-1]][number % 4]


def test_it_follows_the_error_with_a_second_mask_and_without(samples: list[Sample]) -> None:
    rbd = build_method("rbd", None)
    overlaps, compared, alone = [], [], []
    for sample, mask in _worse(samples):
        (second,) = rbd.masks([rbd.prepare(sample.image)])
        overlaps.append(score(mask, sample.mask).iou)
        compared.append(suspicion(sample.image, mask, second).value)
        alone.append(suspicion(sample.image, mask, None).value)
    assert len(overlaps) >= 16
    assert spearmanr(compared, overlaps).statistic < -0.6
    assert spearmanr(alone, overlaps).statistic < -0.4


def test_masks_that_training_does_not_use_come_first(samples: list[Sample]) -> None:
    image, mask = samples[0].image, samples[0].mask
    tiny = np.zeros_like(mask)
    tiny[20:24, 20:24] = 255
    rated = [suspicion(image, each, None) for each in (np.zeros_like(mask), np.full_like(mask, 255), tiny, mask)]
    assert [each.reason for each in rated[:2]] == ["empty", "full 100 %"]
    assert rated[2].reason.startswith("tiny 0.")
    assert min(each.value for each in rated[:3]) >= 0.9 > rated[3].value


def test_reasons(samples: list[Sample]) -> None:
    sample = samples[0]
    cells = np.random.default_rng(0).integers(0, 4, (30, 30)) == 0
    speckled = cv2.resize(cells.astype(np.uint8) * 255, sample.mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
    assert suspicion(sample.image, speckled, None).reason.endswith(" pieces")
    assert suspicion(np.full_like(sample.image, 90), sample.mask, None).reason == "weak edge"
    assert suspicion(sample.image, sample.mask, np.zeros_like(sample.mask)).reason == "agrees 0 %"


def test_the_size_of_an_image_does_not_matter(samples: list[Sample]) -> None:
    sample = samples[1]
    large = cv2.resize(sample.image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    masks = [cv2.resize(sample.mask, None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR), sample.mask]
    first, second = (suspicion(*each, sample.mask).value for each in zip((large, sample.image), masks, strict=True))
    assert first == pytest.approx(second, abs=0.08)
