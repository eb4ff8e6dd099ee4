"""Optimisers by name."""

import torch
from torch import nn

from bgsweep.config import Optimizer


def build_optimizer(config: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimiser over the parameters that learn; MoCo's SGD decays all of them, norms and biases too."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        learning, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )
