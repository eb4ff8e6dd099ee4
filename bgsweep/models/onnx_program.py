"""Networks as ONNX, by torch's exporter."""

import copy
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config

from bgsweep.errors import UserError, one_line


def onnx_program(
    network: nn.Module, example: Tensor, input_name: str, output_name: str, axes: Mapping[int, str]
) -> Any:
    """The network in eval mode and float32 as a `torch.onnx.ONNXProgram`.

    Args:
        network: unchanged.
        example: an input, of two or more images: the exporter takes a length of one for a constant.
        axes: names of the input's axes whose length may change.

    Raises:
        UserError: the packages that write ONNX are not installed, or the network cannot be exported.
    """
    check_onnx("ONNX")
    network = copy.deepcopy(network).cpu().float().eval().to(memory_format=torch.contiguous_format)
    # torch.onnx logs and warns about matters of its own developers.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # Without the option a network that pools rejects images whose feature map is one pixel wide.
    with warnings.catch_warnings(), _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # made at import
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                network,
                (example,),
                input_names=[input_name],
                output_names=[output_name],
                dynamic_shapes=(dict(axes),),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = one_line(error)[:300]
            raise UserError(f"torch.onnx cannot export this network: {reason}; use another format") from error
    assert program is not None
    return program


def check_onnx(wanted_by: str) -> None:
    """Raise UserError if the packages that write ONNX are missing; for a check before long work."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{wanted_by} needs the packages onnx and onnxscript: pip install 'bgsweep[onnx]'") from error
