"""The ways of making a mask of a photograph, all alike to whoever uses them."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from bgsweep.augment.composite import Image, Mask

MethodName = Literal["rbd", "u2net"]
METHODS: tuple[MethodName, ...] = ("rbd", "u2net")


class MaskMethod(Protocol):
    """Makes masks in two steps, so that of many large photographs only what is needed is held at one time."""

    parameters: dict[str, Any]
    """All that decides what a mask looks like, besides the weights."""

    def prepare(self, image: Image) -> Any:
        """What `masks` needs of one photograph."""
        ...

    def masks(self, prepared: Sequence[Any]) -> Iterator[Mask]:
        """A mask of each photograph's size, 0 (background) to 255 (foreground)."""
        ...


class RbdGrabCut:
    """Robust background detection, then GrabCut: unsupervised, needs no weights."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {"side": 160, "superpixels": 200, "grabcut": {"iterations": 2, "side": 256}}

    def prepare(self, image: Image) -> Mask:
        from bgsweep.masks.rbd import grabcut, rbd_saliency

        saliency = rbd_saliency(image, self.parameters["side"], self.parameters["superpixels"])
        return grabcut(image, saliency, **self.parameters["grabcut"])

    def masks(self, prepared: Sequence[Mask]) -> Iterator[Mask]:
        return iter(prepared)


def build_method(name: MethodName, weights: bytes | None) -> MaskMethod:
    """Raises UserError where a package is missing or the weights cannot be used."""
    if name == "rbd":
        return RbdGrabCut()
    from bgsweep.masks.u2net import U2Net

    assert weights is not None
    return U2Net(weights)


def weights_digest(weights: bytes | None) -> str | None:
    """SHA-256 of the weights' file."""
    return None if weights is None else hashlib.sha256(weights).hexdigest()
