"""The background transforms for torchvision v2, and as for BG_Swaps for Albumentations, against those of training."""

import subprocess
import sys
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from bgsweep.augment import transforms
from bgsweep.augment.background import Negative
from bgsweep.augment.torchvision_v2 import RandomBackground, RemoveBackground, SwapNegative
from bgsweep.augment.training_crop import TrainingCrop
from bgsweep.data.sample import Sample
from bgsweep.images.compositing import Image

ALL = {"min_area": 0.0, "max_area": 1.0}


def pair(sample: Sample) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    return tv_tensors.Image(torch.from_numpy(sample.image).permute(2, 0, 1)), tv_tensors.Mask(sample.mask)


def pixels(image: torch.Tensor) -> Image:
    return image.permute(1, 2, 0).numpy()


def trained(sample: Sample, applied: str, draws: list[float], **given: Any) -> Image:
    """The whole image as training shows it, for the same draws."""
    height, width = sample.mask.shape
    crop = TrainingCrop(size=(height, width), **given.pop("crop", {}), **ALL)
    keys = {"fill_draw": draws[0], "donor_draw": tuple(draws[:4]), "foreground": sample.mask, "negative": None}
    return crop.apply(sample.image, window=(0, 0, height, width), applied=applied, **keys | given)


def draws_of(seed: int) -> list[float]:
    torch.manual_seed(seed)
    return torch.rand(6, dtype=torch.float64).tolist()[1:]


@pytest.mark.parametrize("fill", ["random_gray", "black", "mean", "noise"])
def test_a_removed_background_is_that_of_training(samples: list[Sample], fill: Any) -> None:
    for seed, sample in enumerate(samples):
        expected = trained(sample, "removed", draws_of(seed), crop={"fill": fill})
        torch.manual_seed(seed)
        image, mask, label = RemoveBackground(fill, p=1.0, **ALL)(*pair(sample), 3)
        assert np.array_equal(pixels(image), expected) and not np.array_equal(expected, sample.image)
        assert type(image) is tv_tensors.Image and torch.equal(mask, pair(sample)[1]) and label == 3


@pytest.mark.parametrize("donor", ["tiled", "inpainted", "plain"])
def test_a_random_background_is_that_of_training(samples: list[Sample], donor: Any) -> None:
    transform = RandomBackground([(*pair(each), 0) for each in samples], donor, p=1.0, **ALL)
    for seed, sample in enumerate(samples):
        donors = [{"image": each.image, "mask": each.mask} for each in samples]
        expected = trained(sample, "replaced", draws_of(seed), donors=donors, crop={"donor": donor})
        torch.manual_seed(seed)
        assert np.array_equal(pixels(transform(*pair(sample))[0]), expected)


@pytest.mark.parametrize("kind", ["silhouette", "foreground"])
def test_a_swap_s_negative_is_that_of_training(samples: list[Sample], kind: Any) -> None:
    torchvisions = SwapNegative([pair(each) for each in samples], kind, **ALL)
    stock = A.Compose([transforms.SwapNegative(kind, **ALL)])
    others = [{"image": each.image, "mask": each.mask} for each in samples]
    for seed, sample in enumerate(samples):
        draws = draws_of(seed)
        other = samples[int(draws[0] * len(samples))]
        negative = Negative(kind=kind, image=other.image, mask=other.mask, seed=int(draws[1] * 2**53))
        expected = trained(sample, "none", draws, negative=negative)
        torch.manual_seed(seed)
        assert np.array_equal(pixels(torchvisions(*pair(sample))[0]), expected)
        made = stock(image=sample.image, mask=sample.mask, other=others)["image"]
        drawn = stock.transforms[0].params
        other = samples[int(drawn["pick"] * len(samples))]
        negative = Negative(kind=kind, image=other.image, mask=other.mask, seed=drawn["seed"])
        assert np.array_equal(made, trained(sample, "none", draws, negative=negative))
    buffered = A.from_dict(A.to_dict(stock))
    assert buffered.to_dict() == stock.to_dict()


def test_area_bounds_and_probability(samples: list[Sample]) -> None:
    image, mask = pair(samples[0])
    share = float((samples[0].mask > 127).mean())
    donors = [pair(samples[1])]
    for bounds, changes in (({"max_area": share - 0.01}, False), ({"min_area": share + 0.01}, False), ({}, True)):
        for transform in (RemoveBackground(p=1.0, **bounds), RandomBackground(donors, p=1.0, **bounds)):
            assert torch.equal(transform(image, mask)[0], image) != changes
        assert torch.equal(SwapNegative(donors, **bounds)(image, mask)[0], image) != changes
    torch.manual_seed(0)
    rare = RemoveBackground("black", p=0.3)
    shares = [not torch.equal(rare(image, mask)[0], image) for _ in range(300)]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.07)


def test_it_stands_in_a_usual_pipeline(samples: list[Sample]) -> None:
    ours = [RemoveBackground(p=0.5), RandomBackground([pair(each) for each in samples], p=0.5)]
    pipeline = v2.Compose(
        [v2.RandomResizedCrop(32), *ours, v2.ToDtype({tv_tensors.Image: torch.float32, "others": None})]
    )
    torch.manual_seed(1)
    made = [pipeline({"image": pair(each)[0], "mask": pair(each)[1]}) for each in samples]
    assert all(each["image"].shape == (3, 32, 32) and each["mask"].shape == (32, 32) for each in made)
    assert "fill=random_gray" in repr(pipeline)


def test_floats_give_the_same_view(samples: list[Sample]) -> None:
    image, mask = pair(samples[0])
    donors = [pair(samples[1])]
    for transform in (RemoveBackground("mean", p=1.0), RandomBackground(donors, p=1.0), SwapNegative(donors, **ALL)):
        torch.manual_seed(2)
        expected = transform(image, mask)[0]
        torch.manual_seed(2)
        made = transform(tv_tensors.Image(image.float() / 255), tv_tensors.Mask(mask[None] > 127))[0]
        assert made.dtype == torch.float32 and torch.allclose(made * 255, expected.float(), atol=1e-3)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: RemoveBackground("grey"), "fill: 'grey' is none of random_gray, black, mean, noise"),  # type: ignore[arg-type]
        (lambda: RemoveBackground(p=1.5), "p: a probability is between 0 and 1, not 1.5"),
        (lambda: RemoveBackground(min_area=0.9, max_area=0.1), "min_area, max_area: must be 0 <= min_area <= max_area"),
        (lambda: RandomBackground([0], scale=(0.0, 1.0)), r"scale: must be \(low, high\) with 0 < low"),
        (lambda: RemoveBackground()(torch.zeros(3, 4, 4)), r"needs one tv_tensors.Image as input, not 0"),
        (
            lambda: RemoveBackground()(tv_tensors.Image(torch.zeros(3, 4, 4))),
            r"needs one tv_tensors.Mask as input, not",
        ),
        (
            lambda: RemoveBackground(p=1.0)(
                tv_tensors.Image(torch.zeros(2, 3, 4, 4)), tv_tensors.Mask(torch.ones(4, 4))
            ),
            r"image: must be 3 x height x width \(RGB\), not 2 x 3 x 4 x 4",
        ),
        (lambda: RandomBackground([]), "donors: is empty"),
    ],
)
def test_mistakes_are_named(make: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        make()


def test_importing_them_brings_in_little() -> None:
    look = (
        "import sys, bgsweep.augment.torchvision_v2; "
        "print(*set(sys.modules) & {'albumentations', 'ray', 'mlflow', 'bgsweep.training', 'bgsweep.config'})"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
