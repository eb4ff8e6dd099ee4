"""U2-Net-P (Qin et al. 2020) in PyTorch, with the weights that come with bgsweep.

PyTorch rather than ONNX Runtime, which takes 78 MB and, for GPUs, another build in its place.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.errors import UserError

WEIGHTS = Path(__file__).parent / "weights_u2netp" / "u2netp.onnx"
SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
SIDE = 320
# A GPU needs many images at a time to be busy. A core does not, and the sums of larger batches are in another order.
_BATCH = {"cuda": 16, "cpu": 1}


class Convolution(NamedTuple):
    """A convolution that keeps the image's size."""

    weight: Tensor
    bias: Tensor
    dilation: int

    def __call__(self, features: Tensor) -> Tensor:
        padding = self.dilation * (self.weight.shape[-1] // 2)
        return F.conv2d(features, self.weight, self.bias, padding=padding, dilation=self.dilation)


class U2NetP:
    """The network: float32 N x 3 x 320 x 320 in, probabilities N x 1 x 320 x 320 out.

    Args:
        weights: content of ``u2netp.onnx``.
        device: default: a GPU, if there is one.
    """

    size = (SIDE, SIDE)

    def __init__(self, weights: bytes, device: str | None = None) -> None:
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch = _BATCH[self._device]
        # channels_last: 1.3 times as fast on a core with AVX-512
        self._convolutions = [
            Convolution(
                convolution.weight.to(self._device, memory_format=torch.channels_last),
                convolution.bias.to(self._device),
                convolution.dilation,
            )
            for convolution in read_convolutions(weights)
        ]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(self._device, memory_format=torch.channels_last)
            return self._forward(pixels).cpu().numpy()

    def _forward(self, images: Tensor) -> Tensor:
        convolutions = iter(self._convolutions)
        levels = [images]
        # Six encoders, four of which (of 7, 6, 5 and 4 levels) halve the size within; in the last two it is kept.
        for stage, (height, halved) in enumerate(_STAGES):
            entry = levels[-1] if stage == 0 else _halved(levels[-1])
            levels.append(_block(entry, convolutions, height, halved))
        found = levels.pop()
        decoded = [found]
        for (height, halved), level in zip(reversed(_STAGES[:-1]), reversed(levels[1:]), strict=True):
            found = _block(torch.cat([_scaled(found, level), level], 1), convolutions, height, halved)
            decoded.append(found)
        sides = [next(convolutions)(level) for level in reversed(decoded)]
        return next(convolutions)(torch.cat([_scaled(side, images) for side in sides], 1)).sigmoid()


# Levels of each stage's residual U-block, and whether each level has half the size of the one above it.
_STAGES = ((7, True), (6, True), (5, True), (4, True), (4, False), (4, False))


def _block(features: Tensor, convolutions: Iterator[Convolution], height: int, halved: bool) -> Tensor:
    """A residual U-block (section 3.1 of the paper)."""
    entry = next(convolutions)(features).relu()
    levels = [next(convolutions)(entry).relu()]
    for _ in range(height - 2):
        levels.append(next(convolutions)(_halved(levels[-1]) if halved else levels[-1]).relu())
    found = next(convolutions)(levels[-1]).relu()
    for level in reversed(levels):
        found = next(convolutions)(torch.cat([_scaled(found, level), level], 1)).relu()
    return found + entry


def _halved(features: Tensor) -> Tensor:
    return F.max_pool2d(features, 2, ceil_mode=True)


def _scaled(features: Tensor, like: Tensor) -> Tensor:
    if features.shape[2:] == like.shape[2:]:
        return features
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=False)


def shipped_weights() -> bytes:
    """The content of the package's weights file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        weights = WEIGHTS.read_bytes()
    except OSError as error:
        raise UserError(f"{WEIGHTS}: {error.strerror}; install bgsweep again") from error
    if hashlib.sha256(weights).hexdigest() != SHA256:
        raise UserError(f"{WEIGHTS}: damaged (its SHA-256 is not {SHA256[:16]}…); install bgsweep again")
    return weights


def read_convolutions(weights: bytes) -> list[Convolution]:
    """The convolutions of an ONNX file, in the order in which they run.

    Reads the few fields of ONNX's protocol buffers that it needs (onnx.proto), so that nothing need be installed.
    """
    graph = _fields(_fields(weights)[7][0])
    tensors = dict(map(_tensor, graph[5]))
    found = []
    for node in map(_fields, graph[1]):
        if node[4][0] == b"Conv":
            attributes = {one[1][0]: one for one in map(_fields, node[5])}
            weight, bias = (tensors[name] for name in node[1][1:])
            found.append(Convolution(weight, bias, _numbers(attributes[b"dilations"][8])[0]))
    return found


def _tensor(message: bytes) -> tuple[bytes, Tensor]:
    fields = _fields(message)
    return fields[8][0], torch.from_numpy(np.frombuffer(fields[9][0], "<f4").reshape(_numbers(fields[1])).copy())


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """Values of a protocol buffer by field number; a number is left as its bytes."""
    fields: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        end = at
        match key & 7:
            case 0:
                _, end = _varint(message, at)
            case 2:
                length, at = _varint(message, at)
                end = at + length
            case kind:
                end = at + {1: 8, 5: 4}[kind]
        fields.setdefault(key >> 3, []).append(message[at:end])
        at = end
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
        shift += 7


def _numbers(values: list[bytes]) -> list[int]:
    """Repeated whole numbers, packed or not."""
    numbers = []
    for value in values:
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            numbers.append(number)
    return numbers
