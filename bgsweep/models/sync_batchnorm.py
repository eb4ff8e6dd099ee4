"""BatchNorm with the statistics of all workers' batches, on GPUs and CPUs."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """BatchNorm over all workers' batches, which may differ in size, on any device.

    torch's own refuses CPUs. On GPUs it leaves out workers with empty batches, so that the host waits for the device in
    each layer of each step; here the same kernels run without that. On other devices the variance is the mean of
    squared deviations from the common mean; E[x²] - E[x]² would cancel for large means.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(input)
        if input.device.type == "cuda":
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            statistics = (self.running_mean, self.running_var, self.momentum, self.eps)
            normalized: Tensor = _OnGPU.apply(input, self.weight, self.bias, *statistics)
            return normalized
        values = input.float()
        others = [0, *range(2, input.ndim)]
        channels = [1, -1] + [1] * (input.ndim - 2)
        count = input.numel() // input.shape[1]
        mean_count = _mean(values.new_tensor(count))
        weight = count / mean_count  # exactly 1 where all batches have the same size
        mean: Tensor = _WorkersMean.apply(values.mean(dim=others) * weight)
        deviations = values - mean.view(channels)
        variance: Tensor = _WorkersMean.apply(deviations.square().mean(dim=others) * weight)
        self._update(mean.detach(), variance.detach(), dist.get_world_size() * mean_count)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (deviations * scale.view(channels) + self.bias.view(channels)).to(input.dtype)

    def _update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, the variance without bias."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class _OnGPU(torch.autograd.Function):
    """torch's kernels for synchronised BatchNorm; only statistics go between the workers."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        input = _dense(input)
        channels, world = input.shape[1], dist.get_world_size()
        mean, invstd = torch.batch_norm_stats(input, eps)
        own = torch.cat([mean, invstd, mean.new_full((1,), input.numel() // channels)])
        everyones = [torch.empty_like(own) for _ in range(world)]
        dist.all_gather(everyones, own)
        means, deviations, counts = torch.stack(everyones).split([channels, channels, 1], dim=1)
        counts = counts.flatten()
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            input, means, deviations, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(input, weight, mean, invstd, counts.int())
        output: Tensor = torch.batch_norm_elemt(input, weight, bias, mean, invstd, eps)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, mean, invstd, counts = ctx.saved_tensors
        gradient = _dense(gradient)
        *sums, of_weight, of_bias = torch.batch_norm_backward_reduce(
            gradient, input, mean, invstd, weight, *ctx.needs_input_grad[:3]
        )
        of_input = None
        if ctx.needs_input_grad[0]:
            total = torch.cat(sums)
            dist.all_reduce(total)
            sum_dy, sum_dy_xmu = total.split(input.shape[1])
            of_input = torch.batch_norm_backward_elemt(
                gradient, input, mean, invstd, weight, sum_dy, sum_dy_xmu, counts
            )
        return of_input, of_weight, of_bias, None, None, None, None


def _dense(values: Tensor) -> Tensor:
    channels_last = values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last)
    return values if channels_last else values.contiguous()


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


def convert_sync_bn(module: nn.Module) -> nn.Module:
    """The module with each of its BatchNorms, weights and statistics as they are, replaced by a synchronised one."""
    for name, child in module.named_children():
        setattr(module, name, convert_sync_bn(child))
    if not isinstance(module, _BatchNorm):
        return module
    synced = SyncBatchNorm(module.num_features, module.eps, module.momentum)
    synced.load_state_dict(module.state_dict())
    synced.weight.requires_grad_(module.weight.requires_grad)
    synced.bias.requires_grad_(module.bias.requires_grad)
    return synced
