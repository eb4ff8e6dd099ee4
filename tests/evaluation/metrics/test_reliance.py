"""The two-way decomposition: constructed encoders, the formula written out, and what must not matter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bgsweep.config.metrics import RelianceMetric
from bgsweep.data import Splits
from bgsweep.errors import UserError
from bgsweep.evaluation.metrics.reliance import Reliance, share_errors, shares
from tests.evaluation.metrics.clouds import cloud, turned
from tests.evaluation.metrics.contexts import context

SMALL = RelianceMetric(name="reliance", foregrounds=6, backgrounds=5, resamplings=20)


def crossed(fronts: int, behind: int, variances: tuple[float, float, float], seed: int = 0) -> np.ndarray:
    """Features whose variance components are known: foreground, background, interaction."""
    parts = [(fronts, 1, 8), (1, behind, 8), (fronts, behind, 8)]
    made = [cloud(*shape, seed=3 * seed + number) for number, shape in enumerate(parts)]
    total: np.ndarray = sum(np.sqrt(each) * part for each, part in zip(variances, made, strict=True))  # type: ignore[assignment]
    return total + 2


def slow(features: np.ndarray) -> list[float]:
    """The components of each dimension by the sums of the textbook, then summed."""
    fronts, behind, width = features.shape
    parts = np.zeros(3)
    for one in range(width):
        z = features[:, :, one]
        ms_f = behind * sum((z[f].mean() - z.mean()) ** 2 for f in range(fronts)) / (fronts - 1)
        ms_b = fronts * sum((z[:, b].mean() - z.mean()) ** 2 for b in range(behind)) / (behind - 1)
        rest = sum(
            (z[f, b] - z[f].mean() - z[:, b].mean() + z.mean()) ** 2 for f in range(fronts) for b in range(behind)
        )
        ms_c = rest / ((fronts - 1) * (behind - 1))
        parts += [(ms_f - ms_c) / behind, (ms_b - ms_c) / fronts, ms_c]
    return list(parts / parts.sum())


def test_it_is_the_analysis_of_variance() -> None:
    features = crossed(7, 5, (2, 1, 0.5))
    assert list(shares(features)) == pytest.approx(slow(features))
    assert sum(shares(features)) == pytest.approx(1)


@pytest.mark.parametrize(("fronts", "behind"), [(5, 5), (12, 4), (4, 12)])
def test_the_numbers_of_foregrounds_and_backgrounds_do_not_matter_on_average(fronts: int, behind: int) -> None:
    found = np.mean([shares(crossed(fronts, behind, (2, 1, 1), seed)) for seed in range(100)], axis=0)
    assert found == pytest.approx([0.5, 0.25, 0.25], abs=0.03)


def test_limits() -> None:
    assert shares(crossed(6, 5, (1, 0, 0))) == pytest.approx((1, 0, 0), abs=1e-9)
    assert shares(crossed(6, 5, (0, 1, 0))) == pytest.approx((0, 1, 0), abs=1e-9)
    assert shares(np.full((6, 5, 3), 0.3)) == (0, 1, 0), "a collapsed encoder is not the best"


def test_neither_scale_nor_rotation_matters() -> None:
    features = crossed(6, 5, (2, 1, 1))
    assert shares(turned(features) * 50) == pytest.approx(shares(features))


def test_the_errors_are_the_spread_over_samples() -> None:
    spread = np.std([shares(crossed(16, 16, (2, 1, 1), seed)) for seed in range(60)], axis=0)
    told = np.mean([share_errors(crossed(16, 16, (2, 1, 1), seed), 40) for seed in range(8)], axis=0)
    assert ((told / spread > 0.5) & (told / spread < 1.7)).all()
    wide = np.concatenate([crossed(6, 5, (2, 1, 1)), np.zeros((6, 5, 60))], axis=2)
    assert share_errors(wide, 20) == pytest.approx(share_errors(wide[:, :, :8], 20)), "in fewer dimensions"


def test_encoders_that_see_one_of_the_two_alone(splits: Splits) -> None:
    metric = Reliance(SMALL, context(splits))
    fronts, behind = metric._parts()
    assert len(fronts) == 6 and len(behind) == 5 and not set(fronts) & set(behind)
    seen = {}

    def encoder(which: int) -> Tensor:
        cells = torch.cartesian_prod(torch.arange(6), torch.arange(5))[:, which]
        return cloud_of(int(cells.max()) + 1)[cells]

    def cloud_of(count: int) -> Tensor:
        return torch.from_numpy(cloud(count, 16)).float()

    for which, name in enumerate(("foreground", "background")):
        blind = Reliance(SMALL, context(splits, lambda images, which=which: encoder(which)))
        seen[name] = {one.name: one.value for one in blind.measure()}
    assert seen["foreground"]["bg_share"] == pytest.approx(0, abs=1e-6)
    assert seen["foreground"]["fg_share"] == pytest.approx(1)
    assert seen["background"]["bg_share"] == pytest.approx(1) and seen["background"]["fg_share"] < 1e-6
    assert seen["foreground"]["swap_lidar"] > 4 > seen["background"]["swap_lidar"]


def test_composites_are_drawn_by_key_and_show_their_background(splits: Splits) -> None:
    def at_corners(images: Tensor) -> Tensor:
        """Sees the four corners, which few foregrounds reach."""
        return images[:, [0, 0, -1, -1], [0, -1, 0, -1]].float().flatten(1)

    first, again = ({one.name: one for one in Reliance(SMALL, context(splits, at_corners)).measure()} for _ in "ab")
    assert first == again
    assert first["bg_share"].value > 0.6 and first["bg_share"].error is not None
    reordered = replace(splits, kept={})
    assert {one.name: one for one in Reliance(SMALL, context(reordered, at_corners)).measure()} == first


def test_it_needs_masks(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = context(splits)
    monkeypatch.setattr(ctx.images, "source", type("NoMasks", (), {"has_masks": False, "name": "images/val"})())
    with pytest.raises(UserError, match=r"images/val: reliance needs foreground masks; set data.masks"):
        Reliance(SMALL, ctx)
