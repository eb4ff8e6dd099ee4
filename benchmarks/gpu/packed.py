"""The fifth part: small encoders trained side by side on one device: in turn, on streams of their own, or as one.

All take SimCLR's step (its loss, BatchNorm with running statistics, SGD with momentum and a rate for each) on the same
batch, as trials of a sweep do that differ in their hyperparameters.
"""

import copy
import statistics
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.gpu.rows import Rows, Values
from benchmarks.gpu.timing import free_memory, peak_gib, reset_peak, seconds_of
from benchmarks.gpu.workloads import Scale, device_of, networks, noise, resolved
from bgsweep.config import Experiment
from bgsweep.methods.base import Views

ENCODERS = {
    "resnet10, width 16, 24 px": ({"name": "resnet10", "width": 16, "stem": "small"}, 24),
    "resnet18, 64 px": ({"name": "resnet18", "stem": "small"}, 64),
}
COUNTS = (4, 16)
MOMENTUM = 0.9
Step = Callable[[], object]


def run(rows: Rows, toy: bool) -> None:
    scale, device = Scale(toy), torch.device(device_of(toy))
    for name in ENCODERS:
        for count in scale.pick(COUNTS, (2,)):
            rows.measure(
                f"{name}, {count} trials", partial(measure, name, count, scale, device), seconds=0 if toy else 15
            )
            free_memory(device)


def experiment(name: str, toy: bool, device: str) -> Experiment:
    encoder, size = ENCODERS[name]
    tree = {
        "views": {"size": 16 if toy else size},
        "method": {"name": "simclr", "hidden_dim": 256, "embedding_dim": 64},
        "encoder": {"name": "resnet10", "width": 4, "stem": "small"} if toy else encoder,
        "training": {"batch_size": 16 if toy else 64, "precision": "bf16" if device == "cuda" else "fp32"},
    }
    return resolved(tree, device)


def trials(settings: Experiment, count: int) -> list[nn.Module]:
    """The networks of some trials, of different initial weights."""
    return [networks(settings.model_copy(update={"seed": seed}), 10) for seed in range(count)]


def loss_of(method: nn.Module, views: Views) -> Tensor:
    device = views.images[0].device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss: Tensor = method(views).loss
    return loss


def in_turn(methods: list[nn.Module], views: Views, rates: list[float], streams: bool = False) -> Step:
    """A step of all trials, one after the other; on a GPU each on its own stream, if asked for."""
    steps = [_alone(method, views, rate) for method, rate in zip(methods, rates, strict=True)]
    if not streams:
        return lambda: [step() for step in steps]
    own = [torch.cuda.Stream() for _ in steps]

    def step() -> None:
        now = torch.cuda.current_stream()
        for stream, each in zip(own, steps, strict=True):
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                each()
        for stream in own:
            now.wait_stream(stream)

    return step


def _alone(method: nn.Module, views: Views, rate: float) -> Step:
    optimizer = torch.optim.SGD(method.parameters(), lr=rate, momentum=MOMENTUM)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(method, views).backward()
        optimizer.step()

    return step


def stacked(methods: list[nn.Module], views: Views, rates: list[float]) -> tuple[Step, dict[str, Tensor]]:
    """A step of all trials as one network with a dimension more; and its parameters and buffers."""
    parameters, buffers = torch.func.stack_module_state(methods)
    whole = _Loss(copy.deepcopy(methods[0]).to("meta"))
    # Parameters that one trial holds fixed are fixed in all.
    fixed = {name for name, each in methods[0].named_parameters() if not each.requires_grad}
    trained = [each.requires_grad_(name not in fixed) for name, each in parameters.items()]
    moving = [each for each in trained if each.requires_grad]
    momenta = [torch.zeros_like(each) for each in moving]
    by_trial = [torch.tensor(rates, device=each.device).view(-1, *[1] * (each.dim() - 1)) for each in moving]

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        # BatchNorm's statistics are written into the stacked buffers, each trial's into its own.
        loss: Tensor = torch.func.functional_call(whole, _under(parameters, buffers), (views,))
        return loss

    def step() -> None:
        for each in moving:
            each.grad = None
        torch.func.vmap(one, randomness="different")(parameters, buffers).sum().backward()
        with torch.no_grad():
            gradients = [cast(Tensor, each.grad) for each in moving]
            torch._foreach_mul_(momenta, MOMENTUM)
            torch._foreach_add_(momenta, gradients)
            torch._foreach_sub_(moving, torch._foreach_mul(momenta, by_trial))

    return step, {**parameters, **buffers}


class _Loss(nn.Module):
    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: Views) -> Tensor:
        return loss_of(self.method, views)


def _under(*states: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"method.{name}": value for state in states for name, value in state.items()}


def measure(name: str, count: int, scale: Scale, device: torch.device) -> Values:
    """Steps of a trial a second, and the memory of each way."""
    settings = experiment(name, scale.toy, device.type)
    views = Views(noise(settings, device).views, torch.zeros(settings.training.batch_size, device=device))
    rates = [0.01 * (1 + number) for number in range(count)]
    ways: dict[str, Step] = {"in_turn": in_turn(trials(settings, count), views, rates)}
    ways["stacked"] = stacked(trials(settings, count), views, rates)[0]
    if device.type == "cuda":
        ways["streams"] = in_turn(trials(settings, count), views, rates, streams=True)
    found: Values = {"trials": count}
    for way, step in ways.items():
        seconds_of([step], device, 1, scale.pick(5, 1))  # chooses kernels, fills the allocator
        reset_peak(device)
        seconds_of([step], device, 1, 1)
        found[f"{way}_gib"] = peak_gib(device)
    times = seconds_of(list(ways.values()), device, *scale.pick((5, 4), (2, 1)))
    for way, seconds in zip(ways, times, strict=True):
        found[f"{way}_per_second"] = count / statistics.median(seconds)
        found[f"{way}_ratio"] = round(statistics.median(a / b for a, b in zip(times[0], seconds, strict=True)), 2)
    return found
