"""Masks by several methods at once, without weights."""

import numpy as np
import pytest

from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.images.compositing import Mask, solid
from bgsweep.masks.registry import build_method


def overlap(found: Mask, true: Mask) -> float:
    both, either = (found > 127) & (true > 127), (found > 127) | (true > 127)
    return float(both.sum() / either.sum())


def test_is_better_than_its_saliency_methods_and_the_same_each_time() -> None:
    source = EmbeddedSample("test")
    samples = [source[index] for index in range(0, len(source), 8)]
    names = ("fusion", "rbd", "mbd")
    masks = {name: [build_method(name).prepare(sample.image) for sample in samples] for name in names}
    truth = [sample.mask for sample in samples if sample.mask is not None]
    means = {name: np.mean(list(map(overlap, masks[name], truth))) for name in names}
    assert len(truth) == len(samples) and means["fusion"] > 0.02 + max(means["rbd"], means["mbd"]), means
    np.testing.assert_array_equal(build_method("fusion").prepare(samples[0].image), masks["fusion"][0])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (60, 80)])
def test_of_one_color_there_is_no_foreground(height: int, width: int) -> None:
    mask = build_method("fusion").prepare(solid(height, width, (90, 120, 40)))
    assert mask.shape == (height, width) and not mask.any()
