"""Masks of every kind: read as what they mean, or refused; never read as something else."""

import io
import zipfile

import cv2
import numpy as np
import PIL.Image
import pytest

from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.data.sample import Mask
from bgsweep.errors import UnreadableImage, WrongMask
from bgsweep.images.decoding import read_gray


@pytest.fixture(scope="module")
def truth() -> Mask:
    """A real mask, 0 and 255."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        data = archive.read(next(name for name in archive.namelist() if name.startswith("masks/train/dress")))
    return read_gray(data, "x")


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def saved(image: PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette(indices: Mask, colours: list[int], **options: object) -> bytes:
    image = PIL.Image.fromarray(indices)
    image.putpalette(colours)
    return saved(image, **options)


def outline(mask: Mask) -> Mask:
    return cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))


def trimap(mask: Mask) -> Mask:
    """128 within four pixels of the mask's edge."""
    wide = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8))
    return np.where(wide, 128, mask).astype(np.uint8)


def border(mask: Mask) -> Mask:
    """As of Oxford-IIIT Pets: 1 object, 2 background, 3 between them."""
    return np.where(outline(mask), 3, 2 - mask // 255).astype(np.uint8)


def classes(mask: Mask) -> Mask:
    """The object is of class 150, stripes behind it of classes 0, 9, 18."""
    return np.where(mask, 150, np.indices(mask.shape)[0] // 20 * 9).astype(np.uint8)


def cutout(mask: Mask) -> Mask:
    noise = np.random.default_rng(0).integers(0, 255, (*mask.shape, 3), np.uint8)
    return np.dstack([noise, mask])


RIGHT = {
    "8-bit grey": lambda mask: png(mask),
    "1-bit": lambda mask: saved(PIL.Image.fromarray(mask).convert("1")),
    "2-bit": lambda mask: saved(PIL.Image.fromarray(mask).convert("1").convert("L"), bits=2),
    "16-bit to 65535": lambda mask: png(mask.astype(np.uint16) * 257),
    "RGB black and white": lambda mask: png(cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR)),
    "RGBA cut-out": lambda mask: png(cutout(mask)),
    "RGBA, opaque black and white": lambda mask: png(
        np.dstack([cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR), mask | np.uint8(255)])
    ),
    "grey with alpha": lambda mask: saved(
        PIL.Image.merge("LA", [PIL.Image.fromarray(mask | np.uint8(90)), PIL.Image.fromarray(mask)])
    ),
    "16-bit RGBA cut-out": lambda mask: png(cutout(mask).astype(np.uint16) * 257),
    "palette of black and white": lambda mask: palette(mask // 255, [0, 0, 0, 255, 255, 255]),
    "palette of white and black": lambda mask: palette(1 - mask // 255, [255, 255, 255, 0, 0, 0]),
    "palette with a transparent entry": lambda mask: palette(mask // 255, [9, 99, 9, 200, 0, 0], transparency=0),
    "one level of foreground": lambda mask: png(mask // 255 * 200),
    "JPEG by another name": lambda mask: saved(PIL.Image.fromarray(mask), "JPEG", quality=95),
    "TIFF by another name": lambda mask: saved(PIL.Image.fromarray(mask), "TIFF"),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_what_can_be_read_in_one_way_is_read_so(truth: Mask, kind: str) -> None:
    mask = read_gray(RIGHT[kind](truth), "m.png")
    assert mask.dtype == np.uint8
    assert np.mean((mask > 127) != (truth > 127)) < (0.01 if "JPEG" in kind else 1e-9)


@pytest.mark.parametrize("levels", [16, 32, 256])
def test_soft_masks_are_read_as_they_are(truth: Mask, levels: int) -> None:
    soft = cv2.GaussianBlur(truth, (0, 0), 6)
    soft = (np.round(soft / 255 * (levels - 1)) * (255 / (levels - 1))).astype(np.uint8)
    np.testing.assert_array_equal(read_gray(png(soft), "m.png"), soft)


@pytest.mark.parametrize("side", [16, 40, 300])
def test_resized_masks_are_read_as_they_are(truth: Mask, side: int) -> None:
    resized = cv2.resize(truth, (side, side), interpolation=cv2.INTER_AREA if side < 50 else cv2.INTER_LINEAR)
    np.testing.assert_array_equal(read_gray(png(resized), "m.png"), resized)


@pytest.mark.parametrize("level", [0, 255])
def test_empty_and_full_masks_are_masks(level: int) -> None:
    assert (read_gray(png(np.full((30, 40), level, np.uint8)), "m.png") == level).all()


def test_specks_between_black_and_white_are_no_classes(truth: Mask) -> None:
    """A pixel or two, such as of an edge that was shrunk."""
    specks = truth.copy()
    specks[1, 1], specks[2, 3] = 100, 7
    np.testing.assert_array_equal(read_gray(png(specks), "m.png"), specks)


WRONG = {
    "0 and 1": (lambda mask: png(mask // 255), r"foreground is 1;"),
    "parts 0 to 3": (lambda mask: png(mask // 255 + outline(mask) // 255 * 2), r"levels are 0, 1, 2, 3, of which none"),
    "class with void": (lambda mask: png(np.maximum(mask // 255 * 7, outline(mask))), r"levels are 0, 7, 255 in flat"),
    "one class": (lambda mask: png(mask // 255 * 17), r"levels are 0, 17, of which none is foreground"),
    "trimap": (lambda mask: png(trimap(mask)), r"0, 128, 255 in flat"),
    "trimap 1, 2, 3": (lambda mask: png(border(mask)), r"levels are 1, 2, 3"),
    "classes of ADE": (lambda mask: png(classes(mask)), r"in flat areas"),
    "2-bit classes": (lambda mask: saved(PIL.Image.fromarray(mask // 255), bits=2), r"foreground"),
    "16-bit to 255": (lambda mask: png(mask.astype(np.uint16)), r"16 bits a pixel, but no level above 255"),
    "instances": (lambda mask: png(mask.astype(np.uint16) // 255 * 26_001), r"none is foreground"),
    "VOC's palette": (lambda mask: palette(mask // 255, [0, 0, 0, 128, 0, 0]), r"colours \(such as #800000\)"),
    "colours": (lambda mask: png(np.dstack([mask // 2, mask, mask // 3])), r"colours \(such as #55ff7f\)"),
    "opaque image": (lambda mask: png(cutout(mask | np.uint8(255))), r"has colours"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_say_its_foreground_is_refused_by_name(truth: Mask, kind: str) -> None:
    make, message = WRONG[kind]
    with pytest.raises(WrongMask, match=rf"^m\.png: .*{message}.*; convert them$") as error:
        read_gray(make(truth), "m.png")
    assert "\n" not in str(error.value)


def test_damage_is_found_without_a_word_of_the_decoders(truth: Mask, capfd: pytest.CaptureFixture[str]) -> None:
    whole = png(truth)
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        data[int(rng.integers(8, len(data) - 12))] ^= int(rng.integers(1, 255))
        with pytest.raises(UnreadableImage, match=r"^m\.png: damaged"):
            read_gray(bytes(data), "m.png")
        with pytest.raises(UnreadableImage, match=r"^m\.png: damaged"):
            read_gray(whole[: int(rng.integers(0, len(whole) - 1))], "m.png")
    assert capfd.readouterr() == ("", "")
