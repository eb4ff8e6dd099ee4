import io
import zipfile

import cv2
import numpy as np
import PIL.Image
import pytest

from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.data.sample import Image
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.decoding import centre_view, cover, decode_image, decode_mask, upright_mask, upright_size


@pytest.fixture(scope="module")
def jpeg_bytes() -> bytes:
    with zipfile.ZipFile(ARCHIVE) as archive:
        return archive.read(next(name for name in archive.namelist() if name.startswith("images/train/dress")))


@pytest.fixture(scope="module")
def pixels(jpeg_bytes: bytes) -> Image:
    return np.array(PIL.Image.open(io.BytesIO(jpeg_bytes)))


def encoded(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_jpeg_decodes_as_pillow_decodes_it(jpeg_bytes: bytes, pixels: Image) -> None:
    image, size = decode_image(jpeg_bytes, "x")
    np.testing.assert_array_equal(image, pixels)
    assert size == pixels.shape[:2]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_png_of_any_mode_becomes_rgb(pixels: Image, mode: str) -> None:
    picture = PIL.Image.fromarray(pixels).convert(mode)
    image, _ = decode_image(encoded(picture, "PNG"), "x")
    np.testing.assert_array_equal(image, np.array(picture.convert("RGB")))


def test_sixteen_bits_are_cut_to_eight(pixels: Image) -> None:
    gray = pixels[..., 0].astype(np.uint16) * 257
    image, _ = decode_image(encoded(PIL.Image.fromarray(gray), "PNG"), "x")
    np.testing.assert_array_equal(image, np.repeat(pixels[..., :1], 3, axis=2))


def test_cmyk_jpeg_keeps_its_colours(pixels: Image) -> None:
    image, _ = decode_image(encoded(PIL.Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=95), "x")
    assert np.abs(image.astype(int) - pixels).mean() < 6


def test_fast_decoding_is_a_grey_level_off(jpeg_bytes: bytes, pixels: Image) -> None:
    image, size = decode_image(jpeg_bytes, "x", fast=True)
    assert size == pixels.shape[:2]
    assert 0 < np.abs(image.astype(int) - pixels).mean() < 2


def test_exif_is_found_behind_other_segments(pixels: Image) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    plain = encoded(PIL.Image.fromarray(pixels), "JPEG", exif=exif)
    comment = b"\xff\xfe" + (60_000).to_bytes(2, "big") + bytes(59_998)
    assert plain[2:4] == b"\xff\xe0" or plain[2:4] == b"\xff\xe1"
    image, _ = decode_image(plain[:2] + 2 * comment + plain[2:], "x")
    assert np.abs(image.astype(int) - pixels[::-1, ::-1]).mean() < 8


@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 8), ("PNG", 0)])
def test_exif_orientation_is_applied(pixels: Image, kind: str, tolerance: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image, size = decode_image(encoded(PIL.Image.fromarray(pixels), kind, exif=exif), "x")
    upright = np.rot90(pixels, -1)
    assert size == upright.shape[:2]
    assert np.abs(image.astype(int) - upright).mean() <= tolerance


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_truncated_files_are_named_in_one_line(pixels: Image, kind: str, share: float) -> None:
    whole = encoded(PIL.Image.fromarray(pixels), kind)
    with pytest.raises(UnreadableImage, match=r"^photos/7\.jpg: cannot be read \(.+\); replace or remove it$") as error:
        decode_image(whole[: int(share * len(whole))], "photos/7.jpg")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", [17, 48, 200])
def test_resize_brings_the_shorter_side_of_image_and_mask_to_it(jpeg_bytes: bytes, pixels: Image, side: int) -> None:
    image, size = decode_image(jpeg_bytes, "x", side)
    mask_png = encoded(PIL.Image.fromarray(pixels[..., 0]), "PNG")
    assert min(image.shape[:2]) == side
    assert decode_mask(mask_png, "m", size, "x", side).shape == image.shape[:2]
    assert abs(image.shape[0] / image.shape[1] - pixels.shape[0] / pixels.shape[1]) < 1 / side


def test_large_jpeg_decoded_small_looks_like_the_large_one_shrunk(pixels: Image) -> None:
    large = cv2.resize(pixels, (1003, 757), interpolation=cv2.INTER_CUBIC)
    image, size = decode_image(encoded(PIL.Image.fromarray(large), "JPEG", quality=95), "x", 60)
    expected = cv2.resize(large, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert size == (757, 1003)
    assert np.abs(image.astype(int) - expected).mean() < 2


def test_mask_of_another_size_names_both_files_and_sizes() -> None:
    png = encoded(PIL.Image.new("L", (30, 20)), "PNG")
    with pytest.raises(UserError, match=r"^m\.png: 30x20 pixels, but its image i\.jpg has 40x20; a mask must"):
        decode_mask(png, "m.png", (20, 40), "i.jpg")


@pytest.mark.parametrize("size", [(21, 40), (19, 41), (20, 39)])
def test_mask_that_differs_by_a_pixel_is_scaled(size: tuple[int, int]) -> None:
    mask = np.zeros(size, np.uint8)
    mask[:, :20] = 255
    scaled = decode_mask(cv2.imencode(".png", mask)[1].tobytes(), "m.png", (20, 40), "i.jpg")
    assert scaled.shape == (20, 40) and set(np.unique(scaled)) == {0, 255}
    assert abs(int(np.count_nonzero(scaled)) - 400) <= 20


@pytest.mark.parametrize("data", [b"", b"no png", encoded(PIL.Image.effect_noise((64, 64), 90), "PNG")[:1500]])
def test_damaged_mask_is_named(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"^m\.png: damaged"):
        decode_mask(data, "m.png", (64, 64), "i.jpg")


def test_bilevel_masks_decode_to_0_and_255() -> None:
    expected = (np.indices((9, 13)).sum(axis=0) % 2 * 255).astype(np.uint8)
    png = encoded(PIL.Image.fromarray(expected).convert("1"), "PNG")
    np.testing.assert_array_equal(decode_mask(png, "m", (9, 13), "i"), expected)


@pytest.mark.parametrize("size", [32, 64, 224])
def test_centre_view_shows_the_same_window_of_image_and_mask(pixels: Image, size: int) -> None:
    view = centre_view(pixels, size)
    assert view.shape == (size, size, 3)
    np.testing.assert_array_equal(centre_view(np.ascontiguousarray(pixels[..., 1]), size), view[..., 1])


def test_centre_view_leaves_an_eighth_of_the_shorter_side_out() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None], (1, 96))
    view = centre_view(ramp, 56)
    np.testing.assert_array_equal(view[:, 0], np.arange(4, 60))


def test_cover_keeps_aspect_and_centre() -> None:
    square = np.zeros((40, 40, 3), np.uint8)
    square[10:30, 10:30] = 255
    covered = cover(square, 20, 40)
    assert covered.shape == (20, 40, 3)
    np.testing.assert_array_equal(covered, square[10:30])


@pytest.mark.parametrize("scale", [1 / 255, 1.0])
def test_floats_are_read_by_their_range(pixels: Image, scale: float) -> None:
    gray = pixels[..., 0].astype(np.float32) * scale
    image, _ = decode_image(encoded(PIL.Image.fromarray(gray), "TIFF"), "x")
    np.testing.assert_array_equal(image, np.repeat(pixels[..., :1], 3, axis=2))


@pytest.mark.parametrize("wrong", [-1.0, 1000.0, np.nan])
def test_floats_of_another_range_are_refused(pixels: Image, wrong: float) -> None:
    gray = pixels[..., 0].astype(np.float32)
    gray[3, 4] = wrong
    with pytest.raises(UnreadableImage, match=r"^x\.tif: cannot be read \(pixels from .*\); replace or remove it$"):
        decode_image(encoded(PIL.Image.fromarray(gray), "TIFF"), "x.tif")


def test_eight_bits_in_a_file_of_sixteen_are_not_black(pixels: Image) -> None:
    image, _ = decode_image(encoded(PIL.Image.fromarray(pixels[..., 0].astype(np.uint16)), "PNG"), "x")
    np.testing.assert_array_equal(image, np.repeat(pixels[..., :1], 3, axis=2))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_of_the_stored_pixels_are_turned_like_their_images_where_sizes_say_so(
    pixels: Image, orientation: int
) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PIL.Image.fromarray(pixels), "PNG", exif=exif)
    upright, _ = decode_image(data, "x.png")
    stored = np.ascontiguousarray(pixels[..., 0])
    assert stored.shape[0] != stored.shape[1]
    turned = upright_mask(stored, data)
    expected = upright[..., 0] if orientation >= 5 else stored
    np.testing.assert_array_equal(turned, expected)
    of_upright = np.ascontiguousarray(upright[..., 0])
    np.testing.assert_array_equal(upright_mask(of_upright, data), of_upright)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [0, 9, 600])
def test_orientations_that_do_not_exist_turn_nothing(pixels: Image, kind: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    whole = np.ascontiguousarray(pixels[: pixels.shape[0] // 8 * 8, : pixels.shape[1] // 8 * 8])
    assert whole.shape[0] != whole.shape[1]
    data = encoded(PIL.Image.fromarray(whole), kind, exif=exif)
    for least_side in (None, 16):
        image, size = decode_image(data, "x", least_side=least_side)
        assert size == upright_size(data) == whole.shape[:2]
        assert (image.shape[0] < image.shape[1]) == (size[0] < size[1])


def test_damaged_tiffs_are_told_of_by_bgsweep_alone(capfd: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    refused = 0
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, "TIFF", compression=compression)
        for start in range(100, 4000, 500):
            data = bytearray(file.getvalue())
            data[start : start + 100] = b"\xa5" * 100
            try:
                decode_image(bytes(data), "x.tif")
            except UnreadableImage as error:
                refused += str(error).startswith("x.tif: cannot be read")
    assert refused > 5
    assert capfd.readouterr() == ("", "")
