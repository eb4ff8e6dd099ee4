"""Decoding of mask files: grey levels, alpha or ids, with refusal of files that do not say what is foreground."""

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
from bgsweep.images.mask_form import PLAIN, Ids, MaskForm
from bgsweep.images.orientation import orientation_of, turned

_CURE = (
    "masks go from 0 (background) to 255 (foreground) in 8-bit grey; if these are ids, say which are foreground by "
    "data.mask_format.foreground (--foreground), else convert them"
)
_JPEG, _NUMPY = b"\xff\xd8", b"\x93NUMPY"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_GRAY, _PALETTE = 0, 3  # colour types of PNG
_WITH_EXIF = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # its own chunk, or one of ImageMagick's or XMP's

_ANY_ID = MaskForm(foreground="nonzero")

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


def gray_levels(data: bytes, name: str, form: MaskForm = PLAIN) -> Mask:
    """Decode a mask: an image of any depth, or a NumPy file (``.npy``).

    Without a form: grey of any depth, coloured files that hold greys only, or the alpha channel.

    Raises:
        UnreadableImage: the file is damaged or no image.
        WrongMask: its colours or levels are neither foreground nor background: numbers of classes, trimaps, colours; or
            it has no ids or no alpha channel, and the form says that it has.
    """
    try:
        if form.foreground is not None:
            return form.mask_of(_ids(data, name, form))
        mask = _alpha(data, name) if form.channel == "alpha" else _decode(data, name)
    except WrongMask:
        raise
    except Exception as error:  # OpenCV's and Pillow's decoders raise nearly anything on damaged files
        raise UnreadableImage(f"{name}: damaged or not an image; make this mask again") from error
    if form.channel == "auto":
        _check_levels(mask, name, data)
    return mask


def ids_of(data: bytes, name: str, form: MaskForm) -> Ids:
    """The ids in a mask file whose form has ids; raises as `gray_levels`."""
    try:
        return _ids(data, name, form)
    except WrongMask:
        raise
    except Exception as error:
        raise UnreadableImage(f"{name}: damaged or not an image; make this mask again") from error


def seen_ids(data: bytes, name: str, form: MaskForm) -> str:
    """The ids in a mask file for an error, the first of many; raises as `gray_levels`."""
    return _listed(np.unique(ids_of(data, name, form)).tolist())


def _decode(data: bytes, name: str) -> Mask:
    kind = png_kind(data)
    if kind is None or kind.colour != _GRAY or kind.depth > 8:
        pixels = _pixels(data, kind)
        return _from_channels(pixels, name, data if kind is not None and kind.colour == _PALETTE else None)
    _check_chunks(data)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if decoded is None:
        raise ValueError("not decoded")
    return cast(Mask, decoded)


def _pixels(data: bytes, kind: PngKind | None, indices: bool = False) -> npt.NDArray[Any]:
    """Pixels of a file, made upright: height x width, or that x RGB or RGBA.

    Args:
        indices: of a palette file its indices rather than its colours.
    """
    if data.startswith(_NUMPY):
        array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False).squeeze()
        # NumPy's default is 64 bits, whatever the values.
        small = array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255
        return array.astype(np.uint8) if small else array
    if kind is not None and kind.colour != _PALETTE:
        may_turn = _check_chunks(data)
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            raise ValueError("not decoded")
        if decoded.ndim == 3:
            decoded = np.concatenate([decoded[..., 2::-1], decoded[..., 3:]], axis=2)  # BGR as RGB
    else:
        may_turn = kind is None or _check_chunks(data)
        with PIL.Image.open(io.BytesIO(data)) as file:
            as_stored = file.mode in ("1", "L", "F", *("P" * indices)) or file.mode.startswith("I")
            decoded = np.asarray(file if as_stored else file.convert("RGBA"))
    return turned(decoded, orientation_of(data)) if may_turn else decoded


def _alpha(data: bytes, name: str) -> Mask:
    """The alpha channel as 8 bits, or the transparency of a palette's entries or of a grey level."""
    kind = png_kind(data)
    pixels = _pixels(data, kind)
    if data.startswith(_NUMPY) or not _has_alpha(data):
        raise WrongMask(f"{name}: has no alpha channel, which mask_format.channel names; correct this key or the file")
    if kind is not None and kind.colour == _GRAY:
        return np.where(pixels == _clear_level(data, kind.depth), 0, 255).astype(np.uint8)
    return _eight_bits(pixels[..., 3], name)


def _clear_level(data: bytes, depth: int) -> int:
    """The level of a grey PNG that is transparent, at which decoders show it."""
    # OpenCV leaves it out, and Pillow's conversion compares the first 8 of 16 bits.
    with PIL.Image.open(io.BytesIO(data)) as file:
        level = int(file.info["transparency"])
    return level if depth >= 8 else min(255, level * (255 // (2**depth - 1)))


def _has_alpha(data: bytes) -> bool:
    with PIL.Image.open(io.BytesIO(data)) as file:
        return file.has_transparency_data


def _ids(data: bytes, name: str, form: MaskForm) -> Ids:
    """Whole numbers, height x width: grey levels, indices of a palette, or those that three channels encode."""
    kind = png_kind(data)
    if data.startswith(_JPEG):
        raise WrongMask(f"{name}: a JPEG, which does not keep ids exactly; use the PNG that it was made from")
    pixels = _pixels(data, kind, indices=True)
    if pixels.dtype.kind == "f" and not np.array_equal(pixels, pixels.round()):
        raise WrongMask(f"{name}: holds fractions, no ids; leave out mask_format.foreground")
    if pixels.dtype.kind in "fb":
        pixels = pixels.astype(np.uint8 if pixels.dtype == bool else np.int64)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        if np.ptp(pixels[..., 3]):
            raise WrongMask(
                f"{name}: has transparency beside ids; set mask_format.channel to alpha, without foreground"
            )
        pixels = pixels[..., :3]
    if form.channel == "rgb_id":
        if pixels.ndim != 3:
            raise WrongMask(f"{name}: has no three channels, which mask_format.channel: rgb_id needs; leave it out")
        red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
        return red | green << 8 | blue << 16
    if pixels.ndim == 3:
        if np.ptp(pixels, axis=2).any():
            raise WrongMask(
                f"{name}: has colours, no ids; mask_format.channel: rgb_id reads R + 256 G + 65536 B, else convert them"
            )
        pixels = pixels[..., 0]
    if kind is not None and kind.colour == _GRAY and kind.depth < 8:
        pixels = pixels // (255 // (2**kind.depth - 1))  # decoders spread the levels of fewer bits over 0 to 255
    return pixels


def _check_chunks(data: bytes) -> bool:
    """Raise ValueError for a damaged PNG before libpng sees it, which would write to stderr.

    Returns:
        True if it may have an EXIF orientation. Asking Pillow for it means decoding the file once more.
    """
    view, at, kind, may_turn = memoryview(data), len(_SIGNATURE), b"", False
    while kind != b"IEND":
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + 8 + length
        if zlib.crc32(view[at + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            raise ValueError("checksum")
        may_turn = may_turn or kind in _WITH_EXIF
        at = end + 4
    return may_turn


def _from_channels(pixels: npt.NDArray[Any], name: str, palette: bytes | None) -> Mask:
    """Levels of grey pixels, or of RGB with or without alpha, of any depth; `palette` is the file if it has one."""
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        shape = "x".join(map(str, pixels.shape))
        raise WrongMask(f"{name}: an array of {shape}, where height x width is needed; convert it by `masks import`")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[..., 3]
        # Transparency says what is foreground of a cut-out; where all is opaque, the colours do.
        pixels = alpha if int(alpha.min()) < np.iinfo(alpha.dtype).max else pixels[..., :3]
    pixels = _eight_bits(pixels, name)
    if pixels.ndim == 3:
        tinge = np.ptp(pixels, axis=2)
        if int(tinge.max()) > _TINGE:
            row, column = np.unravel_index(int(tinge.argmax()), tinge.shape)
            shown = "#" + "".join(f"{level:02x}" for level in pixels[row, column].tolist())
            ids = _listed(np.unique(_pixels(palette, png_kind(palette), indices=True)).tolist()) if palette else ""
            seen = f", and the palette's indices {ids}" if ids else ""
            raise WrongMask(
                f"{name}: has colours (such as {shown}){seen}, which do not say what is foreground; {_CURE}"
            )
        pixels = pixels[..., 1]
    return cast(Mask, np.ascontiguousarray(pixels))


def _eight_bits(pixels: npt.NDArray[Any], name: str) -> Mask:
    """Truth values, fractions from 0 to 1, or 16 bits as 8 bits."""
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint8:
        return cast(Mask, pixels)
    least, top = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f" and least >= 0 and top <= 1:
        return cast(Mask, (pixels * 255).round().astype(np.uint8))
    if pixels.dtype.kind == "f" or least < 0 or top > 65_535:
        raise WrongMask(f"{name}: levels from {least:g} to {top:g}, neither 0 to 1 nor 0 to 65535; {_CURE}")
    if 0 < top <= 255:
        raise WrongMask(f"{name}: 16 bits a pixel, but no level above {top}, where 65535 is foreground; {_CURE}")
    return cast(Mask, (pixels >> 8).astype(np.uint8))


def _check_levels(mask: Mask, name: str, data: bytes) -> None:
    """Raise WrongMask where levels between black and white are numbers of classes rather than shades.

    The error has the ids of the file, by which `mask_format.foreground` goes, where these are others than the levels.
    For masks without such levels this takes a hundredth of the time of decoding.
    """
    between = cv2.inRange(mask, 1, 254)
    pixels = cv2.countNonZero(between)
    # A sixteenth of the pixels is enough to recognise a soft mask, in a tenth of the time.
    if not pixels or _are_shades(_levels(np.ascontiguousarray(mask[::4, ::4]))):
        return
    levels = _levels(mask)
    top = levels[-1]
    if top > 1 and (pixels < _SPECKS * mask.size or _are_shades(levels) or (top > 127 and levels[:-1] in ((), (0,)))):
        return
    seen = _own_levels(data, name, levels)
    if seen in ("0, 1", "1"):
        raise WrongMask(f"{name}: its foreground is 1; {_CURE}")
    if top < 128:
        raise WrongMask(f"{name}: its levels are {seen}, of which none is foreground; {_CURE}")
    flat = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) == 0
    if np.count_nonzero(flat & (between > 0)) >= _FLAT * mask.size:
        raise WrongMask(f"{name}: its levels are {seen} in flat areas, like classes or a trimap; {_CURE}")


def _own_levels(data: bytes, name: str, levels: Sequence[int]) -> str:
    """The ids of a file of fewer or more than 8 bits, listed; else its levels."""
    try:
        return seen_ids(data, name, _ANY_ID)
    except WrongMask:  # a JPEG, fractions, transparency: no ids
        return _listed(levels)


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
