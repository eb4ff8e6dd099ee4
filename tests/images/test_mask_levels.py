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
from bgsweep.images.mask_form import MaskForm


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


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def turned(pixels: np.ndarray, mode: str) -> bytes:
    """Stored on its side, with the EXIF orientation that makes it upright."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return saved(PIL.Image.fromarray(np.ascontiguousarray(np.rot90(pixels)), mode), exif=exif)


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
    "fractions in a TIFF": lambda mask: saved(PIL.Image.fromarray(mask.astype(np.float32) / 255), "TIFF"),
    "NumPy, truth values": lambda mask: array(mask > 127),
    "NumPy, 64 bits to 255": lambda mask: array(mask.astype(np.int64)),
    "NumPy, fractions, 1 x height x width": lambda mask: array(mask[None] / 255),
    "grey, turned by its own EXIF": lambda mask: turned(mask, "L"),
    "RGBA, turned by its own EXIF": lambda mask: turned(cutout(mask), "RGBA"),
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
    "2-bit classes": (lambda mask: saved(PIL.Image.fromarray(mask // 255), bits=2), r"foreground is 1;"),
    "16-bit ids": (lambda mask: png(mask.astype(np.uint16) // 255 * 1000), r"levels are 0, 1000, of which none"),
    "16-bit ids, 1 as 8 bits": (lambda mask: png(mask.astype(np.uint16) // 255 * 300), r"levels are 0, 300, of which"),
    "16-bit to 255": (lambda mask: png(mask.astype(np.uint16)), r"16 bits a pixel, but no level above 255"),
    "instances": (lambda mask: png(mask.astype(np.uint16) // 255 * 26_001), r"levels are 0, 26001, of which none"),
    "VOC's palette": (
        lambda mask: palette(mask // 255, [0, 0, 0, 128, 0, 0]),
        r"colours \(such as #800000\), and the palette's indices 0, 1,",
    ),
    "NumPy, 0 and 1": (lambda mask: array((mask // 255).astype(int)), r"foreground is 1;"),
    "NumPy, beyond 1": (lambda mask: array(mask / 100), r"levels from 0 to 2\.55, neither 0 to 1 nor"),
    "colours": (lambda mask: png(np.dstack([mask // 2, mask, mask // 3])), r"colours \(such as #55ff7f\)"),
    "opaque image": (lambda mask: png(cutout(mask | np.uint8(255))), r"has colours"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_say_its_foreground_is_refused_by_name(truth: Mask, kind: str) -> None:
    make, message = WRONG[kind]
    with pytest.raises(
        WrongMask, match=rf"^m\.png: .*{message}.*data\.mask_format\.foreground.*convert them$"
    ) as error:
        read_gray(make(truth), "m.png")
    assert "\n" not in str(error.value)


def ids(mask: Mask, inside: int, around: int = 0) -> Mask:
    """An object of one id, with an outline of another."""
    return np.where(outline(mask), around, mask // 255 * inside).astype(np.uint8)


def voc(mask: Mask) -> bytes:
    """Index 1, dark red, inside 255, cream."""
    colours = [0] * 768
    colours[3:6], colours[765:768] = [128, 0, 0], [224, 224, 192]
    return palette(ids(mask, 1, 255), colours)


def rgb(numbers: np.ndarray) -> bytes:
    return png(np.dstack([numbers >> 16, numbers >> 8 & 255, numbers & 255]).astype(np.uint8))


# What the files hold, the form that reads them, and which pixels are foreground: the object, or that without outline.
FORMS = {
    "0 and 1": (lambda mask: png(mask // 255), MaskForm(foreground=(1,)), "object"),
    "1 bit": (lambda mask: RIGHT["1-bit"](mask), MaskForm(foreground=(1,)), "object"),
    "2 bits": (lambda mask: saved(PIL.Image.fromarray(mask // 255 * 3), bits=2), MaskForm(foreground=(3,)), "object"),
    "palette": (voc, MaskForm(foreground=(1,)), "inner"),
    "palette, all but void": (voc, MaskForm(foreground="nonzero", void=(255,)), "inner"),
    "palette, outline too": (voc, MaskForm(foreground="nonzero"), "with outline"),
    "class 7 in void": (lambda mask: png(ids(mask, 7, 255)), MaskForm(foreground=(7,)), "inner"),
    "Pets' trimap": (lambda mask: png(border(mask)), MaskForm(foreground=(1,)), "inner"),
    "Pets' trimap with border": (lambda mask: png(border(mask)), MaskForm(foreground=(1, 3)), "with outline"),
    "16-bit instances": (
        lambda mask: png(mask.astype(np.uint16) // 255 * 26_001),
        MaskForm(foreground="nonzero"),
        "object",
    ),
    "ImageNet-S": (
        lambda mask: rgb(np.where(outline(mask), 1000, mask // 255 * np.int64(777))),
        MaskForm("rgb_id", "nonzero", (1000,)),
        "inner",
    ),
    "COCO panoptic": (lambda mask: rgb(mask // 255 * np.int64(7_000_123)), MaskForm("rgb_id", (7_000_123,)), "object"),
    "NumPy": (lambda mask: array(mask // 255 * np.int64(300)), MaskForm(foreground=(300,)), "object"),
    "alpha": (lambda mask: png(cutout(mask)), MaskForm("alpha"), "object"),
    "alpha of WebP": (
        lambda mask: saved(PIL.Image.fromarray(cutout(mask), "RGBA"), "WEBP", lossless=True, exact=True),
        MaskForm("alpha"),
        "object",
    ),
    "alpha of a palette": (
        lambda mask: palette(mask // 255, [9, 99, 9, 200, 0, 0], transparency=0),
        MaskForm("alpha"),
        "object",
    ),
    **{
        f"a transparent level of {depth}": (make, MaskForm("alpha"), "object")
        for depth, make in {
            "8 bits": lambda mask: saved(PIL.Image.fromarray(mask // 255 * 150 + 20), transparency=20),
            "1 bit, white": lambda mask: saved(PIL.Image.fromarray(255 - mask).convert("1"), transparency=1),
            "1 bit, black": lambda mask: saved(PIL.Image.fromarray(mask).convert("1"), transparency=0),
            "2 bits": lambda mask: saved(PIL.Image.fromarray(mask // 255 + 1), bits=2, transparency=1),
            "16 bits": lambda mask: saved(PIL.Image.fromarray(mask // 255 + np.uint16(300)), transparency=300),
        }.items()
    },
    "alpha, turned by EXIF": (lambda mask: turned(cutout(mask), "RGBA"), MaskForm("alpha"), "object"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_a_form_says_which_pixels_are_foreground(truth: Mask, kind: str) -> None:
    make, form, expected = FORMS[kind]
    truth = (truth > 127).astype(np.uint8) * np.uint8(255)
    edge = outline(truth)
    wanted = {"object": truth, "inner": np.where(edge, 0, truth), "with outline": truth | edge}[expected]
    np.testing.assert_array_equal(read_gray(make(truth), "m.png", form), wanted)


def test_an_opaque_image_has_an_alpha_channel_that_is_all_foreground(truth: Mask) -> None:
    assert (read_gray(png(cutout(truth | np.uint8(255))), "m.png", MaskForm("alpha")) == 255).all()


UNFIT = {
    "JPEG": (lambda mask: RIGHT["JPEG by another name"](mask), MaskForm(foreground=(1,)), r"does not keep ids"),
    "colours": (lambda mask: png(cutout(mask)[..., :3]), MaskForm(foreground=(1,)), r"has colours, no ids;.*rgb_id"),
    "cut-out": (lambda mask: png(cutout(mask)), MaskForm(foreground=(1,)), r"has transparency beside ids;.*alpha"),
    "fractions": (lambda mask: array(mask / 510), MaskForm(foreground=(1,)), r"holds fractions, no ids"),
    "grey as RGB": (lambda mask: png(mask), MaskForm("rgb_id", (1,)), r"has no three channels"),
    "no alpha": (lambda mask: png(mask), MaskForm("alpha"), r"has no alpha channel"),
    "no alpha in a JPEG": (
        lambda mask: RIGHT["JPEG by another name"](mask),
        MaskForm("alpha"),
        r"has no alpha channel",
    ),
    "a stack": (lambda mask: array(np.stack([mask] * 5)), MaskForm(), r"an array of 5x\d+x\d+, where height x width"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_form_that_does_not_fit_is_told_in_one_line(truth: Mask, kind: str) -> None:
    make, form, message = UNFIT[kind]
    with pytest.raises(WrongMask, match=rf"^m\.png: .*{message}") as error:
        read_gray(make(truth), "m.png", form)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", [MaskForm(), MaskForm(foreground=(1,)), MaskForm("alpha")])
def test_damaged_numpy_files_are_told_in_one_line(truth: Mask, form: MaskForm) -> None:
    for data in (array(truth)[:90], array(np.array([{}], dtype=object)), b"\x93NUMPY"):
        with pytest.raises(UnreadableImage, match=r"^m\.npy: damaged"):
            read_gray(data, "m.npy", form)


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
