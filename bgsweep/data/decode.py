"""From bytes to arrays: photographs and masks, brought to one size and orientation."""

import io
import struct
from typing import NamedTuple, cast

import cv2
import numpy as np
import PIL.Image
import simplejpeg  # type: ignore[import-untyped]
from PIL import ImageOps

from bgsweep.data.sample import Image, Mask
from bgsweep.errors import UserError, one_line

Size = tuple[int, int]

_MOST_PIXELS = 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)  # where Pillow takes a picture for a bomb
_SEGMENT = struct.Struct(">BBH")  # 255, what it is, its size without these first two bytes
_FRAME = struct.Struct(">HHB")  # height, width, components of a JPEG's frame header
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # Huffman tables, a reserved marker, arithmetic conditioning


class UnreadableImage(UserError):
    """A file that is missing, truncated or no image; training goes on without it."""


class _Header(NamedTuple):
    height: int
    width: int
    components: int
    has_exif: bool


def decode_image(data: bytes, name: str, resize: int | None = None, fast: bool = False) -> tuple[Image, Size]:
    """Decode a photograph of any format that Pillow knows.

    Args:
        data: the encoded file; an EXIF orientation is applied, transparency dropped, 16 bits cut to 8.
        name: what errors call the file.
        resize: shorter side in pixels that the photograph is brought to.
        fast: decode JPEGs with a cheaper DCT and chroma upsampling, a grey level off on average.

    Returns:
        RGB, height x width x 3, and the photograph's height and width before resizing.

    Raises:
        UnreadableImage: the file is truncated, damaged or no image.
    """
    image, size = _decode_jpeg(data, resize, fast) or _decode_any(data, name)
    return (image if resize is None else _scaled(image, _shorter_side(size, resize))), size


def decode_mask(data: bytes, name: str, image_size: Size, image_name: str, resize: int | None = None) -> Mask:
    """Decode a mask (PNG) and bring it to the size that `decode_image` gives its photograph.

    Returns:
        height x width, 0 (background) to 255 (foreground).

    Raises:
        UnreadableImage: the file is truncated, damaged or no image.
        UserError: the mask has another size than the photograph.
    """
    return bring_mask(read_gray(data, name), name, image_size, image_name, resize)


def bring_mask(mask: Mask, name: str, image_size: Size, image_name: str, resize: int | None = None) -> Mask:
    """A decoded mask at the size that `decode_image` gives its photograph; raises UserError as `decode_mask` does."""
    size = mask.shape[0], mask.shape[1]
    if size != image_size:
        raise UserError(
            f"{name}: {size[1]}x{size[0]} pixels, but its image {image_name} has {image_size[1]}x{image_size[0]}; "
            "a mask must have its image's size"
        )
    return mask if resize is None else _scaled(mask, _shorter_side(size, resize))


def read_gray(data: bytes, name: str) -> Mask:
    """Decode a mask as it is; raises UnreadableImage where the file is damaged or no image."""
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    except cv2.error:  # more pixels than any photograph has
        decoded = None
    if decoded is None:
        raise UnreadableImage(f"{name}: damaged or not an image; make this mask again")
    return cast(Mask, decoded)


def centre_view(image: Image, size: int) -> Image:
    """What an evaluation sees of a photograph or of its mask: shorter side to 8/7 of `size`, then the central square.

    Args:
        image: height x width, with or without channels.
        size: side of the result in pixels.
    """
    return _centre_crop(_scaled(image, _shorter_side(image.shape[:2], round(size * 8 / 7))), size, size)


def cover(image: Image, height: int, width: int) -> Image:
    """The image's central part at height x width: scaled, its aspect kept, until it just covers that."""
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    return _centre_crop(_scaled(image, size), height, width)


def _decode_jpeg(data: bytes, resize: int | None, fast: bool) -> tuple[Image, Size] | None:
    """The fast way; None for what it does not do right: other formats and colour spaces, rotation, damage."""
    header = _jpeg_header(data) if data.startswith(b"\xff\xd8") else None
    if header is None or (header.has_exif and _orientation(data) > 1):
        return None
    height, width, components, _ = header
    if components > 3 or height * width > _MOST_PIXELS:
        return None
    try:
        # Large photographs are decoded at half their size or less, but never below four times the size wanted: sides
        # are rounded up to whole pixels, which moves the picture's edge by up to one of them.
        least = 4 * resize if resize is not None and min(height, width) >= 8 * resize else 0
        image = simplejpeg.decode_jpeg(data, "RGB", fast, fast, least, least, 2 if least else 1)
    except ValueError:
        return None
    return image, (height, width)


def _jpeg_header(data: bytes) -> _Header | None:
    """What the segments before a JPEG's pixels say, where they are sound.

    A search for EXIF would read half the file, and simplejpeg's own reading of the header costs a fortieth of decoding.
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


def _orientation(data: bytes) -> int:
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            return int(file.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse the photograph
        return 1


def _decode_any(data: bytes, name: str) -> tuple[Image, Size]:
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            image = _rgb(ImageOps.exif_transpose(file))
    except Exception as error:  # Pillow's plug-ins raise nearly anything on damaged files
        reason = "not an image" if isinstance(error, PIL.UnidentifiedImageError) else one_line(error)
        raise UnreadableImage(f"{name}: cannot be read ({reason}); replace or remove it") from error
    return image, (image.shape[0], image.shape[1])


def _rgb(image: PIL.Image.Image) -> Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion clips to white
        gray = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _shorter_side(size: tuple[int, ...], side: int) -> Size:
    height, width = size
    return max(side, round(height * side / width)), max(side, round(width * side / height))


def _scaled(image: Image, size: Size) -> Image:
    # Averaging over areas is right for shrinking, for masks too; enlarged it would show blocks.
    shrinks = size[0] < image.shape[0]
    return cast(Image, cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def _centre_crop(image: Image, height: int, width: int) -> Image:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])
