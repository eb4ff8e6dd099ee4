"""Optimisers by name."""

from typing import Any

import torch
from torch import nn

from bgsweep.config import Optimizer
from bgsweep.training.lars import LARS


def build_optimizer(config: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimiser over the parameters that learn.

    MoCo's and SwAV's decay all of them. Without `decay_all` those of one dimension, biases and norms, are neither
    decayed nor, by LARS, adapted.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": learning}]
    if not config.decay_all:
        untouched: dict[str, Any] = {"weight_decay": 0.0, **({"trust": None} if config.name == "lars" else {})}
        groups = [
            {"params": [parameter for parameter in learning if parameter.ndim > 1]},
            {"params": [parameter for parameter in learning if parameter.ndim <= 1], **untouched},
        ]
    rate, decay = config.lr, config.weight_decay
    match config.name:
        case "sgd":
            return _with_momenta(torch.optim.SGD(groups, rate, config.momentum, weight_decay=decay, fused=True))
        case "lars":
            return LARS(groups, rate, config.momentum, decay, config.trust)
        case "adamw":
            return torch.optim.AdamW(groups, rate, config.betas, weight_decay=decay, fused=True)


def _with_momenta(sgd: torch.optim.SGD) -> torch.optim.SGD:
    # The fused kernel cannot take a parameter whose first gradient comes late, as SwAV's prototypes' does, unless its
    # momentum is there; from zero it goes on as it would from nothing.
    for group in sgd.param_groups:
        for parameter in group["params"]:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd
