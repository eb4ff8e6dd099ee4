"""EXIF orientations: read from a file, and applied to pixels."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

Pixels = npt.NDArray[Any]

_TAG = 0x0112
# Rotations and reflections to upright; those from 5 on exchange an image's sides.
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels (height x width, with or without channels) made upright from an EXIF orientation, 1 to 8."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def orientation_of(data: bytes) -> int:
    """The EXIF orientation of an encoded image, 1 to 8; 1, upright, where it has none or its EXIF block is damaged."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as file:
            return orientation_in(file)
    except Exception:  # a damaged EXIF block is no reason to refuse the image
        return 1


def orientation_in(file: PIL.Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 where it has none, or a number that is none."""
    found = file.getexif().get(_TAG)
    return int(found) if found in _TURNS else 1
