import io
import pickle
from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np
import pytest

from bgsweep.augment import background
from bgsweep.augment.transforms import RandomBackground, RemoveBackground
from bgsweep.data.sample import Sample
from bgsweep.images import compositing
from bgsweep.images.compositing import Image, Mask

TRANSFORMS = [
    RemoveBackground(fill="noise", min_area=0.1, p=0.9),
    RandomBackground(donor="plain", scale=(0.3, 0.9), max_area=0.8, metadata_key="others", p=0.4),
]


def inputs(sample: Sample, *donors: Sample) -> dict[str, Any]:
    return {
        "image": sample.image,
        "mask": sample.mask,
        "donor": [{"image": donor.image, "mask": donor.mask} for donor in donors],
    }


def background_of(image: Image, sample: Sample) -> Image:
    """The pixels outside the foreground, after checking that those inside are the sample's."""
    foreground = sample.mask > 127
    assert np.array_equal(image[foreground], sample.image[foreground])
    return image[~foreground]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_serialisation_keeps_every_argument(transform: A.BasicTransform) -> None:
    pipeline = A.Compose([A.RandomResizedCrop((32, 32)), transform])
    assert A.from_dict(A.to_dict(pipeline)).to_dict() == pipeline.to_dict()
    for data_format in ("yaml", "json"):
        buffer = io.StringIO()
        A.save(pipeline, buffer, data_format=data_format)
        buffer.seek(0)
        assert A.load(buffer, data_format=data_format).to_dict() == pipeline.to_dict()


def test_a_seed_decides_everything(samples: list[Sample]) -> None:
    def images(seed: int) -> list[bytes]:
        transforms = [RemoveBackground(p=0.5), RandomBackground(p=0.5), RemoveBackground("noise", p=0.2)]
        pipeline = A.Compose(transforms, seed=seed)
        return [pipeline(**inputs(sample, *samples[:3]))["image"].tobytes() for sample in samples * 2]

    assert images(3) == images(3)
    assert images(3) != images(4)


@pytest.mark.parametrize(
    "transform", [RemoveBackground(p=1), RemoveBackground("noise", p=1), RandomBackground(p=1)], ids=repr
)
@pytest.mark.filterwarnings("ignore:.*could work incorrectly in ReplayMode")
def test_replay_is_exact_and_its_record_small(samples: list[Sample], transform: A.BasicTransform) -> None:
    data = inputs(samples[0], *samples[1:4])
    result = A.ReplayCompose([transform])(**data)
    again = A.ReplayCompose.replay(result["replay"], **data)
    assert np.array_equal(again["image"], result["image"])
    assert len(pickle.dumps(result["replay"])) < 2000


def test_removal_fills(samples: list[Sample]) -> None:
    sample = samples[0]
    fills: dict[str, list[Image]] = {"random_gray": [], "black": [], "mean": [], "noise": []}
    for fill, backgrounds in fills.items():
        pipeline = A.Compose([RemoveBackground(fill, p=1)], seed=0)
        backgrounds.extend(background_of(pipeline(**inputs(sample))["image"], sample) for _ in range(60))
    assert not np.any(fills["black"])
    assert (fills["mean"] == sample.image.mean((0, 1)).round()).all()
    grays = np.array(fills["random_gray"])
    assert (grays == grays[:, :1, :1]).all()
    assert grays.min() < 30 and grays.max() > 225 and 90 < grays[:, 0, 0].mean() < 165
    noise = np.array(fills["noise"])
    assert abs(noise.mean() - 127.5) < 1 and abs(noise.std() - 255 / 12**0.5) < 1
    assert len(np.unique(noise[:, 0], axis=0)) > 50


def test_tiled_background_is_a_window_of_the_tiled_plane(samples: list[Sample]) -> None:
    sample, donor = samples[0], samples[4]
    rect = compositing.largest_background_rectangle(donor.mask)
    assert rect is not None
    plane = np.tile(rect.of(donor.image), (8, 8, 1))
    height, width = sample.image.shape[:2]
    phases = set()
    pipeline = A.Compose([RandomBackground(p=1)], seed=1)
    for _ in range(20):
        result = pipeline(**inputs(sample, donor))
        _, _, down, right = pipeline.transforms[0].params["donor_draw"]
        top, left = int(down * rect.height), int(right * rect.width)
        window = plane[top : top + height, left : left + width]
        assert np.array_equal(result["image"], compositing.paste(sample.image, sample.mask, window))
        assert np.array_equal(result["mask"], sample.mask)
        phases.add((top, left))
    assert len(phases) > 15


def test_plain_background_shows_the_whole_donor(samples: list[Sample]) -> None:
    sample, donor = samples[0], samples[1]
    donor = Sample(donor.id, np.resize(donor.image, (*sample.image.shape[:2], 3)), 0)
    pipeline = A.Compose([RandomBackground("plain", scale=(1.0, 1.0), p=1)])
    result = pipeline(image=sample.image, mask=sample.mask, donor={"image": donor.image})["image"]
    assert np.array_equal(result, compositing.paste(sample.image, sample.mask, donor.image))


def test_an_inpainted_background_shows_nothing_of_the_donors_foreground(samples: list[Sample]) -> None:
    def shown(sample: Sample, donor: background.Donor) -> Image:
        pipeline = A.Compose([RandomBackground("inpainted", max_area=1, p=1)], seed=0)
        return pipeline(image=sample.image, mask=sample.mask, donor=donor)["image"]

    for sample, donor in zip(samples, [*samples[1:], samples[0]], strict=True):
        noise = np.random.default_rng(0).integers(0, 256, donor.image.shape, np.uint8)
        repainted = np.where(donor.mask[..., None] > 127, noise, donor.image)
        seen = [shown(sample, {"image": image, "mask": donor.mask}) for image in (donor.image, repainted)]
        assert np.array_equal(*seen)


def test_plain_windows_lie_within_donors_of_any_shape(samples: list[Sample]) -> None:
    sample = samples[0]
    pipeline = A.Compose([RandomBackground("plain", scale=(0.01, 1.0), p=1)], seed=2)
    for shape in ((3, 400), (400, 3), (1, 1), (90, 91)):
        ramp = np.linspace(10, 240, shape[0] * shape[1] * 3).astype(np.uint8).reshape(*shape, 3)
        for _ in range(30):
            result = pipeline(image=sample.image, mask=sample.mask, donor={"image": ramp})["image"]
            assert background_of(result, sample).min() >= 10


def test_donors_are_drawn_evenly_and_may_come_from_a_function(samples: list[Sample]) -> None:
    donors = [{"image": np.full((40, 40, 3), level, np.uint8)} for level in (0, 100, 200)]
    pipeline = A.Compose([RandomBackground("plain", p=1)], seed=0)
    image, mask = samples[0].image, samples[0].mask
    results = [pipeline(image=image, mask=mask, donor=lambda: donors)["image"] for _ in range(90)]
    levels = [background_of(result, samples[0])[0, 0] for result in results]
    assert all(20 <= levels.count(level) <= 40 for level in (0, 100, 200))


def test_a_donor_without_background_is_shown_plain(samples: list[Sample]) -> None:
    donor = {"image": np.full((50, 50, 3), 77, np.uint8), "mask": np.full((50, 50), 255, np.uint8)}
    result = A.Compose([RandomBackground(p=1)])(image=samples[0].image, mask=samples[0].mask, donor=donor)["image"]
    assert (background_of(result, samples[0]) == 77).all()


@pytest.mark.parametrize("transform", [RemoveBackground, RandomBackground])
def test_area_bounds_keep_the_background(samples: list[Sample], transform: type[A.BasicTransform]) -> None:
    area = compositing.foreground_area(samples[0].mask)
    done = "removed" if transform is RemoveBackground else "replaced"
    bounds = {
        "kept_small": {"min_area": area + 0.01},
        "kept_large": {"max_area": area - 0.01},
        done: {"min_area": area - 0.001, "max_area": area + 0.001},
    }
    for outcome, bound in bounds.items():
        pipeline = A.Compose([transform(p=1, **bound)], seed=0)
        result = pipeline(**inputs(samples[0], samples[1]))["image"]
        assert np.array_equal(result, samples[0].image) == (outcome != done)
        assert pipeline.transforms[0].params["applied"] == outcome


def test_works_in_a_usual_pipeline(samples: list[Sample]) -> None:
    ours = [RemoveBackground(p=0.5), RandomBackground(p=0.5)]
    pipeline = A.Compose([A.RandomResizedCrop((64, 48)), *ours, A.ColorJitter(), A.Normalize()], strict=True, seed=0)
    for sample in samples:
        result = pipeline(**inputs(sample, samples[0]))
        assert result["image"].shape == (64, 48, 3) and result["image"].dtype == np.float32
        assert result["mask"].shape == (64, 48)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RemoveBackground("grey"),
        lambda: RemoveBackground(p=1.5),
        lambda: RemoveBackground(min_area=0.9, max_area=0.1),
        lambda: RandomBackground("tile"),
        lambda: RandomBackground(scale=(0.0, 1.0)),
        lambda: RandomBackground(scale=(0.9, 0.1)),
    ],
)
def test_wrong_arguments_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="validation error"):
        make()


def test_missing_inputs_are_named(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="mask"):
        A.Compose([RemoveBackground(p=1)])(image=samples[0].image)
    with pytest.raises(ValueError, match="donor"):
        A.Compose([RandomBackground(p=1)])(image=samples[0].image, mask=samples[0].mask)
    with pytest.raises(ValueError, match="donor: has no `mask`"):
        donor = {"image": samples[1].image}
        A.Compose([RandomBackground(p=1)])(image=samples[0].image, mask=samples[0].mask, donor=donor)


MASKS: dict[str, Callable[[Mask], Any]] = {
    "0 and 1": lambda mask: mask // 255,
    "bool": lambda mask: mask > 127,
    "int64 0 and 255": lambda mask: mask.astype(np.int64),
    "int32 0 and 1": lambda mask: mask.astype(np.int32) // 255,
    "uint16 0 and 255": lambda mask: mask.astype(np.uint16),
    "float32 0 to 1": lambda mask: mask.astype(np.float32) / 255,
    "float64 0 to 255": lambda mask: mask.astype(np.float64),
    "height x width x 1": lambda mask: mask[..., None],
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    "transform",
    [*(RemoveBackground(fill, p=1) for fill in ("random_gray", "black", "mean", "noise"))]
    + [RandomBackground(donor, p=1) for donor in ("tiled", "inpainted", "plain")],
    ids=lambda transform: f"{type(transform).__name__}-{getattr(transform, 'fill', None) or transform.donor}",
)
def test_every_kind_of_mask_and_image_gives_the_same_view(
    samples: list[Sample], transform: A.BasicTransform, dtype: type, kind: str
) -> None:
    sample, donor = samples[:2]
    mask, donor_mask = (np.where(one.mask > 127, 255, 0).astype(np.uint8) for one in (sample, donor))
    expected = A.Compose([transform], seed=5)(
        image=sample.image, mask=mask, donor={"image": donor.image, "mask": donor_mask}
    )["image"]
    assert (expected != sample.image).any()
    scale = 1 if dtype is np.uint8 else np.float32(255)
    convert = MASKS[kind]
    made = A.Compose([transform], seed=5)(
        **{
            "image": (sample.image / scale).astype(dtype),
            "mask": convert(mask),
            "donor": {"image": (donor.image / scale).astype(dtype), "mask": convert(donor_mask)},
        }
    )["image"]
    assert made.dtype == dtype
    np.testing.assert_allclose(made.astype(np.float64) * scale, expected, atol=1e-3)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no donor": ({"donor": None}, r"donor: must be a dictionary with `image` and `mask`.* not None"),
    "no donors": ({"donor": []}, r"donor: an empty list"),
    "donor is an array": ({"donor": np.zeros((9, 9, 3), np.uint8)}, r"donor: .* not an array of uint8"),
    "donor without mask": ({"donor": {"image": np.zeros((9, 9, 3), np.uint8)}}, r"donor: has no `mask`"),
    "donor without image": ({"donor": {"mask": np.zeros((9, 9), np.uint8)}}, r"donor: .* not a dictionary of mask"),
    "donor's mask of another size": (
        {"donor": {"image": np.zeros((9, 9, 3), np.uint8), "mask": np.zeros((8, 9), np.uint8)}},
        r"donor's mask: is 8 x 9, but its image 9 x 9",
    ),
    "mask of three channels": ({"mask": np.zeros((40, 60, 3), np.uint8)}, r"mask: must be height x width, not 40 x 60"),
    "negative mask": ({"mask": np.full((40, 60), -1)}, r"mask: masks are of 0 and 1 or of 0 to 255, not of -1 to -1"),
    "mask of NaN": ({"mask": np.full((40, 60), np.nan)}, r"mask: masks are of 0 and 1 or of 0 to 255, not of nan"),
    "16-bit mask": ({"mask": np.full((40, 60), 65535, np.uint16)}, r"mask: .* not of 65535 to 65535"),
    "grey image": ({"image": np.zeros((40, 60), np.uint8)}, r"image: must be height x width x 3"),
    "normalised image": ({"image": np.full((40, 60, 3), -2, np.float32)}, r"image: float images .* before Normalize"),
    "float64 image": ({"image": np.zeros((40, 60, 3))}, r"image: .* not an array of float64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_composited_is_refused_by_name(case: str) -> None:
    changed, message = REFUSED[case]
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    image = np.zeros((40, 60, 3), np.uint8)
    given = {"image": image, "mask": mask, "donor": {"image": image, "mask": mask}} | changed
    with pytest.raises((TypeError, ValueError), match=message):
        A.Compose([RandomBackground(p=1)])(**given)


def test_a_mask_of_classes_is_warned_of() -> None:
    mask = np.tile(np.arange(4, dtype=np.uint8), (40, 10))
    with pytest.warns(UserWarning, match="mask: has no level above 3, so that nothing is foreground"):
        A.Compose([RemoveBackground(p=1)])(image=np.zeros((40, 40, 3), np.uint8), mask=mask)
