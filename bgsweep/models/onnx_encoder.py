"""Encoders in ONNX files, on ONNX Runtime: without gradients, and without layers to look into."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bgsweep.errors import UserError, one_line
from bgsweep.models.encoders import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder

_NOT_NORMALIZED = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class OnnxNetwork(nn.Module):
    """Images (N, 3, H, W) to the first output of an ONNX file, as (N, D).

    The buffer `digest` stands for the weights, which are in the file; a copy in another process opens it again.

    Raises:
        UserError: ONNX Runtime is not installed, or the file is missing, damaged or takes no images.
    """

    digest: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self._session = path, _session(path)
        entry = self._session.get_inputs()[0]
        if len(entry.shape) != 4 or entry.shape[1] != 3 or entry.type not in _TYPES:
            raise UserError(
                f"{path}: takes {entry.type} {entry.shape}, not images N x 3 x H x W; export an image encoder"
            )
        self._entry, self._type = entry.name, _TYPES[entry.type]
        self.batch, self.side = (each if isinstance(each, int) else None for each in (entry.shape[0], entry.shape[2]))
        self.normalizes = "normalized_by_the_network" in self._session.get_modelmeta().custom_metadata_map.get(
            "preprocessing", ""
        )
        self.register_buffer("digest", torch.frombuffer(bytearray(_digest(path)), dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        if self.side is not None and images.shape[2] != self.side:
            raise UserError(
                f"{self.path}: takes images of {self.side} px, not {images.shape[2]}; set size and preprocessing.crop"
            )
        given = images.detach().cpu().numpy().astype(self._type)
        count = self.batch or max(1, len(given))
        parts = [given[first : first + count] for first in range(0, len(given), count)]
        found = np.concatenate([self._run(part, count) for part in parts])
        return torch.from_numpy(found.reshape(len(found), -1).astype(np.float32)).to(images.device)

    def _run(self, part: Any, count: int) -> Any:
        session = self._session = self._session or _session(self.path)
        short = count - len(part) if self.batch else 0
        whole = np.concatenate([part, np.repeat(part[:1], short, axis=0)]) if short else part
        return session.run(None, {self._entry: whole})[0][: len(part)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # which cannot be copied


_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def load_onnx(path: Path, unit: bool | None = None) -> tuple[ImageEncoder, nn.Linear | None, str, int | None]:
    """An encoder in an ONNX file, its classifier, a word on its origin, and the size of its images in pixels, if fixed.

    A network with 1000 outputs is taken for a classifier of ImageNet: its logits are the features too.

    Args:
        unit: it takes images in [0, 1], as those that `bgsweep export` wrote; False: normalised with ImageNet's mean
            and deviation; None: in [0, 1] if the file has bgsweep's description, which says so.

    Raises:
        UserError: as `OnnxNetwork`, or the outputs are no vectors.
    """
    network = OnnxNetwork(path)
    unit = network.normalizes if unit is None else unit
    statistics = _NOT_NORMALIZED if unit else (IMAGENET_MEAN, IMAGENET_STD)
    try:
        width = network(torch.zeros(1, 3, network.side or 224, network.side or 224)).shape[1]
    except UserError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise UserError(f"{path}: ONNX Runtime: {one_line(error)[:200]}; export it again") from error
    head = None
    words = f"{path} ({'images in [0, 1]' if unit else 'images normalized as ImageNet'})"
    if width == 1000:
        head = nn.Linear(width, width)
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
        head = head.eval().requires_grad_(False)
        words += ", whose 1000 outputs are features and ImageNet's classes"
    encoder = ImageEncoder(network, width, *statistics)
    return encoder.eval().requires_grad_(False), head, words, network.side


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: ONNX needs ONNX Runtime: pip install 'bgsweep[onnx]'") from error
    if not path.is_file():
        raise UserError(f"{path}: no such file; name an ONNX file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise UserError(
            f"{path}: not a network that ONNX Runtime can load ({one_line(error)[:200]}); export it again"
        ) from error


def _digest(path: Path) -> bytes:
    """SHA-256 of the file and of the file of its weights beside it, if there is one."""
    total = hashlib.sha256()
    for each in (path, path.with_name(f"{path.name}.data")):
        if each.is_file():
            with each.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.digest()
