"""BatchNorm with the statistics of all workers' batches, on GPUs and CPUs."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """torch's `SyncBatchNorm` for devices that it refuses, such as the CPU; all workers' batches have the same size.

    The variance is the mean of squared deviations from the common mean; E[x²] - E[x]² would cancel for large means.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        values = input.float()
        others = [0, *range(2, input.ndim)]
        channels = [1, -1] + [1] * (input.ndim - 2)
        mean: Tensor = _WorkersMean.apply(values.mean(dim=others))
        deviations = values - mean.view(channels)
        variance: Tensor = _WorkersMean.apply(deviations.square().mean(dim=others))
        self._update(mean.detach(), variance.detach(), dist.get_world_size() * input.numel() // input.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (deviations * scale.view(channels) + self.bias.view(channels)).to(input.dtype)

    def _update(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, the variance without bias."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class _WorkersMean(torch.autograd.Function):
    """The mean of the workers' tensors, on all of them; its own adjoint."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _mean(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _mean(gradient)


def _mean(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def convert_sync_bn(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with each of its BatchNorms, weights and statistics as they are, replaced by a synchronised one."""
    if device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return synced
    for name, child in module.named_children():
        setattr(module, name, convert_sync_bn(child, device))
    if not isinstance(module, _BatchNorm):
        return module
    synced_norm = SyncBatchNorm(module.num_features, module.eps, module.momentum)
    synced_norm.load_state_dict(module.state_dict())
    synced_norm.weight.requires_grad_(module.weight.requires_grad)
    synced_norm.bias.requires_grad_(module.bias.requires_grad)
    return synced_norm
