"""The ways of making a mask of an image, all alike to whoever uses them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, get_args

from bgsweep.images.compositing import Image, Mask

MethodName = Literal["rbd", "mbd", "grabcut", "u2net", "usps"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
HANDCRAFTED: tuple[MethodName, ...] = ("rbd", "mbd", "grabcut")
"""Those that need no weights; from all of them together `bgsweep masks train` learns."""


class MaskMethod(Protocol):
    """Makes masks in two steps, so that of many large images only what is needed is held at one time."""

    parameters: dict[str, Any]
    """All that decides what a mask looks like, besides the weights."""

    def prepare(self, image: Image) -> Any:
        """Prepare one image for `masks`."""
        ...

    def masks(self, prepared: Sequence[Any]) -> Iterator[Mask]:
        """A mask of each image's size, 0 (background) to 255 (foreground)."""
        ...


class Handcrafted:
    """Saliency written by people, from one image alone: it needs no weights.

    Args:
        make: a mask of an image, with `parameters`.
    """

    def __init__(self, make: Callable[..., Mask], **parameters: Any) -> None:
        self._make, self.parameters = make, parameters

    def prepare(self, image: Image) -> Mask:
        return self._make(image, **self.parameters)

    def masks(self, prepared: Sequence[Mask]) -> Iterator[Mask]:
        return iter(prepared)


def build_method(name: MethodName, weights: bytes | None) -> MaskMethod:
    """Raises UserError where a package is missing or the weights cannot be used."""
    if name in HANDCRAFTED:
        return _handcrafted(name)
    from bgsweep.masks.u2net import U2Net, Usps

    assert weights is not None
    return U2Net(weights) if name == "u2net" else Usps(weights)


def _handcrafted(name: MethodName) -> MaskMethod:
    from bgsweep.masks.grabcut import grabcut_rectangle
    from bgsweep.masks.mbd import mbd_saliency
    from bgsweep.masks.rbd import rbd_grabcut

    if name == "rbd":
        return Handcrafted(rbd_grabcut, side=160, superpixels=200, grabcut={"iterations": 2, "side": 256})
    if name == "mbd":
        return Handcrafted(mbd_saliency, side=200)
    return Handcrafted(grabcut_rectangle, margin=0.06, iterations=3, side=160)


def weights_digest(weights: bytes | None) -> str | None:
    """SHA-256 of the weights' file."""
    return None if weights is None else hashlib.sha256(weights).hexdigest()
