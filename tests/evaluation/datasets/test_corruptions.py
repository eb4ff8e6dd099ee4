"""ImageNet-C's corruptions against a library that was made of the published code, and against the slow way."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import PIL.Image
import pytest
from skimage.filters import gaussian

from bgsweep.config import Corruptions, Preprocessing, Sets, SuiteConfig
from bgsweep.data import Image, Splits
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.corruption_parts import motion_blurred, shuffled_nearby
from bgsweep.evaluation.datasets.corruptions import CORRUPTIONS, as_published, corrupt
from bgsweep.evaluation.datasets.imagenet import wnids
from bgsweep.evaluation.evaluators.imagenet_c import ALEXNET_ERRORS
from bgsweep.evaluation.registry import run_evaluators
from tests.evaluation.subjects import subject

# The library defines these three anew, and its snow leaves another part of the layer out.
OTHERWISE_IN_THE_LIBRARY = {"frost", "elastic_transform", "snow"}


@pytest.fixture(scope="module")
def picture(splits: Splits) -> Image:
    return np.asarray(cv2.resize(splits.test[7].image, (224, 224), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module")
def frost() -> list[Image]:
    """As large as the published images are at the least, and rough as frost."""
    noise = np.random.default_rng(0)
    return [np.asarray(cv2.blur(noise.integers(0, 256, (300, 400, 3), np.uint8), (5, 5)), np.uint8) for _ in range(5)]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Its numpy.random replaced by a generator of seed 5, so that it draws what ours draws."""
    draws = np.random.default_rng(5)
    if "numba" not in sys.modules:  # it only makes a loop faster there
        monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(njit=lambda: lambda function: function))
    library: ModuleType = pytest.importorskip(
        "imagecorruptions", reason="pip install --no-deps imagecorruptions-imaug"
    ).corruptions
    for name, drawn in {
        "normal": lambda loc=0.0, scale=1.0, size=None: draws.normal(loc, scale, size),
        "uniform": draws.uniform,
        "poisson": draws.poisson,
        "randint": draws.integers,
        "seed": lambda seed: None,
    }.items():
        monkeypatch.setattr(np.random, name, drawn)
    library.draws = draws  # type: ignore[attr-defined]
    yield library


@pytest.mark.parametrize("severity", [1, 2, 4, 5])
@pytest.mark.parametrize("name", sorted(CORRUPTIONS.keys() - OTHERWISE_IN_THE_LIBRARY))
def test_a_corruption_equals_the_librarys(name: str, severity: int, picture: Image, library: ModuleType) -> None:
    arguments = (library.draws,) if name == "impulse_noise" else ()
    theirs = getattr(library, name)(PIL.Image.fromarray(picture), severity, *arguments)
    ours = corrupt(picture, name, severity, np.random.default_rng(5))
    # The library cuts where ImageMagick, which published motion blur was made with, rounds.
    assert np.abs(ours.astype(int) - np.uint8(theirs)).max() <= 1
    assert (ours != picture).any()


@pytest.mark.parametrize(("reach", "rounds"), [(1, 1), (4, 2)])
def test_pixels_change_places_as_in_the_plain_loop(reach: int, rounds: int, picture: Image) -> None:
    small = picture[60:100, 80:130]
    slow, fast = small.copy(), small
    draws, others = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(rounds):
        fast = shuffled_nearby(fast, reach, others)
        for row in range(small.shape[0] - reach, reach, -1):
            for column in range(small.shape[1] - reach, reach, -1):
                right, down = draws.integers(-reach, reach, size=2)
                slow[row, column] = slow[row + down, column + right]
    np.testing.assert_array_equal(fast, slow)
    assert (fast != small).any()


@pytest.mark.parametrize("degrees", [-130.0, -90.0, -37.0, 0.0, 44.0])
def test_motion_blur_equals_adding_up_shifted_images(degrees: float, picture: Image) -> None:
    radius, sigma = 10, 4
    weights = [math.exp(-(step**2) / (2 * sigma**2)) for step in range(2 * radius + 1)]
    grey = picture[..., 0].astype(float)
    rows, columns = np.mgrid[:224, :224]
    slow = np.zeros((224, 224))
    for step, weight in enumerate(weights):
        down = math.ceil(step * math.sin(math.radians(degrees)) - 0.5)
        right = math.ceil(step * math.cos(math.radians(degrees)) - 0.5)
        slow += weight / sum(weights) * grey[(rows + down).clip(0, 223), (columns + right).clip(0, 223)]
    np.testing.assert_allclose(motion_blurred(grey, radius, sigma, degrees), slow, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_elastic_transform_equals_another_interpolation(severity: int, picture: Image) -> None:
    length, sigma, corner = (244 * share for share in CORRUPTIONS["elastic_transform"][severity - 1])
    draws = np.random.default_rng(1)
    points = np.array([[186, 186], [186, 38], [38, 38]], np.float32)
    affine = cv2.getAffineTransform(points, points + draws.uniform(-corner, corner, (3, 2)).astype(np.float32))
    warped = cv2.warpAffine(np.float32(picture / 255), affine, (224, 224), borderMode=cv2.BORDER_REFLECT_101)
    right, down = (
        np.float32(gaussian(draws.uniform(-1, 1, (224, 224)), sigma, mode="reflect", truncate=3) * length)
        for _ in range(2)
    )
    rows, columns = np.mgrid[:224, :224].astype(np.float32)
    slow = 255 * cv2.remap(warped, columns + right, rows + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    ours = corrupt(picture, "elastic_transform", severity, np.random.default_rng(1))
    assert np.abs(ours - slow).mean() < 1.0
    assert np.abs(ours - picture.astype(float)).mean() > 3


def test_frost_is_weighed_with_the_image(picture: Image, frost: list[Image]) -> None:
    draws = np.random.default_rng(2)
    ice = frost[draws.integers(5)]
    top, left = draws.integers(300 - 224), draws.integers(400 - 224)
    slow = np.clip(0.8 * picture + 0.6 * ice[top : top + 224, left : left + 224], 0, 255)
    ours = corrupt(picture, "frost", 2, np.random.default_rng(2), frost)
    assert np.abs(ours - slow).max() < 1.01


def test_snow_falls_brightly_and_greys_the_image(picture: Image, library: ModuleType) -> None:
    theirs = np.uint8(library.snow(PIL.Image.fromarray(picture), 3)).astype(int)
    ours = corrupt(picture, "snow", 3, np.random.default_rng(5)).astype(int)
    assert np.abs(ours - theirs).mean() < 0.2
    assert ours.mean() > picture.mean() + 10


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_and_depends_on_its_seed_alone(
    name: str, picture: Image, frost: list[Image]
) -> None:
    made = [corrupt(picture, name, severity, np.random.default_rng(0), frost) for severity in range(1, 6)]
    assert all(one.shape == picture.shape and one.dtype == np.uint8 for one in made)
    damage = [np.abs(one.astype(float) - picture).mean() for one in made]
    if name not in ("elastic_transform", "frost"):  # one is strongest at 2, as published; one hides rather than moves
        assert damage[0] < damage[4]
    np.testing.assert_array_equal(made[2], corrupt(picture, name, 3, np.random.default_rng(0), frost))


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory, splits: Splits, frost: list[Image]) -> Path:
    place = tmp_path_factory.mktemp("made_c")
    for wnid in wnids():
        (place / "val" / wnid).mkdir(parents=True)
    for number in range(3):
        large = cv2.resize(splits.train[40 * number].image, (300, 260))
        path = place / "val" / wnids()[300 * number] / f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        cv2.imwrite(str(path), large[..., ::-1])
    (place / "frost").mkdir()
    for name, ice in zip(("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"), frost, strict=True):
        cv2.imwrite(str(place / "frost" / name), ice[..., ::-1])
    return place


def examination(place: Path, batch_size: int = 256, threads: int = 4, images: int | None = 2) -> EvalContext:
    sets = Sets(imagenet_val=str(place / "val"), frost=str(place / "frost"))
    file = SuiteConfig(sets=sets, threads=threads, corruptions=Corruptions(images=images))
    file = file.model_copy(update={"evaluate": file.evaluate.model_copy(update={"batch_size": batch_size})})
    return EvalContext(subject(spread=3.0), file, None)


def test_imagenet_c_is_made_of_the_validation_set(validation: Path) -> None:
    (result,) = run_evaluators(examination(validation, 1, 1), ["imagenet_c"])
    (again,) = run_evaluators(examination(validation, 256, 4), ["imagenet_c"])
    assert len(result.values) == 20
    for one, other in zip(result.values, again.values, strict=True):
        assert one.name == other.name and one.hits.tolist() == other.hits.tolist()
        assert len(one.hits) == 2, "five severities of an image are no five images"
    errors = {one.name.partition("/")[2].removesuffix("_top1"): 1 - one.value for one in result.values[:-1]}
    assert errors.keys() == CORRUPTIONS.keys()
    expected = np.mean([errors[name] / alexnet for name, alexnet in ALEXNET_ERRORS.items()])
    assert result.values[-1].name == "imagenet_c_mce" and result.values[-1].value == pytest.approx(expected)
    assert result.protocol["corruptions"] == "19, made on the fly" and result.protocol["images"] == 19 * 5 * 2


def test_what_is_missing_for_making_it_is_said(validation: Path, tmp_path: Path) -> None:
    sets = {"imagenet_val": str(validation / "val"), "frost": str(tmp_path)}
    with pytest.raises(UserError, match=r"frost1\.png is missing; expected there: frost1\.png, frost2"):
        run_evaluators(EvalContext(subject(), SuiteConfig(sets=Sets(**sets)), None), ["imagenet_c"])
    with pytest.raises(UserError, match=r"imagenet_c is not set; download .* or name sets\.frost and sets\.imagenet_v"):
        run_evaluators(EvalContext(subject(), SuiteConfig(), None), ["imagenet_c"])
    small = SuiteConfig(
        sets=Sets(**sets | {"frost": str(validation / "frost")}), preprocessing=Preprocessing(resize=36, crop=32)
    )
    with pytest.raises(UserError, match=r"preprocessing\.crop: corruptions are defined for images of 224 px"):
        run_evaluators(EvalContext(subject(), small, None), ["imagenet_c"])


def test_images_are_stored_as_the_published_ones_are(picture: Image) -> None:
    stored = as_published(picture)
    assert 0 < np.abs(stored.astype(float) - picture).mean() < 6
