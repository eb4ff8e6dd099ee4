"""A GPU that is not there: steps run on fake CUDA tensors, and everything for which the host would wait is noted."""

import contextlib
import traceback
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)
_ROOTS = tuple(str(Path(__file__).parents[1] / name) for name in ("bgsweep", "tests"))
_aten = torch.ops.aten


class FakeGPU(TorchDispatchMode):
    """Runs what touches a CUDA tensor on fake tensors, and everything else for real.

    `syncs` are the operations for which the host would wait, each with its line: values that are read, copies to the
    host, copies to the device that block or come from memory that is not pinned, and shapes that depend on values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.syncs: list[str] = []
        self.watching = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        target = kwargs.get("device")
        on_gpu = any(_there(tensor) for tensor in tensors)
        if not on_gpu and (target is None or torch.device(target).type != "cuda"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet is _aten._local_scalar_dense:
            self._note("reads a value")
            return 0
        if packet is _aten.nonzero:
            self._note(f"{func}: a shape that depends on values")
            return torch.zeros((1, args[0].ndim), dtype=torch.long, device=GPU)
        if packet in (_aten._to_copy, _aten.copy_, _aten.to):
            return self._copied(func, args, kwargs)
        if packet.__name__ in SYNC_BATCH_NORM:
            return SYNC_BATCH_NORM[packet.__name__](*args)
        if packet is _aten._fused_sgd_:  # in place, and not known to fake tensors
            return None
        if on_gpu and any(not _there(tensor) and tensor.ndim for tensor in tensors):
            self._note(f"{func}: takes a tensor of the host")
        if packet in (_aten.index, _aten.index_put, _aten.index_put_, _aten._unsafe_index):
            args = (args[0], [self._without_masks(index) for index in args[1]], *args[2:])
        return func(*args, **kwargs)

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func.overloadpacket is _aten.copy_:
            (target, source), waits = args[:2], not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            there = _there(target)
        else:
            source, waits, there = args[0], not kwargs.get("non_blocking", False), True
            if kwargs.get("device") is not None:
                there = torch.device(kwargs["device"]).type == "cuda"
        if _there(source) and not there:
            self._note("copies to the host")
            with unset_fake_temporarily():
                return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        if not _there(source) and there and source.ndim + (source.numel() > 0):
            if waits:
                self._note("a blocking copy to the device")
            elif not hasattr(source, "was_pinned"):
                self._note("a copy to the device from memory that is not pinned")
        return func(*args, **kwargs)

    def _without_masks(self, index: Tensor | None) -> Tensor | None:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            return index
        self._note("an index by a mask, whose shape depends on values")
        return torch.zeros(index.shape[0], dtype=torch.long, device=GPU)

    def _note(self, what: str) -> None:
        if not self.watching:
            return
        frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(_ROOTS)]
        ours = [frame for frame in frames if not frame.filename.endswith("fake_gpu.py")] or frames
        last = ours[-1]
        self.syncs.append(f"{Path(last.filename).name}:{last.lineno} {what}: {last.line}")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        self.watching = True
        try:
            yield
        finally:
            self.watching = False


@contextlib.contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """A context in which `GPU` can be computed on; values on it have no meaning."""
    gpu = FakeGPU()
    with (
        patch.object(Tensor, "pin_memory", _pinned),
        patch.object(Tensor, "is_pinned", lambda self, *_: hasattr(self, "was_pinned")),
        patch.object(Tensor, "backward", _backward),
        patch("torch.amp.grad_scaler.amp_definitely_not_available", return_value=False, create=True),
        patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        patch("torch.cuda.is_bf16_supported", return_value=True),
        patch("torch.cuda.is_current_stream_capturing", return_value=False),
        FakeTensorMode(allow_non_fake_inputs=True),
        gpu,
    ):
        yield gpu


def _there(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def _pinned(tensor: Tensor, *_: Any) -> Tensor:
    copy = tensor.clone()
    copy.was_pinned = True  # type: ignore[attr-defined]
    return copy


def _backward(loss: Tensor) -> None:
    """Backward through the graph, node by node: torch's engine needs a driver for CUDA tensors, fake ones too."""
    root = loss.grad_fn
    assert root is not None
    gradients: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    gradients[root][0] = torch.ones_like(loss)
    for node in _in_order(root):
        mine = gradients.pop(node, {})
        if not mine:
            continue
        if hasattr(node, "variable"):
            leaf, gradient = node.variable, mine[0]
            leaf.grad = gradient.detach() if leaf.grad is None else leaf.grad + gradient
            continue
        with torch.no_grad():
            found = _called(node, mine)
        # Only tensors have a node; in our own functions other arguments come last.
        for (following, position), gradient in zip(node.next_functions, found, strict=False):
            if following is not None and gradient is not None:
                there, wanted = gradients[following], following._input_metadata[position]
                gradient = gradient.sum_to_size(wanted.shape).to(wanted.dtype)  # as torch's engine does
                there[position] = there[position] + gradient if position in there else gradient


def _called(node: Any, mine: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    outputs = max(len(node._input_metadata), max(mine) + 1)
    call = node if callable(node) else node.apply  # a function written in Python
    found = call(*[mine.get(position) for position in range(outputs)])
    return found if isinstance(found, tuple) else (found,)


def _in_order(root: Any) -> list[Any]:
    """Nodes below a root, each before those that follow it."""
    waiting: dict[Any, int] = defaultdict(int)
    seen, stack = {root}, [root]
    while stack:
        for following, _ in stack.pop().next_functions:
            if following is not None:
                waiting[following] += 1
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
    ready, order = [root], []
    while ready:
        node = ready.pop()
        order.append(node)
        for following, _ in node.next_functions:
            if following is not None:
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)
    return order


def _statistics(values: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(values.float(), _others(values), correction=0)
    return mean, torch.rsqrt(variance + eps)


def _gathered(
    values: Tensor,
    means: Tensor,
    invstds: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    shares, total = (counts / counts.sum())[:, None], counts.sum()
    mean = (shares * means).sum(0)
    variance = (shares * (invstds**-2 - eps + (means - mean) ** 2)).sum(0)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * total / (total - 1), momentum)
    return mean, torch.rsqrt(variance + eps)


def _normalized(values: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, invstd: Tensor, eps: float) -> Tensor:
    return ((values - _wide(mean, values)) * _wide(invstd * weight, values) + _wide(bias, values)).to(values.dtype)


def _reduced(
    gradient: Tensor, values: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor, *_: bool
) -> tuple[Tensor, ...]:
    sum_dy = gradient.float().sum(_others(values))
    sum_dy_xmu = (gradient * (values - _wide(mean, values))).float().sum(_others(values))
    return sum_dy, sum_dy_xmu, sum_dy_xmu * invstd, sum_dy


def _of_input(
    gradient: Tensor,
    values: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    counts: Tensor,
) -> Tensor:
    slope = (values - _wide(mean, values)) * _wide(invstd**2 * sum_dy_xmu / counts.sum(), values)
    centred = gradient - _wide(sum_dy / counts.sum(), values) - slope
    return (centred * _wide(invstd * weight, values)).to(values.dtype)


def _others(values: Tensor) -> list[int]:
    return [0, *range(2, values.ndim)]


def _wide(per_channel: Tensor, values: Tensor) -> Tensor:
    return per_channel.view(1, -1, *[1] * (values.ndim - 2))


SYNC_BATCH_NORM: dict[str, Any] = {
    "batch_norm_stats": _statistics,
    "batch_norm_gather_stats_with_counts": _gathered,
    "batch_norm_elemt": _normalized,
    "batch_norm_backward_reduce": _reduced,
    "batch_norm_backward_elemt": _of_input,
}
"""What CUDA's kernels of these names compute: neither CPUs nor fake tensors have them."""
