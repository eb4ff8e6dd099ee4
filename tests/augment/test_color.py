from itertools import permutations

import albumentations as A
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image, ImageOps
from torchvision.transforms import GaussianBlur as TorchvisionBlur

from bgsweep.augment import color_batched
from bgsweep.augment.color import HUE, NEUTRAL, ColorDraw, kernel_of, render
from bgsweep.augment.training_transforms import Photometric
from bgsweep.data.sample import Sample

ORDERS = list(permutations(range(4)))
PLAIN = ColorDraw((0, 1, 2, 3), NEUTRAL, gray=False, sigma=0.0, solarize=False)


def pictures(samples: list[Sample]) -> list[np.ndarray]:
    return [np.ascontiguousarray(sample.image[:64, :48]) for sample in samples]


def drawn(count: int, seed: int = 0, **settings: object) -> list[ColorDraw]:
    transform = Photometric(**settings)
    transform.set_random_seed(seed)
    return [transform.draw() for _ in range(count)]


def reference(image: np.ndarray, photometry: ColorDraw) -> np.ndarray:
    """torchvision's operations one after the other, on floats, with its clipping after each; 0 to 255."""
    picture = torch.from_numpy(image).permute(2, 0, 1).double() / 255
    adjust = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
    for operation in photometry.order:
        picture = adjust[operation](picture, photometry.factors[operation])
    if photometry.gray:
        picture = tv.rgb_to_grayscale(picture, 3)
    if photometry.sigma:
        picture = tv.gaussian_blur(picture, 23, photometry.sigma)
    return (255 * picture).permute(1, 2, 0).numpy()


def errors(samples: list[Sample], color: str, **settings: object) -> np.ndarray:
    jobs = zip(pictures(samples) * 6, drawn(6 * len(samples), **settings), strict=True)
    return np.concatenate([np.abs(render(image, each, color) - reference(image, each)).ravel() for image, each in jobs])


def test_exact_jitter_is_torchvision_s() -> None:
    """Colours that meet every case: random ones, greys, and those at the edges, under every order of operations."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (16, 48, 3), dtype=np.uint8)
    image[:4] = generator.choice([0, 1, 127, 128, 254, 255], (4, 48, 3))
    image[4:6] = image[4:6, :, :1]
    for order in ORDERS:
        for factors in generator.uniform(0.4, 1.6, (4, 3)):
            photometry = PLAIN._replace(order=order, factors=(*factors, 0.0))
            assert np.abs(render(image, photometry, "exact") - reference(image, photometry)).max() <= 2.1
            photometry = PLAIN._replace(order=order, factors=(*factors, generator.uniform(-0.5, 0.5)))
            assert np.abs(render(image, photometry, "exact") - reference(image, photometry)).mean() < 2.0


def test_exact_errors_are_those_of_eight_bits(samples: list[Sample]) -> None:
    moco = errors(samples, "exact")
    assert moco.mean() < 0.5 and np.quantile(moco, 0.999) < 8
    without_hue = errors(samples, "exact", jitter=(0.4, 0.4, 0.4, 0.0), blur=0.0)
    assert without_hue.mean() < 0.35 and without_hue.max() < 2.5


def test_fast_errors_are_mostly_the_hue_s(samples: list[Sample]) -> None:
    """The documented approximation: on images a few grey levels with MoCo-v2's hue, about one without."""
    moco = errors(samples, "fast")
    without_hue = errors(samples, "fast", jitter=(0.4, 0.4, 0.4, 0.0))
    assert 1.0 < moco.mean() < 5.0
    assert without_hue.mean() < 2.0


def test_fast_hue_is_nearer_than_none_and_exact_at_thirds(samples: list[Sample]) -> None:
    for hue in (0.05, 0.1, -0.1):
        turned = PLAIN._replace(factors=(1.0, 1.0, 1.0, hue))
        for image in pictures(samples):
            truth = reference(image, turned)
            assert np.abs(render(image, turned, "fast") - truth).mean() < np.abs(image - truth).mean()
    third = PLAIN._replace(factors=(1.0, 1.0, 1.0, 1 / 3))
    image = pictures(samples)[0]
    assert np.array_equal(render(image, third, "fast"), np.roll(image, 1, axis=2))


@pytest.mark.parametrize("sigma", [0.1, 0.28, 0.5, 0.8, 1.0, 1.37, 2.0, 3.0])
def test_blur_is_the_whole_gaussian_s(samples: list[Sample], sigma: float) -> None:
    whole = TorchvisionBlur(23, (sigma, sigma))
    for color, mean, worst in (("exact", 0.3, 1.5), ("fast", 1.0, 10.0)):
        for image in pictures(samples)[:5]:
            expected = whole(torch.from_numpy(image).permute(2, 0, 1).float()).permute(1, 2, 0).numpy()
            error = np.abs(render(image, PLAIN._replace(sigma=sigma), color) - expected)
            assert error.mean() < mean and error.max() < worst
        assert kernel_of(sigma, color).sum() == pytest.approx(1, abs=1e-6)
    assert kernel_of(0.1, "exact").tolist() == [1.0]


def test_gray_and_solarize_are_pillow_s(samples: list[Sample]) -> None:
    for image in pictures(samples):
        gray = render(image, PLAIN._replace(gray=True), "exact")
        assert np.abs(gray - np.array(Image.fromarray(image).convert("L"))[..., None].astype(int)).max() <= 1
        solarized = render(image, PLAIN._replace(solarize=True), "exact")
        assert np.array_equal(solarized, np.array(ImageOps.solarize(Image.fromarray(image), 128)))


@pytest.mark.parametrize("color", ["exact", "fast"])
def test_nothing_drawn_changes_nothing_and_owns_its_memory(samples: list[Sample], color: str) -> None:
    image = samples[0].image
    for photometry in (PLAIN, PLAIN._replace(sigma=0.05)):
        made = render(image, photometry, color)
        assert np.array_equal(made, image) and not np.shares_memory(made, image)


def test_draws_have_the_distribution_asked_for() -> None:
    many = drawn(
        4000, jitter=(0.4, 0.2, 1.5, 0.1), jitter_p=0.7, gray=0.2, blur=0.4, blur_sigma=(0.5, 1.5), solarize=0.1
    )
    jittered = [each for each in many if each.factors != NEUTRAL]
    factors = np.array([each.factors for each in jittered])
    sigmas = np.array([each.sigma for each in many if each.sigma])
    shares = [len(jittered), sum(each.gray for each in many), len(sigmas), sum(each.solarize for each in many)]
    assert [share / len(many) for share in shares] == pytest.approx([0.7, 0.2, 0.4, 0.1], abs=0.03)
    assert factors.min(0) == pytest.approx([0.6, 0.8, 0.0, -0.1], abs=0.01)
    assert factors.max(0) == pytest.approx([1.4, 1.2, 2.5, 0.1], abs=0.01)
    assert factors.mean(0) == pytest.approx([1.0, 1.0, 1.25, 0.0], abs=0.05)
    assert (sigmas.min(), sigmas.max(), sigmas.mean()) == pytest.approx((0.5, 1.5, 1.0), abs=0.03)
    orders = [sum(each.order == order for each in many) / len(many) for order in ORDERS]
    assert orders == pytest.approx([1 / 24] * 24, abs=0.015)


def test_a_probability_moves_no_other_draw() -> None:
    for one, other in zip(drawn(50, jitter_p=1.0), drawn(50, jitter_p=0.0, blur=1.0), strict=True):
        assert one.order == other.order and one.gray == other.gray and one.sigma in (0.0, other.sigma)


def test_transform_is_serialisable_and_replayable(samples: list[Sample]) -> None:
    compose = A.ReplayCompose([Photometric(solarize=0.5, color="fast")])
    rebuilt = A.from_dict(A.to_dict(A.Compose([Photometric(solarize=0.5, color="fast")])))
    assert (rebuilt.transforms[0].solarize, rebuilt.transforms[0].color) == (0.5, "fast")
    compose.set_random_seed(3)
    for _ in range(5):
        made = compose(image=samples[0].image)
        again = A.ReplayCompose.replay(made["replay"], image=samples[0].image)
        assert np.array_equal(made["image"], again["image"])


@pytest.mark.parametrize("color", ["exact", "fast"])
def test_device_renders_what_the_cpu_does(samples: list[Sample], color: str) -> None:
    images = pictures(samples) * 20
    many = drawn(len(images), jitter=(0.8, 0.8, 0.8, 0.2), blur=0.6, solarize=0.2)
    rows = torch.tensor([each.row() for each in many])
    made = color_batched.render(torch.from_numpy(np.stack(images)), rows, color).numpy()
    expected = np.stack([render(image, each, color) for image, each in zip(images, many, strict=True)])
    difference = np.abs(made.astype(int) - expected)
    # A value that one rounds to 127 and the other to 128 is inverted by one of them, to nearly the same.
    assert difference.mean() < 0.5
    straight = np.array([each.factors[HUE] == 0 or color == "fast" for each in many])
    assert difference[straight].max() <= 2
    assert np.quantile(difference, 0.999) <= 8


def test_device_leaves_its_input_alone_and_takes_an_empty_batch(samples: list[Sample]) -> None:
    images = torch.from_numpy(np.stack(pictures(samples)))
    before = images.clone()
    rows = torch.tensor([each.row() for each in drawn(len(images), jitter_p=1.0, gray=0.5, blur=0.5, solarize=0.5)])
    for color in ("exact", "fast"):
        color_batched.render(images, rows, color)
        assert torch.equal(images, before)
        assert color_batched.render(images[:0], rows[:0], color).shape == (0, 64, 48, 3)
    neutral = torch.tensor([PLAIN.row()] * len(images))
    assert torch.equal(color_batched.render(images, neutral, "exact"), before)


@pytest.mark.parametrize("operation", range(4))
def test_reference_tells_wrong_factors(samples: list[Sample], operation: int) -> None:
    """Guards the tests above: a factor that is off by a tenth is found."""
    factors = [1.2, 1.2, 1.2, 0.1]
    wrong = [*factors[:operation], factors[operation] + 0.1, *factors[operation + 1 :]]
    image = pictures(samples)[0]
    off = render(image, PLAIN._replace(factors=tuple(wrong)), "exact")
    truth = reference(image, PLAIN._replace(factors=tuple(factors)))
    assert np.abs(off - truth).mean() > 1.5
