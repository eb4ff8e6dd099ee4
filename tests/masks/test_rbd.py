import math

import cv2
import numpy as np
import pytest

from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.images.compositing import solid
from bgsweep.masks.grabcut import grabcut
from bgsweep.masks.rbd import rbd_saliency, superpixel_saliency


def test_equals_the_papers_formulas_written_as_loops() -> None:
    labels = np.kron(np.arange(20).reshape(4, 5), np.ones((3, 3), int))
    lab = np.random.default_rng(0).normal(40, 12, (12, 15, 3))
    lab[4:8, 5:10] += 30
    np.testing.assert_allclose(superpixel_saliency(labels, lab), _slow(labels, lab), atol=1e-6)


def _slow(labels: np.ndarray, lab: np.ndarray) -> np.ndarray:
    count, (height, width) = labels.max() + 1, labels.shape
    everywhere = [(y, x) for y in range(height) for x in range(width)]
    places = [[(y, x) for y, x in everywhere if labels[y, x] == i] for i in range(count)]
    color = [np.mean([lab[p] for p in own], axis=0) for own in places]
    centre = [np.mean(own, axis=0) / max(height, width) for own in places]
    border = [any(y in (0, height - 1) or x in (0, width - 1) for y, x in own) for own in places]
    touching = {
        frozenset((int(labels[y, x]), int(labels[y + v, x + u])))
        for y, x in everywhere
        for v in (-1, 0, 1)
        for u in (-1, 0, 1)
        if 0 <= y + v < height and 0 <= x + u < width
    }
    adjacent = [[i != j and frozenset((i, j)) in touching for j in range(count)] for i in range(count)]
    apart = [[math.dist(color[i], color[j]) for j in range(count)] for i in range(count)]
    linked = [[i != j and (adjacent[i][j] or (border[i] and border[j])) for j in range(count)] for i in range(count)]
    none = sum(min(apart[i][j] for j in range(count) if linked[i][j]) for i in range(count)) / count / 2
    way = [
        [
            0.0 if i == j else max(0.0, apart[i][j] - none) if adjacent[i][j] or (border[i] and border[j]) else math.inf
            for j in range(count)
        ]
        for i in range(count)
    ]
    for k in range(count):
        for i in range(count):
            for j in range(count):
                way[i][j] = min(way[i][j], way[i][k] + way[k][j])
    background = []
    for i in range(count):
        similar = [math.exp(-(way[i][j] ** 2) / (2 * 7**2)) for j in range(count)]
        length = sum(value for value, at_border in zip(similar, border, strict=True) if at_border)
        background.append(1 - math.exp(-((length / math.sqrt(sum(similar))) ** 2) / 2))
    contrast = [
        sum(
            apart[i][j] * math.exp(-(math.dist(centre[i], centre[j]) ** 2) / (2 * 0.25**2)) * background[j]
            for j in range(count)
        )
        for i in range(count)
    ]
    low, high = min(contrast), max(contrast)
    foreground = np.array([(value - low) / (high - low) for value in contrast])
    threshold = cv2.threshold(np.rint(foreground * 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)[0] / 255
    foreground[foreground < threshold] = 0
    # The minimum of: sum 5 bg s^2 + fg (s - 1)^2 + sum over pairs w (si - sj)^2, found by coordinate descent.
    weight = [
        [math.exp(-(apart[i][j] ** 2) / 200) + 0.1 if adjacent[i][j] else 0.0 for j in range(count)]
        for i in range(count)
    ]
    found = np.zeros(count)
    for _ in range(3000):
        for i in range(count):
            pull = sum(weight[i][j] * found[j] for j in range(count))
            found[i] = (foreground[i] + pull) / (sum(weight[i]) + 5 * background[i] + foreground[i])
    return (found - found.min()) / (found.max() - found.min())


def test_finds_the_garments_of_real_images() -> None:
    source = EmbeddedSample("test")
    overlaps = []
    for index in range(0, len(source), 8):
        sample = source[index]
        assert sample.mask is not None
        found, true = grabcut(sample.image, rbd_saliency(sample.image)) > 127, sample.mask > 127
        overlaps.append((found & true).sum() / (found | true).sum())
    assert np.mean(overlaps) > 0.8


def test_the_same_image_gives_the_same_mask() -> None:
    image = EmbeddedSample("test")[3].image
    cv2.setRNGSeed(99)
    first = grabcut(image, rbd_saliency(image))
    cv2.setRNGSeed(7)
    np.testing.assert_array_equal(first, grabcut(image, rbd_saliency(image)))


def test_large_images_get_masks_of_their_own_size() -> None:
    image = cv2.resize(EmbeddedSample("test")[3].image, (1000, 900))
    mask = grabcut(image, rbd_saliency(image))
    assert mask.shape == (900, 1000)
    assert 0.05 < (mask > 127).mean() < 0.9


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (10, 20_000), (20_000, 10), (60, 80)])
def test_of_one_colour_there_is_no_foreground(height: int, width: int) -> None:
    image = solid(height, width, (90, 120, 40))
    mask = grabcut(image, rbd_saliency(image))
    assert mask.shape == (height, width)
    assert not mask.any()
