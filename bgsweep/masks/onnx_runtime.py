"""A mask network of an ONNX file, on ONNX Runtime."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bgsweep.errors import UserError, one_line, warn_once
from bgsweep.masks.interfaces import Interface

Floats = npt.NDArray[np.float32]

# With a free batch dimension, as many pixels at a time as 16 images of U2-Net's size have.
_PIXELS = 16 * 320 * 320
_SIDE = 320


class OnnxNetwork:
    """N x 3 x H x W in, N x C x H x W out; on a GPU if ONNX Runtime has one.

    Raises:
        UserError: ONNX Runtime is not installed, or the file cannot be loaded, or takes other inputs than `interface`.
    """

    def __init__(self, weights: bytes, interface: Interface) -> None:
        self._session = _session(weights)
        entry = self._session.get_inputs()[0]
        shape = entry.shape
        if len(shape) != 4 or shape[1] != 3:
            raise UserError(
                f"--weights: the network takes {shape}, not images N x 3 x H x W; name one such as u2net.onnx"
            )
        height, width = (length if isinstance(length, int) else interface.side or _SIDE for length in shape[2:])
        if interface.side and (height, width) != (interface.side, interface.side):
            raise UserError(
                f"--weights: the network takes images of {width}x{height} pixels, but {interface.network} takes "
                f"{interface.side}x{interface.side}; name another --network"
            )
        self.size = width, height
        self.batch = shape[0] if isinstance(shape[0], int) else max(1, _PIXELS // (width * height))
        self._names = [self._session.get_outputs()[0].name], entry.name
        self._type = np.float16 if entry.type == "tensor(float16)" else np.float32

    def __call__(self, images: Floats) -> Floats:
        outputs, entry = self._names
        found = self._session.run(outputs, {entry: images.astype(self._type, copy=False)})[0]
        return cast(Floats, found.astype(np.float32, copy=False))


def _session(weights: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "this network needs ONNX Runtime: pip install 'bgsweep[masks]', on GPUs onnxruntime-gpu; or leave out "
            "--weights and --network"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one worker per core makes more masks per second than several threads
    options.log_severity_level = 3
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        reason = one_line(error)
        raise UserError(f"--weights: not a network that ONNX Runtime can load ({reason}); download it again") from error
    if not set(providers) <= set(session.get_providers()):  # it says so itself, but only in its own log
        warn_once(
            "ONNX Runtime cannot load its CUDA libraries and runs on the CPU; see its documentation for the versions"
        )
    return session
