"""Masks by a network."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.errors import UserError
from bgsweep.images.compositing import Image, Mask
from bgsweep.masks.grabcut import grabcut, shrink
from bgsweep.masks.interfaces import NETWORKS, UNKNOWN, Interface

Floats = npt.NDArray[np.float32]

# Probabilities may miss 0 and 1 by this; half-precision networks do.
_ROUNDING = 0.01


class Runtime(Protocol):
    """A loaded network: N x 3 x height x width in, N x C x height x width out."""

    size: tuple[int, int]
    """Width and height of its input."""
    batch: int
    """Number of images that it takes at a time."""

    def __call__(self, images: Floats) -> Floats: ...


class Prepared(NamedTuple):
    """A network's input, 3 x side x side, its image's height and width, and (for `Usps`) a small copy of it."""

    pixels: Floats
    size: tuple[int, int]
    small: Image | None = None


class MaskNetwork:
    """A network of a given interface.

    Args:
        weights: content of an ONNX file.
        interface: of the network; a file of an unknown network must yield one channel of probabilities.

    Raises:
        UserError: ONNX Runtime is needed and not installed, or the file has another interface.
    """

    def __init__(self, weights: bytes, interface: Interface = UNKNOWN) -> None:
        self._interface = interface
        self._network = _runtime(weights, interface)
        width, height = self._network.size
        self.parameters: dict[str, Any] = {**interface.record(), "input": [height, width]}

    def prepare(self, image: Image) -> Prepared:
        pixels = network_input(image, self._network.size, self._interface)
        return Prepared(pixels, (image.shape[0], image.shape[1]))

    def masks(self, prepared: Sequence[Prepared]) -> Iterator[Mask]:
        size = self._network.batch
        for first in range(0, len(prepared), size):
            part = prepared[first : first + size]
            for item, output in zip(part, self._run(np.stack([item.pixels for item in part])), strict=False):
                yield self._mask(self._probabilities(output), item)

    def check(self, image: Image) -> None:
        """Try the network on an image.

        Raises:
            UserError: its output is not what its interface says.
        """
        output = self._run(self.prepare(image).pixels[None])[0]
        self._probabilities(output)
        if self._interface.activation and output.min() >= 0 and output.max() <= 1:
            raise UserError(
                f"--weights: the network's output lies between 0 and 1, unlike that of {self._interface.network}; name "
                "another --network, or leave it out"
            )

    def _run(self, images: Floats) -> Floats:
        """Run the network, always on full batches, so that a mask does not depend on the number of images beside it."""
        missing = self._network.batch - len(images)
        zeros = np.zeros((missing, *images.shape[1:]), np.float32)
        return self._network(np.concatenate([images, zeros]) if missing else images)

    def _probabilities(self, output: Floats) -> Floats:
        """The foreground's probability, height x width, from the output for one image."""
        known = self._interface
        if output.ndim != 3 or len(output) != known.channels:
            channels = f"{len(output)} channels" if output.ndim == 3 else f"the shape {list(output.shape)}"
            raise UserError(
                f"--weights: the network's output has {channels}, not {known.channels}; name the network by --network"
            )
        if known.activation == "sigmoid":
            output = cast(Floats, 1 / (1 + np.exp(-np.clip(output, -80, 80))))
        elif known.activation == "softmax":
            output = np.exp(output - output.max(axis=0))
            output /= output.sum(axis=0)
        low, high = float(output.min()), float(output.max())
        if not -_ROUNDING <= low <= high <= 1 + _ROUNDING:  # also if they are not finite
            raise UserError(
                f"--weights: the network's output lies between {low:.3g} and {high:.3g}, not between 0 and 1; name the "
                "network by --network"
            )
        return cast(Floats, output[list(known.foreground)].sum(axis=0))

    def _mask(self, found: Floats, item: Prepared) -> Mask:
        low, high = float(found.min()), float(found.max())
        least = self._interface.stretched_from
        if least is not None and high >= least and high > low:
            found = (found - low) / (high - low)
        scaled = cv2.resize(found, item.size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


class Usps(MaskNetwork):
    """A network of `bgsweep masks train`, whose maps are sharpened by GrabCut, as those of `rbd` are.

    A map with a maximum below 0.5 (no object found) is left unchanged.
    """

    def __init__(self, weights: bytes) -> None:
        super().__init__(weights, Interface(None, side=None, stretched_from=None, license=""))
        self.parameters["grabcut"] = {"iterations": 2, "side": 256}

    def prepare(self, image: Image) -> Prepared:
        return super().prepare(image)._replace(small=shrink(image, self.parameters["grabcut"]["side"]))

    def _mask(self, found: Floats, item: Prepared) -> Mask:
        if found.max() < 0.5:
            return super()._mask(found, item)
        assert item.small is not None
        level = cv2.resize(found, item.small.shape[1::-1], interpolation=cv2.INTER_LINEAR).astype(np.float64)
        mask = grabcut(item.small, level, **self.parameters["grabcut"])
        return cast(Mask, cv2.resize(mask, item.size[::-1], interpolation=cv2.INTER_LINEAR))


def _runtime(weights: bytes, interface: Interface) -> Runtime:
    from bgsweep.masks.u2netp import SHA256, U2NetP

    if hashlib.sha256(weights).hexdigest() == SHA256 and interface in (UNKNOWN, NETWORKS["u2netp"]):
        return U2NetP(weights)
    from bgsweep.masks.onnx_runtime import OnnxNetwork

    return OnnxNetwork(weights, interface)


def network_input(image: Image, size: tuple[int, int], interface: Interface = UNKNOWN) -> Floats:
    """The network's input as its authors prepare it: 3 x height x width.

    Args:
        image: RGB, uint8.
        size: width and height in pixels to which the image is resized.
        interface: of the network; by default U2-Net's.
    """
    shrinks = min(image.shape[1] / size[0], image.shape[0] / size[1]) > 2
    # Linear interpolation reads two pixels a side; of more that lie between, it would leave some out.
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    pixels = cv2.resize(image, size, interpolation=method).astype(np.float32)
    pixels /= max(float(pixels.max()), 1.0) if interface.scale == "maximum" else 255
    mean, std = (np.array(values, np.float32) for values in (interface.mean, interface.std))
    return cast(Floats, np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)))
