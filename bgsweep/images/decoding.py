"""Decoding of images and masks, with resizing and EXIF orientation.

JPEGs are decoded by simplejpeg: 0.89 ms for 500 x 375 px where Pillow takes 1.37, with the same pixels. Decoding only
the crop window, or at a smaller scale, gains nothing at ImageNet's sizes: entropy decoding dominates. Of 12 megapixels
it is half of the time, so that a quarter of the scale takes 21 ms instead of 37.
"""

import contextlib
import ctypes
import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import simplejpeg  # type: ignore[import-untyped]
from PIL import ImageOps

from bgsweep.errors import UnreadableImage, WrongMask, one_line
from bgsweep.images.compositing import Image, Mask
from bgsweep.images.mask_form import PLAIN, MaskForm
from bgsweep.images.mask_levels import gray_levels
from bgsweep.images.orientation import orientation_in, orientation_of, turned

Size = tuple[int, int]

_MOST_PIXELS = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)  # where Pillow takes an image for a bomb
_SEGMENT = struct.Struct(">BBH")  # 255, what it is, its size without these first two bytes
_FRAME = struct.Struct(">HHB")  # height, width, components of a JPEG's frame header
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # Huffman tables, a reserved marker, arithmetic conditioning


# Pillow warns of odd metadata and large images without naming the file.
warnings.filterwarnings("ignore", module=r"PIL\b")


def _silence_libtiff() -> None:
    """Stop the libtiff of Pillow's wheel from writing to stderr about damaged files, which no Python setting does."""
    package = Path(PIL.__file__).parent
    for path in (*package.parent.glob("pillow.libs/libtiff*"), *package.glob(".dylibs/libtiff*")):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


_silence_libtiff()


class _Header(NamedTuple):
    height: int
    width: int
    components: int
    has_exif: bool


def decode_image(
    data: bytes, name: str, resize: int | None = None, fast: bool = False, least_side: int | None = None
) -> tuple[Image, Size]:
    """Decode an image of any format that Pillow knows.

    Args:
        data: the encoded file; an EXIF orientation is applied, transparency dropped, 16 bits cut to 8.
        name: name of the file in errors.
        resize: shorter side in pixels that the image is resized to.
        fast: decode JPEGs with a cheaper DCT and chroma upsampling, a grey level off on average.
        least_side: decode at 1/2, 1/4 or 1/8 of the size, as long as the shorter side keeps this many pixels
            (`reduction`).

    Returns:
        RGB, height x width x 3, and the image's height and width before resizing or reduction.

    Raises:
        UnreadableImage: the file is truncated, damaged or no image.
    """
    image, size = _decode_jpeg(data, resize, fast, least_side) or _decode_any(data, name)
    if image.shape[:2] == size:  # else a JPEG that was decoded at a smaller scale
        image = reduced(image, reduction(size, least_side))
    return (image if resize is None else _resize(image, _shorter_side(size, resize))), size


def decode_mask(
    data: bytes,
    name: str,
    image_size: Size,
    image_name: str,
    resize: int | None = None,
    read_image: Callable[[], bytes] | None = None,
    form: MaskForm = PLAIN,
    least_side: int | None = None,
) -> Mask:
    """Decode a mask and resize it to the size that `decode_image` gives its image.

    Args:
        data, name, resize, least_side: as of `decode_image`.
        image_size, image_name: height and width of the upright image, and its name in errors.
        read_image: gives the image's file, which is read only where the mask has another size: the image's EXIF
            orientation may explain that.
        form: the meaning of the file's pixels.

    Returns:
        height x width, 0 (background) to 255 (foreground).

    Raises:
        UnreadableImage: the file is truncated, damaged or no image.
        WrongMask: its levels are neither foreground nor background, or it has another size than the image.
    """
    return fit_mask(read_gray(data, name, form), name, image_size, image_name, resize, read_image, least_side)


def fit_mask(
    mask: Mask,
    name: str,
    image_size: Size,
    image_name: str,
    resize: int | None = None,
    read_image: Callable[[], bytes] | None = None,
    least_side: int | None = None,
) -> Mask:
    """A decoded mask at the size that `decode_image` gives its image; raises WrongMask as `decode_mask` does."""
    if mask.shape != image_size:
        if read_image is not None:
            mask = upright_mask(mask, read_image())
        mask = scaled_mask(mask, name, image_size, image_name)
    mask = reduced(mask, reduction(image_size, least_side))
    return mask if resize is None else _resize(mask, _shorter_side(image_size, resize))


def reduction(size: Size, least_side: int | None) -> int:
    """1, 2, 4 or 8: the most that an image's sides can be divided by so that the shorter one keeps this many pixels."""
    if least_side is None:
        return 1
    return next((factor for factor in (8, 4, 2) if min(size) >= factor * least_side), 1)


def reduced(pixels: Image, factor: int) -> Image:
    """Means over squares of `factor` x `factor` pixels of an image or mask, as JPEGs decoded at a smaller scale have.

    Squares at the right and lower edge that the image fills in part are filled up with its last pixels: nothing is
    stretched, so that a window of the result shows what `factor` times that window shows of the image.
    """
    if factor == 1:
        return pixels
    below, right = -pixels.shape[0] % factor, -pixels.shape[1] % factor
    if below or right:
        pixels = cast(Image, cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE))
    size = pixels.shape[1] // factor, pixels.shape[0] // factor
    return cast(Image, cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def scaled_mask(mask: Mask, name: str, image_size: Size, image_name: str) -> Mask:
    """The mask at its image's size, from which it may differ by a pixel, as rounding makes it.

    Raises:
        WrongMask: it differs by more.
    """
    if mask.shape == image_size:
        return mask
    size = mask.shape[0], mask.shape[1]
    if max(abs(side - wanted) for side, wanted in zip(size, image_size, strict=True)) > 1:
        raise WrongMask(
            f"{name}: {size[1]}x{size[0]} pixels, but its image {image_name} has {image_size[1]}x{image_size[0]}; "
            "a mask must have its image's size"
        )
    return cast(Mask, cv2.resize(mask, image_size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))


def upright_mask(mask: Mask, image: bytes) -> Mask:
    """The mask with its image's EXIF orientation applied, if it has the size of the image before orientation."""
    size, orientation = stored_size(image)
    if orientation < 5 or size[0] == size[1] or mask.shape != size:
        return mask
    return turned(mask, orientation)


def upright_size(image: bytes) -> Size:
    """Height and width of an encoded image with its EXIF orientation applied; raises UnreadableImage."""
    (height, width), orientation = stored_size(image)
    return (width, height) if orientation >= 5 else (height, width)


def stored_size(image: bytes) -> tuple[Size, int]:
    """Height and width of an encoded image before its EXIF orientation is applied, and the orientation, 1 to 8.

    Raises:
        UnreadableImage: the file's header is damaged.
    """
    header = _jpeg_header(image) if image.startswith(b"\xff\xd8") else None
    if header is not None:
        return (header.height, header.width), orientation_of(image) if header.has_exif else 1
    try:
        with PIL.Image.open(io.BytesIO(image)) as file:
            return (file.height, file.width), orientation_in(file)
    except Exception as error:  # Pillow's plug-ins raise nearly anything on damaged files
        raise UnreadableImage(f"not an image ({one_line(error)})") from error


def read_gray(data: bytes, name: str, form: MaskForm = PLAIN) -> Mask:
    """Decode a mask at its own size; raises UnreadableImage if the file is damaged, WrongMask if it is no mask."""
    return gray_levels(data, name, form)


def centre_view(image: Image, size: int) -> Image:
    """The central square of an image or mask that evaluations use: shorter side to 8/7 of `size`, then a centre crop.

    Args:
        image: height x width, with or without channels.
        size: side of the result in pixels.
    """
    return _centre_crop(_resize(image, _shorter_side(image.shape[:2], round(size * 8 / 7))), size, size)


def cover(image: Image, height: int, width: int) -> Image:
    """The image resized, with its aspect ratio, to just cover height x width, and cropped to that centrally."""
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    return _centre_crop(_resize(image, size), height, width)


def _decode_jpeg(data: bytes, resize: int | None, fast: bool, least_side: int | None) -> tuple[Image, Size] | None:
    """Decode with simplejpeg; None for files that it decodes wrong: other formats, CMYK, EXIF rotation, damage."""
    header = _jpeg_header(data) if data.startswith(b"\xff\xd8") else None
    if header is None or header.components > 3 or header.height * header.width > _MOST_PIXELS:
        return None
    height, width, _, has_exif = header
    factor = reduction((height, width), least_side)
    orientation = orientation_of(data) if has_exif else 1
    if factor > 1:
        return _decode_reduced(data, (height, width), factor, orientation, fast)
    if orientation > 1:
        return None
    try:
        # Large images are decoded at half their size or less, but never below four times the target size: sides are
        # rounded up to whole pixels, which moves the image's edge by up to one of them.
        least = 4 * resize if resize is not None and min(height, width) >= 8 * resize else 0
        image = simplejpeg.decode_jpeg(data, "RGB", fast, fast, least, least, 2 if least else 1)
    except ValueError:
        return None
    return image, (height, width)


def _decode_reduced(data: bytes, size: Size, factor: int, orientation: int, fast: bool) -> tuple[Image, Size] | None:
    """Decode a JPEG at a smaller scale; None where it is damaged, or turning it would move the squares in its rim."""
    height, width = size
    if orientation > 1 and (height % factor or width % factor):
        return None
    try:
        image = simplejpeg.decode_jpeg(data, "RGB", fast, fast, -(-height // factor), -(-width // factor), factor)
    except ValueError:
        return None
    return turned(image, orientation), (size if orientation < 5 else (width, height))


def _jpeg_header(data: bytes) -> _Header | None:
    """Size, components and presence of EXIF from the segments before a JPEG's pixels; None where they are damaged.

    Written out because a search for "Exif" would read half the file, and simplejpeg's own header reader takes a
    fortieth of the time of decoding.
    """
    at, has_exif, frame = 2, False, b""
    while at + _SEGMENT.size <= len(data):
        start, marker, size = _SEGMENT.unpack_from(data, at)
        if start != 0xFF or marker == 0xDA:
            break
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            has_exif = True
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            frame = data[at + 5 : at + 10]
        at += 2 + size
    if len(frame) < _FRAME.size:
        return None
    height, width, components = _FRAME.unpack(frame)
    return _Header(height, width, components, has_exif)


def _decode_any(data: bytes, name: str) -> tuple[Image, Size]:
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            image = _rgb(ImageOps.exif_transpose(file))
    except Exception as error:  # Pillow's plug-ins raise nearly anything on damaged files
        reason = "not an image" if isinstance(error, PIL.UnidentifiedImageError) else one_line(error)
        raise UnreadableImage(f"{name}: cannot be read ({reason}); replace or remove it") from error
    return image, (image.shape[0], image.shape[1])


def _rgb(image: PIL.Image.Image) -> Image:
    if image.mode[0] in "IF":  # more than 8 bits of grey, which Pillow's own conversion clips to white or black
        return np.repeat(_eight_bits(np.asarray(image))[:, :, None], 3, axis=2)
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _eight_bits(gray: npt.NDArray[Any]) -> Image:
    """Grey levels of 16 bits, or floats of 0 to 1 or of 0 to 255, as uint8; raises ValueError for other ranges."""
    least, most = gray.min(), gray.max()
    if gray.dtype.kind == "f" and least >= 0 and most <= 255:
        return cast(Image, (gray * 255 if most <= 1 else gray).round().astype(np.uint8))
    if gray.dtype.kind != "f" and least >= 0 and most <= 65_535:
        # Eight bits in a file of sixteen would all become black.
        return cast(Image, (gray if most <= 255 else gray >> 8).astype(np.uint8))
    raise ValueError(f"pixels from {least:g} to {most:g}, neither 0 to 1, 0 to 255 nor whole numbers to 65535")


def _shorter_side(size: tuple[int, ...], side: int) -> Size:
    height, width = size
    return max(side, round(height * side / width)), max(side, round(width * side / height))


def _resize(image: Image, size: Size) -> Image:
    # INTER_AREA antialiases when it shrinks, masks too; when it enlarges, it shows blocks.
    shrinks = size[0] < image.shape[0]
    return cast(Image, cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def _centre_crop(image: Image, height: int, width: int) -> Image:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])
