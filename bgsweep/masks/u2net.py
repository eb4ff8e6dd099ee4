"""Saliency by U2-Net (Qin et al. 2020) on ONNX Runtime."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.errors import UserError, one_line
from bgsweep.images.compositing import Image, Mask
from bgsweep.masks.grabcut import grabcut, shrink

Floats = npt.NDArray[np.float32]

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_BATCH = 16
_SIDE = 320


class Prepared(NamedTuple):
    """A network's input, 3 x side x side, its image's height and width, and (for `Usps`) a small copy of it."""

    pixels: Floats
    size: tuple[int, int]
    small: Image | None = None


class U2Net:
    """U2-Net, U2-Net-P or a network of the same interface: N x 3 x H x W in, probabilities N x 1 x H x W out.

    Args:
        weights: content of an ONNX file; with a free batch dimension it runs 16 images at a time.
        stretched_from: each map is scaled to 0..1, as U2-Net's authors do, unless its maximum is below this: then the
            network has found no object, and scaling would invent one (images in which U2-Net-P finds nothing have
            maxima below 0.07; scaled, their masks have an IoU below 0.08). None: never.

    Raises:
        UserError: ONNX Runtime is not installed, or the network has another interface.
    """

    def __init__(self, weights: bytes, stretched_from: float | None = 0.5) -> None:
        self._session = _session(weights)
        entry = self._session.get_inputs()[0]
        shape = entry.shape
        if len(shape) != 4 or shape[1] != 3:
            raise UserError(
                f"--weights: the network takes {shape}, not images N x 3 x H x W; name one such as u2net.onnx"
            )
        self._names = [self._session.get_outputs()[0].name], entry.name
        height, width = (length if isinstance(length, int) else _SIDE for length in shape[2:])
        self._size = width, height
        self._batch = shape[0] if isinstance(shape[0], int) else _BATCH
        self.parameters: dict[str, Any] = {"input": [height, width], "stretched_from": stretched_from}

    def prepare(self, image: Image) -> Prepared:
        return Prepared(network_input(image, self._size), (image.shape[0], image.shape[1]))

    def masks(self, prepared: Sequence[Prepared]) -> Iterator[Mask]:
        for first in range(0, len(prepared), self._batch):
            part = prepared[first : first + self._batch]
            for item, found in zip(part, self._run(np.stack([item.pixels for item in part])), strict=False):
                yield self._mask(found[0], item)

    def _run(self, batch: Floats) -> Floats:
        """Run the network, always on full batches, so that a mask does not depend on the number of images beside it."""
        missing = self._batch - len(batch)
        full = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)]) if missing else batch
        outputs, entry = self._names
        return cast(Floats, self._session.run(outputs, {entry: full})[0])

    def _mask(self, found: Floats, item: Prepared) -> Mask:
        low, high = float(found.min()), float(found.max())
        least = self.parameters["stretched_from"]
        if least is not None and high >= least and high > low:
            found = (found - low) / (high - low)
        scaled = cv2.resize(found, item.size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


class Usps(U2Net):
    """A network of `bgsweep masks train`, whose maps are sharpened by GrabCut, as those of `rbd` are.

    A map with a maximum below 0.5 (no object found) is left unchanged.
    """

    def __init__(self, weights: bytes) -> None:
        super().__init__(weights, stretched_from=None)
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


def network_input(image: Image, size: tuple[int, int]) -> Floats:
    """The network's input as U2-Net's authors prepare it: 3 x height x width.

    Args:
        image: RGB, uint8.
        size: width and height in pixels to which the image is resized.
    """
    pixels = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    pixels = (pixels / max(float(pixels.max()), 1.0) - _MEAN) / _STD
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _session(weights: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "this method needs ONNX Runtime: pip install 'bgsweep[masks]', on GPUs onnxruntime-gpu; or use --method rbd"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one worker per core makes more masks per second than several threads
    options.log_severity_level = 3
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(weights, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        reason = one_line(error)
        raise UserError(f"--weights: not a network that ONNX Runtime can load ({reason}); download it again") from error
