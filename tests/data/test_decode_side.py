"""`data.decode_side`: large images and their masks decoded at 1/2, 1/4 or 1/8 of their size."""

import io
from pathlib import Path
from random import Random

import cv2
import numpy as np
import PIL.Image
import pytest

from bgsweep.augment.crop_window import draw_window
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Data, Experiment
from bgsweep.config.views import Background, Views
from bgsweep.data import open_splits
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.data.sample import Image, Mask, Sample
from bgsweep.errors import WrongMask
from bgsweep.images.compositing import Rect
from bgsweep.images.decoding import decode_image, decode_mask, reduced, reduction

HEIGHT, WIDTH = 531, 701  # no multiple of 2


@pytest.fixture(scope="module")
def mosaic() -> tuple[Image, Mask]:
    """A large image and its mask: 63 of the embedded images beside one another."""
    samples = [EmbeddedSample("train")[index] for index in range(0, 960, 15)]
    images = [cv2.resize(sample.image, (80, 80), interpolation=cv2.INTER_AREA) for sample in samples]
    masks = [cv2.resize(sample.mask, (80, 80), interpolation=cv2.INTER_NEAREST) for sample in samples]
    image, mask = (np.vstack([np.hstack(tiles[row : row + 9]) for row in range(0, 63, 9)]) for tiles in (images, masks))
    return image[:HEIGHT, :WIDTH].copy(), mask[:HEIGHT, :WIDTH].copy()


def stored(pixels: Image | Mask, kind: str, orientation: int = 1) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind, exif=exif, quality=95)
    return file.getvalue()


def difference(one: Image, other: Image) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize(
    ("size", "least", "factor"), [(WIDTH, 66, 8), (WIDTH, 67, 4), (WIDTH, 265, 2), (WIDTH, 266, 1)]
)
def test_the_shorter_side_keeps_so_many_pixels(size: int, least: int, factor: int) -> None:
    assert reduction((HEIGHT, size), least) == reduction((size, HEIGHT), least) == factor
    assert reduction((HEIGHT, size), None) == 1


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("cut", [0, 3], ids=["odd", "multiples of 8"])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_pixels_are_means_over_squares_of_the_whole_image(
    mosaic: tuple[Image, Mask], factor: int, cut: int, kind: str, orientation: int
) -> None:
    image = mosaic[0][: HEIGHT - cut, : WIDTH - 5 * (cut > 0)]
    data = stored(image, kind, orientation)
    whole, size = decode_image(data, "x")
    small, same_size = decode_image(data, "x", least_side=HEIGHT // factor - 8 // factor)
    assert size == same_size == whole.shape[:2]
    assert small.shape[:2] == tuple(-(-side // factor) for side in size)
    expected = reduced(whole, factor)
    height, width = size[0] // factor, size[1] // factor
    squares = whole[: height * factor, : width * factor].reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    assert difference(expected[:height, :width], squares.round().astype(np.uint8)) < 0.5
    # A JPEG's are those of its scaled DCT, and moved by a quarter of a pixel they would differ more.
    assert difference(small, expected) < (0.01 if kind == "PNG" else 3)
    moved = np.roll(whole, factor, axis=1)
    assert difference(small, expected) < 0.3 * difference(small, reduced(moved, factor))


def test_damaged_jpegs_are_named(mosaic: tuple[Image, Mask]) -> None:
    data = stored(mosaic[0], "JPEG")
    with pytest.raises(Exception, match=r"^a\.jpg: cannot be read"):
        decode_image(data[: len(data) // 2], "a.jpg", least_side=60)


def test_masks_are_reduced_alike(mosaic: tuple[Image, Mask]) -> None:
    image, mask = mosaic
    _, size = decode_image(stored(image, "JPEG"), "x", least_side=130)
    small = decode_mask(stored(mask, "PNG"), "m", size, "x", least_side=130)
    np.testing.assert_array_equal(small, reduced(mask, 4))
    assert np.mean((reduced(mask, 4) > 127) != (mask[::4, ::4] > 127)) < 0.05
    with pytest.raises(WrongMask, match="a mask must have its image's size"):
        decode_mask(stored(reduced(mask, 4), "PNG"), "m", size, "x", least_side=130)


def test_no_crop_is_smaller_than_its_view() -> None:
    views = Views(size=64, scale=(0.2, 1.0), small_crops=2, small_size=48, small_scale=(0.05, 0.14))
    least, random = views.least_side, Random(0)
    assert least == 248  # 48 / sqrt(0.05 * 3 / 4)
    for width in (least, round(1.5 * least), 3 * least):
        for size, scale in ((64, views.scale), (48, views.small_scale)):
            windows = [draw_window(least, width, scale, views.ratio, random) for _ in range(2000)]
            assert min(min(window.height, window.width) for window in windows) >= size
    assert Views(size=64, scale=(1.0, 1.0), ratio=(1.0, 1.0)).least_side == 74  # for evaluation's centre view


@pytest.fixture(scope="module")
def folder(mosaic: tuple[Image, Mask], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    for number, split in enumerate(("train", "train", "train", "train", "validation", "validation", "test", "test")):
        image, mask = (np.roll(pixels, 91 * number, axis=1) for pixels in mosaic)
        for tree, pixels, kind in (("images", image, "JPEG"), ("masks", mask, "PNG")):
            path = root / tree / split / "ab"[number % 2] / f"{number}.{'jpg' if kind == 'JPEG' else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stored(pixels, kind))
    return root


def train(side: int | None = None, **data: str) -> list[Sample]:
    dataset = open_splits(Data(**data, decode_side=side)).train  # type: ignore[arg-type]
    return [dataset[index] for index in range(len(dataset))]


def test_views_show_what_they_show_of_the_whole_image(folder: Path) -> None:
    """A window shows the same place of both images, and the same draws give the same window but for rounding.

    A window that only just fits into one of the two may not fit into the other, and is then drawn again.
    """
    given = {"images": str(folder / "images"), "masks": str(folder / "masks")}
    views = Views(size=48, flip=0.0, jitter_p=0.0, gray=0.0, blur=0.0, interpolation="area")
    pipeline = ViewPipeline(views, Background())
    wholes, smalls = train(**given), train(views.least_side, **given)
    factor = reduction((HEIGHT, WIDTH), views.least_side)
    assert factor == 4 and smalls[0].image.shape == (133, 176, 3)
    apart = []
    for whole, small in zip(wholes, smalls, strict=True):
        for key in range(40):
            sizes = whole.image.shape[:2], small.image.shape[:2]
            window, own = (draw_window(*size, views.scale, views.ratio, drawn(key)) for size in sizes)
            apart.append(np.abs(np.array(window) - factor * np.array(own)).max())
            shown = Rect(*(factor * edge for edge in own)).of(whole.image)
            expected = cv2.resize(shown, (48, 48), interpolation=cv2.INTER_AREA)
            view = pipeline.make(small, no_donor, key, 0).image
            # Half of what a pixel to the side would make.
            assert difference(view, expected) < 0.5 * difference(np.roll(view, 1, axis=1), expected)
    assert np.mean(np.array(apart) <= 2 * factor) > 0.95


def no_donor() -> Sample:
    raise AssertionError("no background augmentation is drawn")


def drawn(key: int) -> Random:
    """The generator of a view, after the draws for its background."""
    random = Random(key)
    random.random(), random.random()
    return random


def test_folders_and_packs_give_the_same(folder: Path) -> None:
    make_pack(str(folder / "images"), str(folder / "masks"), str(folder / "packed"))
    side = 130
    folders = train(side, images=str(folder / "images"), masks=str(folder / "masks"))
    packed = train(side, pack=str(folder / "packed"))
    for one, other in zip(folders, packed, strict=True):
        assert one.mask is not None and other.mask is not None
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)
        assert one.background_rect == other.background_rect is not None
        assert not (other.background_rect.of(other.mask) > 127).any()


def test_the_key_is_part_of_the_run(folder: Path) -> None:
    given = {"data": {"images": str(folder / "images")}, "views": {"size": 48}}
    plain = Experiment.model_validate(given)
    other = plain.with_values({"data.decode_side": 200})
    assert plain.digest == plain.with_values({"data.decode_side": None}).digest != other.digest
    with pytest.raises(
        ValueError, match=r"data\.decode_side: 123 px would leave crops smaller .*; set it to 124 or more"
    ):
        plain.with_values({"data.decode_side": 123})
    with pytest.raises(ValueError, match=r"decode_side: resize sets the size .*; leave one of the two out"):
        plain.with_values({"data.decode_side": 200, "data.resize": 64})
