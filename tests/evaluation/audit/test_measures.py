"""Measures on encoders that see background, centre, foreground, or texture alone, which is of the background mostly."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bgsweep.data import Splits
from bgsweep.evaluation.audit import backgrounds, neighbours, noise, placement, watermark
from bgsweep.evaluation.audit.measure import Measure
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.audit.summary import interval
from tests.evaluation.audit.conftest import ENCODERS, Sees, subject

KNOWN: list[tuple[Measure, str, dict[str, float]]] = [
    (backgrounds.MEASURE, "linear/bg_gap", {"background": 1, "centre": 0, "foreground": 0, "texture": 1}),
    (backgrounds.MEASURE, "knn/mixed_rand", {"background": 0, "centre": 1, "foreground": 1, "texture": 0}),
    (noise.MEASURE, "rfs", {"background": -1, "centre": 1, "foreground": 1, "texture": -1}),
    (placement.MEASURE, "background_robustness", {"background": 0, "centre": 1, "foreground": 1, "texture": 0}),
    (placement.MEASURE, "centre_bias", {"background": 0, "centre": 1, "foreground": 0, "texture": 0}),
    (placement.MEASURE, "size_bias", {"background": 0, "centre": 1, "foreground": 0}),
    (neighbours.MEASURE, "towards_background", {"background": 1, "centre": 0, "foreground": 0, "texture": 1}),
]


@pytest.mark.parametrize(("measure", "name", "known"), KNOWN, ids=lambda one: one if isinstance(one, str) else "")
def test_constructed_encoders_have_their_values(
    measure: Measure, name: str, known: dict[str, float], subjects: dict[str, Subject]
) -> None:
    for encoder, value in known.items():
        found = {one.name: one for one in measure.run(subjects[encoder]).values}[name]
        assert found.value == pytest.approx(value, abs=0.02), encoder
        span = interval(found)
        assert span.lower - 1e-9 <= span.value <= span.upper + 1e-9


def test_without_classes_images_are_found_again_by_what_the_encoder_sees(constructed: Splits) -> None:
    for encoder, (front, back) in {"centre": (1, 0), "background": (0, 1)}.items():
        one = subject(Sees(ENCODERS[encoder]), constructed, labelled=False)
        found = {each.name: each.value for each in backgrounds.variants(one).values}
        assert found["found/only_fg"] > 0.9 if front else found["found/only_fg"] < 0.3
        assert found["found/only_bg_b"] > 0.9 if back else found["found/only_bg_b"] < 0.3


def test_relative_sensitivity_is_the_published_formula() -> None:
    draws = np.random.default_rng(0)
    for low in (0.1, 0.6):
        front, behind = draws.uniform(low, low + 0.3, (2, 50))
        f, b = front.mean(), behind.mean()
        m = (f + b) / 2
        assert noise.relative_sensitivity(front, behind).value == pytest.approx((b - f) / (2 * min(m, 1 - m)))


def test_noise_has_its_norm_and_stays_in_its_region() -> None:
    image, region = np.full((40, 40, 3), 128, np.uint8), np.zeros((40, 40), np.uint8)
    region[:20] = 255
    draws = np.random.default_rng(0).standard_normal(image.shape)
    noisy = noise.with_noise(image, region, 4.0, draws)
    assert np.linalg.norm(noisy / 255 - image / 255) == pytest.approx(4, rel=0.02)
    assert np.array_equal(noisy[20:], image[20:])
    assert np.array_equal(noise.with_noise(image, np.zeros_like(region), 4.0, draws), image)


def test_centre_and_size_bias_of_known_accuracies() -> None:
    cells = np.ones((10, 3, 3))
    cells[:5, 0, 2] = 0  # a corner at 50 %
    cells[:8, 1, 0] = 0  # a side at 20 %
    assert placement.centre_bias(cells).value == pytest.approx(1 - (0.5 + 0.2) / 2)
    sizes = np.ones((10, len(placement.SIZES)))
    sizes[:4, 0] = 0
    sizes[0, placement.SIZES.index(1.0)] = 0  # 90 % at its own size, 60 % at the smallest
    assert placement.size_bias(sizes).value == pytest.approx(1 - 0.6 / 0.9)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_a_foreground_is_placed_where_it_is_told(scale: float) -> None:
    cutout, shows = np.zeros((60, 60, 3), np.uint8), np.full((60, 60), 255, np.uint8)
    cutout[5:25, 10:20], shows[5:25, 10:20] = 200, 0
    made = placement.placed(cutout, shows, np.full((60, 60, 3), 50, np.uint8), (0.5, 0.25), scale)
    rows, columns = np.where(made[..., 0] > 125)
    assert rows.mean() == pytest.approx(29.5, abs=1) and columns.mean() == pytest.approx(14.5, abs=1)
    assert len(rows) == pytest.approx(200 * scale**2, rel=0.2)


def test_a_watermark_costs_what_an_encoder_sees_of_it(constructed: Splits) -> None:
    def brightest(images: Tensor) -> Tensor:
        middle = images[:, :2].sum(dim=1, keepdim=True)
        middle[..., :12, :], middle[..., 20:, :] = 0, 0
        return (middle == middle.amax(dim=(2, 3), keepdim=True)).float()

    def top(images: Tensor) -> Tensor:
        weight = torch.zeros(1, 1, *images.shape[2:])
        weight[..., :5, :] = 1
        return weight

    weights = (top, *ENCODERS.values(), brightest)
    gaps = [watermark.watermark(subject(Sees(weight), constructed)).values[0].value for weight in weights]
    assert not any(gaps[:-1]) and gaps[-1] > 0.2


def test_nearest_neighbours_leave_an_image_itself_out() -> None:
    bank = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert neighbours.nearest(bank, bank, np.arange(3), 1)[:, 0].tolist() == [1, 0, 1]
