"""Collective operations that also work in a single process."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of workers; 1 outside of a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This worker's rank; 0 outside of a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@torch.no_grad()
def gather(tensor: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
    """Concatenate the workers' tensors (n, ...) in the order of their ranks: (world * n, ...), without gradient.

    ``lengths`` are the lengths of the workers' tensors, where they differ.
    """
    if world_size() == 1:
        return tensor.detach()
    if lengths is not None:
        padding = tensor.new_empty(max(lengths) - len(tensor), *tensor.shape[1:])
        tensor = torch.cat([tensor, padding])
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat([part[:length] for part, length in zip(parts, lengths or [len(tensor)] * len(parts), strict=True)])


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """As `gather`; each worker's tensor (n, ...) gets the sum of the gradients that all workers' losses have for it.

    DDP then averages over the workers, so that a mean of losses over workers has the gradients that it has on one.
    """
    gathered: Tensor = tensor if world_size() == 1 else _Gathered.apply(tensor)
    return gathered


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return gather(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def gather_on_host(number: int) -> list[int]:
    """Each worker's number, in the order of their ranks; hosts wait for one another, but none for its device."""
    if world_size() == 1:
        return [number]
    parts = [torch.zeros(1, dtype=torch.long) for _ in range(world_size())]
    dist.all_gather(parts, torch.tensor([number]), group=_host_group(dist.group.WORLD))
    return [int(part) for part in parts]


@functools.cache
def _host_group(world: Any) -> Any:
    """A group of all workers for tensors of the host, which NCCL does not take."""
    return dist.new_group(backend="gloo") if dist.get_backend(world) == "nccl" else world
