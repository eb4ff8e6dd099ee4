"""Decoding of a mask's grey levels, with refusal of files that are no masks: class maps, trimaps, colours."""

import io
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from bgsweep.errors import UnreadableImage, WrongMask
from bgsweep.images.compositing import Mask

_CURE = "masks go from 0 (background) to 255 (foreground) in 8-bit grey; convert them"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_GRAY, _PALETTE = 0, 3  # colour types of PNG

# More levels than this are a soft mask (a network's output) rather than numbers of classes.
_MOST_CLASSES = 32
# Shares of the image: fewer pixels between black and white are specks; more than this in flat areas are no antialiased
# edge.
_SPECKS, _FLAT = 0.002, 0.005
# Channels of a grey image that went through a lossy format may differ by so much.
_TINGE = 16


class PngKind(NamedTuple):
    """Bits per channel and colour type of a PNG."""

    depth: int
    colour: int


def png_kind(head: bytes) -> PngKind | None:
    """Depth and colour type from the first 26 bytes of a file; None where it is no PNG."""
    return PngKind(head[24], head[25]) if head.startswith(_SIGNATURE) and len(head) > 25 else None


def gray_levels(data: bytes, name: str) -> Mask:
    """Decode a mask: grey of any depth, coloured files that hold greys only, or the alpha channel.

    Raises:
        UnreadableImage: the file is damaged or no image.
        WrongMask: its colours or levels are neither foreground nor background: numbers of classes, trimaps, colours.
    """
    try:
        mask = _decode(data, name)
    except WrongMask:
        raise
    except Exception as error:  # OpenCV's and Pillow's decoders raise nearly anything on damaged files
        raise UnreadableImage(f"{name}: damaged or not an image; make this mask again") from error
    _check_levels(mask, name)
    return mask


def _decode(data: bytes, name: str) -> Mask:
    kind = png_kind(data)
    if kind is not None and kind.colour != _PALETTE:
        _check_chunks(data)
        gray = kind.colour == _GRAY and kind.depth <= 8
        flags = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_UNCHANGED
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if decoded is None:
            raise ValueError("not decoded")
        if decoded.ndim == 3:
            decoded = np.concatenate([decoded[..., 2::-1], decoded[..., 3:]], axis=2)  # BGR as RGB
        return cast(Mask, decoded) if gray else _from_channels(decoded, name)
    with PIL.Image.open(io.BytesIO(data)) as file:
        is_gray = file.mode in ("1", "L") or file.mode.startswith("I")
        return _from_channels(np.asarray(file if is_gray else file.convert("RGBA")), name)


def _check_chunks(data: bytes) -> None:
    """Raise ValueError for a damaged PNG before libpng sees it, which would write to stderr."""
    view, at, kind = memoryview(data), len(_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + 8 + length
        if zlib.crc32(view[at + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            raise ValueError("checksum")
        at = end + 4


def _from_channels(pixels: npt.NDArray[Any], name: str) -> Mask:
    """Levels of grey pixels, or of RGB with or without alpha, of any depth."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[..., 3]
        # Transparency says what is foreground of a cut-out; where all is opaque, the colours do.
        pixels = alpha if int(alpha.min()) < np.iinfo(alpha.dtype).max else pixels[..., :3]
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype != np.uint8:
        top = int(pixels.max())
        if 0 < top <= 255:
            raise WrongMask(f"{name}: 16 bits a pixel, but no level above {top}, where 65535 is foreground; {_CURE}")
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.ndim == 3:
        tinge = np.ptp(pixels, axis=2)
        if int(tinge.max()) > _TINGE:
            row, column = np.unravel_index(int(tinge.argmax()), tinge.shape)
            shown = "#" + "".join(f"{level:02x}" for level in pixels[row, column].tolist())
            raise WrongMask(f"{name}: has colours (such as {shown}), which do not say what is foreground; {_CURE}")
        pixels = pixels[..., 1]
    return cast(Mask, np.ascontiguousarray(pixels))


def _check_levels(mask: Mask, name: str) -> None:
    """Raise WrongMask where levels between black and white are numbers of classes rather than shades.

    For masks without such levels this takes a hundredth of the time of decoding.
    """
    between = cv2.inRange(mask, 1, 254)
    pixels = cv2.countNonZero(between)
    # A sixteenth of the pixels is enough to recognise a soft mask, in a tenth of the time.
    if not pixels or _are_shades(_levels(np.ascontiguousarray(mask[::4, ::4]))):
        return
    levels = _levels(mask)
    top = levels[-1]
    if top == 1:
        raise WrongMask(f"{name}: its foreground is 1; {_CURE}")
    if pixels < _SPECKS * mask.size or _are_shades(levels) or (top > 127 and levels[:-1] in ((), (0,))):
        return
    if top < 128:
        raise WrongMask(f"{name}: its levels are {_listed(levels)}, of which none is foreground; {_CURE}")
    flat = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) == 0
    if np.count_nonzero(flat & (between > 0)) >= _FLAT * mask.size:
        raise WrongMask(f"{name}: its levels are {_listed(levels)} in flat areas, like classes or a trimap; {_CURE}")


def _levels(mask: Mask) -> tuple[int, ...]:
    return tuple(np.flatnonzero(cv2.calcHist([mask], [0], None, [256], [0, 256])).tolist())


@lru_cache(maxsize=4096)
def _are_shades(levels: tuple[int, ...]) -> bool:
    """True if levels so many, or so evenly spread, can only be those of a soft mask."""
    shades = [level for level in levels if level]
    if len(shades) > _MOST_CLASSES:
        return True
    if len(shades) < 3:
        return False
    for count in range(5, _MOST_CLASSES + 1):
        step = 255 / count
        steps = [round(level / step) for level in shades]
        fits = all(abs(level - number * step) < 1 for level, number in zip(shades, steps, strict=True))
        if fits and len(steps) >= steps[-1] / 2:
            return True
    return False


def _listed(levels: Sequence[int]) -> str:
    shown = ", ".join(map(str, levels[:8]))
    return f"{shown}, …, {levels[-1]}" if len(levels) > 8 else shown
