"""LARS (You et al. 2017) in the form used by BYOL (Grill et al. 2020)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step for each parameter tensor is proportional to the tensor's norm.

    For a tensor p with gradient g: ``g += weight_decay p; g *= trust |p| / |g|; m = momentum m + g; p -= lr m``, where
    a norm of zero leaves g as it is. The rate is outside the momentum, so that a change of it takes effect at once.

    Args:
        params: tensors, or groups with their own values of the other arguments.
        lr: learning rate.
        momentum: in [0, 1).
        weight_decay: not negative.
        trust: trust coefficient; None uses the gradient's own norm, as BYOL does for biases and norms.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float | None = 1e-3,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    # `GradScaler` then hands the step `found_inf` as a tensor; else it reads it, for which the host waits. The trainer
    # has unscaled the gradients before.
    _step_supports_amp_scaling = True
    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closures
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            if learning:
                self._update(learning, [parameter.grad for parameter in learning], group)

    def _update(self, parameters: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            updates = list(torch._foreach_add(updates, parameters, alpha=group["weight_decay"]))
        if group["trust"] is not None:
            updates = list(torch._foreach_mul(updates, _ratios(parameters, updates, group["trust"])))
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        before = None if self.found_inf is None else [tensor.clone() for tensor in (*momenta, *parameters)]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, updates)
        torch._foreach_add_(parameters, momenta, alpha=-group["lr"])
        if before is not None and self.found_inf is not None:  # overflowed in float16: the step is left out
            for tensor, old in zip((*momenta, *parameters), before, strict=True):
                tensor.copy_(torch.where(self.found_inf > 0, old, tensor))


def _ratios(parameters: list[Tensor], updates: list[Tensor], trust: float) -> list[Tensor]:
    """trust |p| / |g| for each tensor, 1 where a norm is zero; stays on the device."""
    weight, update = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, updates))
    return list(torch.where((weight > 0) & (update > 0), trust * weight / update, 1.0))
