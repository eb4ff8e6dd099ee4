"""Mask methods by name, behind one protocol."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, get_args

from bgsweep.config import plugins
from bgsweep.errors import UserError
from bgsweep.images.compositing import Image, Mask
from bgsweep.masks.interfaces import NETWORKS, UNKNOWN

MethodName = Literal["network", "fusion", "rbd", "mbd", "grabcut", "usps"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
TEACHERS: tuple[MethodName, ...] = ("rbd", "mbd", "grabcut")
"""Methods that `bgsweep masks train` learns from."""
HANDCRAFTED: tuple[MethodName, ...] = ("fusion", *TEACHERS)
"""Methods without weights."""


class MaskMethod(Protocol):
    """Makes masks in two steps, so that large images need not be in memory together."""

    parameters: dict[str, Any]
    """Settings that, with the weights, determine the masks."""

    def prepare(self, image: Image) -> Any:
        """Prepare one image for `masks`."""
        ...

    def masks(self, prepared: Sequence[Any]) -> Iterator[Mask]:
        """A mask of each image's size, 0 (background) to 255 (foreground)."""
        ...


class MaskMethodClass(ABC):
    """A mask method of another package.

    It is named in `masks make --method`: by its path, ``package.module:Class``, or by an entry point of the group
    ``bgsweep.mask_methods``. It is made without arguments, in each process that makes masks.
    """

    parameters: dict[str, Any] = {}  # noqa: RUF012  subclasses set it, in the class or in __init__

    def prepare(self, image: Image) -> Any:
        """Prepare one RGB image (H, W, 3) of uint8 for `masks`; a large one may be made smaller."""
        return image

    @abstractmethod
    def masks(self, prepared: Sequence[Any]) -> Iterator[Mask]:
        """A mask of each image's size, 0 (background) to 255 (foreground)."""


class Handcrafted:
    """A method without weights, which computes a mask from one image.

    Args:
        make: function from an image and `settings` to a mask.
        version: tells masks of the method as it is from those that it made before.
    """

    def __init__(self, make: Callable[..., Mask], version: int | None = None, **settings: Any) -> None:
        self._make, self._settings = make, settings
        self.parameters = {**settings, **({"version": version} if version else {})}

    def prepare(self, image: Image) -> Mask:
        return self._make(image, **self._settings)

    def masks(self, prepared: Sequence[Mask]) -> Iterator[Mask]:
        return iter(prepared)


def build_method(name: str, weights: bytes | None = None, network: str | None = None) -> MaskMethod:
    """The method of a name; raises UserError if a package is missing or the weights cannot be used.

    Args:
        weights: content of an ONNX file, for `network` and `usps`.
        network: name of its interface, for `network`; None: it is not known.
    """
    if name in HANDCRAFTED:
        return _handcrafted(name)
    if name not in METHODS:
        return of_another_package(name)()
    from bgsweep.masks.network import MaskNetwork, Usps

    assert weights is not None
    return Usps(weights) if name == "usps" else MaskNetwork(weights, NETWORKS[network] if network else UNKNOWN)


def of_another_package(name: str) -> type[MaskMethodClass]:
    """The class of a mask method that is not built in.

    Raises:
        UserError: there is none.
    """
    try:
        found: type[MaskMethodClass] = plugins.find(plugins.MASK_METHODS, name, MaskMethodClass, METHODS)
    except plugins.UnknownPart as error:
        raise UserError(f"--method: {error}") from error
    return found


def _handcrafted(name: str) -> MaskMethod:
    from bgsweep.masks.fusion import fused
    from bgsweep.masks.grabcut import grabcut_rectangle
    from bgsweep.masks.mbd import mbd_saliency
    from bgsweep.masks.rbd import rbd_grabcut

    rbd: dict[str, Any] = {"side": 160, "superpixels": 200}
    mbd: dict[str, Any] = {"side": 200}
    rectangle: dict[str, Any] = {"margin": 0.06, "iterations": 3, "side": 160}
    sharpened = {"iterations": 2, "side": 256}
    if name == "fusion":
        return Handcrafted(fused, version=1, rbd=rbd, mbd=mbd, rectangle=rectangle, grabcut_=sharpened)
    if name == "rbd":
        return Handcrafted(rbd_grabcut, version=3, **rbd, grabcut=sharpened)
    if name == "mbd":
        return Handcrafted(mbd_saliency, **mbd)
    return Handcrafted(grabcut_rectangle, **rectangle)


def weights_digest(weights: bytes | None) -> str | None:
    """SHA-256 of the weights' file; None without weights."""
    return None if weights is None else hashlib.sha256(weights).hexdigest()
