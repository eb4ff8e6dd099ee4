import heapq
import math

import numpy as np
import pytest

from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.images.compositing import solid
from bgsweep.masks.grabcut import grabcut_rectangle
from bgsweep.masks.mbd import barrier_distance, mbd_saliency


def _exact(plane: np.ndarray) -> np.ndarray:
    """For each lowest value allowed on the way: the least highest value on a way to the border, by Dijkstra."""
    height, width = plane.shape
    best = np.full(plane.shape, math.inf)
    for low in np.unique(plane):
        top = np.full(plane.shape, math.inf)
        rim = [(y, x) for y in range(height) for x in range(width) if y in (0, height - 1) or x in (0, width - 1)]
        line = [(plane[place], place) for place in rim if plane[place] >= low]
        while line:
            high, (y, x) = heapq.heappop(line)
            if high >= top[y, x]:
                continue
            top[y, x] = high
            for v, u in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
                place = y + v, x + u
                if 0 <= place[0] < height and 0 <= place[1] < width and plane[place] >= low:
                    heapq.heappush(line, (max(high, plane[place]), place))
        best = np.minimum(best, top - low)
    return best


def test_sweeps_find_the_least_barrier_nearly_everywhere() -> None:
    planes = np.random.default_rng(0).integers(0, 50, (12, 9, 2)).astype(np.float32)
    found = barrier_distance(planes)
    exact = np.stack([_exact(planes[:, :, channel]) for channel in range(2)], axis=2)
    assert (found >= exact).all()
    assert (found == exact).mean() > 0.8
    assert found.mean() < 1.1 * exact.mean()


def test_a_wall_is_crossed_and_a_gate_is_found() -> None:
    plane = np.zeros((20, 20, 1), np.float32)
    plane[5:15, 5:15] = 10
    plane[6:14, 6:14] = 0
    assert barrier_distance(plane)[10, 10, 0] == 10
    plane[5, 9] = 3
    assert barrier_distance(plane)[10, 10, 0] == 3


@pytest.mark.parametrize(("method", "least"), [(mbd_saliency, 0.45), (grabcut_rectangle, 0.7)])
def test_finds_the_garments_of_real_images(method: object, least: float) -> None:
    source = EmbeddedSample("test")
    overlaps = []
    for index in range(0, len(source), 8):
        sample = source[index]
        assert sample.mask is not None and callable(method)
        found, true = method(sample.image) > 127, sample.mask > 127
        overlaps.append((found & true).sum() / (found | true).sum())
    assert np.mean(overlaps) > least


@pytest.mark.parametrize("method", [mbd_saliency, grabcut_rectangle])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (10, 20_000), (60, 80)])
def test_of_one_colour_there_is_no_foreground(method: object, height: int, width: int) -> None:
    assert callable(method)
    mask = method(solid(height, width, (90, 120, 40)))
    assert mask.shape == (height, width)
    assert not mask.any()
