"""The first part: does training on the GPU compute what it computes on the CPU, and without waiting for the host?"""

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu.rows import MISSED, Rows, Skipped, Values
from benchmarks.gpu.timing import flat, free_memory, synchronize, update_of
from benchmarks.gpu.workloads import Scale, device_of, real_batches, resolved, started
from bgsweep.config.methods import METHODS
from bgsweep.data.batch import Batch
from bgsweep.training import Trainer, load_checkpoint, save_checkpoint

# Of float32 on two kinds of hardware: products are summed in another order, which BatchNorm of small batches enlarges.
LOSS_TOLERANCE, UPDATE_TOLERANCE = 1e-4, 2e-2
COMPILED_TOLERANCE = 1e-3
# BG_Swaps' negatives give each batch a size of its own, for which cuDNN tries its algorithms anew.
BATCHES = 2
# Most of these methods' weights are in their heads, and are copied to the CPU several times; `finite` has all of them.
NARROW = {"vicreg": {"hidden_dim": 2048, "embedding_dim": 2048}, "dino": {"prototypes": 4096}}
# Levels of 255: the same code on two devices rounds alike but at ties; the CPU's code is OpenCV's, of whole numbers.
DEVICES_MEAN, PIPELINES_MEAN = 0.02, 1.0


def run(rows: Rows, toy: bool) -> None:
    """All checks; those that found errors most often come first."""
    check = Checks(Scale(toy), device_of(toy))
    for name in METHODS:
        rows.measure(f"fp32 as on the CPU: {name}", partial(check.as_on_cpu, name))
    rows.measure("colors on the device", check.colors)
    for name in METHODS:
        rows.measure(f"no host sync, bf16: {name}", partial(check.no_sync, name, "bf16"))
    rows.measure("no host sync, colors on the device: moco_v2", partial(check.no_sync, "moco_v2", "bf16", "device"))
    for name in METHODS:
        rows.measure(f"finite, bf16: {name}", partial(check.finite, name, "bf16"))
    for name in METHODS:
        rows.measure(f"resume: {name}", partial(check.resume, name))
    for name in METHODS:  # what differs from bf16 is the scale of gradients, the same code for all methods
        rows.measure(f"no host sync, fp16: {name}", partial(check.no_sync, name, "fp16"))
        rows.measure(f"finite, fp16: {name}", partial(check.finite, name, "fp16"))
    for name in ("moco_v2", "swav"):
        rows.measure(f"compile: {name}", partial(check.compiled, name), seconds=0 if toy else 40)


class Checks:
    """The checks, each of which gives the values of its row."""

    def __init__(self, scale: Scale, device: str) -> None:
        self.scale, self.device = scale, device

    def trainer(self, name: str, device: str | None = None, narrow: bool = False, **training: Any) -> Trainer:
        """A method with background augmentation, and BG_Swaps where it has negatives; ``narrow`` heads save time."""
        colors = training.pop("photometric", "cpu")
        size, small = self.scale.pick((64, 32), (24, 16))
        background: dict[str, float] = {"remove": 0.2, "random": 0.2}
        if METHODS[name].supports_swaps:
            background["swap"] = 0.5
        method = {"queue_size": 4096} if name == "moco_v2" and not self.scale.toy else {}
        if narrow and not self.scale.toy:
            method |= NARROW.get(name, {})
        tree = {
            "data": {"resize": self.scale.pick(80, 32)},
            "views": {**self.scale.views(name, size, small), "photometric": colors},
            "background": background,
            "method": self.scale.method(name, **method),
            "encoder": self.scale.encoder,
            "training": {"epochs": 4, "batch_size": self.scale.pick(64, 32), **training},
        }
        return started(resolved(tree, device or self.device))

    def as_on_cpu(self, name: str) -> Values:
        """One step in float32 of the same weights on the same batch. The toy compares two memory formats instead."""
        here = self.trainer(name, narrow=True, precision="fp32")
        reference = self.trainer(name, "cpu", narrow=True, precision="fp32", channels_last=False)
        (batch,) = real_batches(reference, 1)
        losses: list[float] = []
        updates = [
            update_of(each.method, lambda each=each: losses.append(_step(each, batch, 0))) for each in (here, reference)
        ]
        loss = abs(losses[0] - losses[1]) / abs(losses[1])
        update = float((updates[0] - updates[1]).norm() / updates[1].norm())
        alike = loss <= LOSS_TOLERANCE and update <= UPDATE_TOLERANCE
        wanted = f"wanted: loss within {LOSS_TOLERANCE:g}, update within {UPDATE_TOLERANCE:g}"
        return {
            "loss": losses[0],
            "loss_difference": loss,
            "update_difference": update,
            MISSED: "" if alike else wanted,
        }

    def no_sync(self, name: str, precision: str, colors: str = "cpu") -> Values:
        """Steps in which the host never waits for the device, once they have warmed up."""
        if colors == "device" and self.device == "cpu":
            raise Skipped("the draws of colors are read on the CPU: only a GPU tells them from its own values")
        training = self._in(name, precision, photometric=colors)
        batches = real_batches(training, BATCHES) * 2
        for index, batch in enumerate(batches):
            training._step(batch, index)
        synchronize(training.placement.device)
        with _no_waiting(training.placement.device):
            for index, batch in enumerate(batches, start=len(batches)):
                training._step(batch, index)
        return {"steps": len(batches)}

    def finite(self, name: str, precision: str) -> Values:
        """The loss and the weights stay finite, with mixed precision, over 50 steps."""
        training = self._in(name, precision)
        steps = self.scale.pick(50, 4)
        batches = itertools.islice(itertools.cycle(real_batches(training, BATCHES)), steps)
        losses = [training._step(batch, index)["loss"].detach() for index, batch in enumerate(batches)]
        values = torch.stack(losses).tolist()
        well = all(map(math.isfinite, values)) and bool(flat(training.method).isfinite().all())
        return {"first_loss": values[0], "last_loss": values[-1], "steps": steps, MISSED: "" if well else "not finite"}

    def resume(self, name: str) -> Values:
        """Two steps, a checkpoint and two more against four steps; bit for bit where the device's kernels allow it."""
        ends = [self._trained(name, resumed) for resumed in (False, False, True)]
        again, resumed = ((each - ends[0]).abs().max().item() for each in ends[1:])
        # Kernels that add in varying order make two uninterrupted runs differ too: then no more than some times that.
        well = resumed == 0 or resumed <= 10 * again
        missed = "" if well else f"a resumed run differs by {resumed:.3g}, an uninterrupted one by {again:.3g}"
        return {"bit_identical": resumed == 0, "difference": resumed, "of_two_uninterrupted": again, MISSED: missed}

    def colors(self) -> Values:
        """Colors rendered on the device, on the CPU by the same code, and by the CPU's pipeline."""
        from bgsweep.augment.color_batched import render

        drawn, pixels = (self.trainer("moco_v2", photometric=where) for where in ("device", "cpu"))
        (batch,), (plain,) = real_batches(drawn, 1), real_batches(pixels, 1)
        if batch.photometry is None:
            raise AssertionError("a batch for the device has no draws of colors")
        color, device = drawn.experiment.views.color, drawn.placement.device
        pairs = list(zip(batch.views, batch.photometry, strict=False))
        here = [render(view.to(device), rows, color).cpu() for view, rows in pairs]
        there = [render(view, rows, color) for view, rows in pairs]
        devices, pipelines = _levels(here, there), _levels(here, plain.views)
        well = devices["mean"] <= DEVICES_MEAN and pipelines["mean"] <= PIPELINES_MEAN
        wanted = f"wanted: means of at most {DEVICES_MEAN} and {PIPELINES_MEAN} levels"
        return {
            **{f"{key}_levels_to_the_same_code_on_cpu": value for key, value in devices.items()},
            **{f"{key}_levels_to_the_cpu_pipeline": value for key, value in pipelines.items()},
            MISSED: "" if well else wanted,
        }

    def compiled(self, name: str) -> Values:
        """The compiled encoder's loss against the plain one's, the first step's seconds, and compilations after it."""
        from torch._dynamo.utils import counters

        if self.scale.toy:
            raise Skipped("compiling for a CPU takes minutes")

        plain, compiled = (self.trainer(name, precision="fp32", compile=each) for each in (False, True))
        batches = real_batches(plain, 4)
        expected = [_step(plain, batch, index) for index, batch in enumerate(batches)]
        counters.clear()
        began = time.monotonic()
        found = [_step(compiled, batches[0], 0)]
        first, graphs = time.monotonic() - began, counters["stats"]["unique_graphs"]
        found += [_step(compiled, batch, index) for index, batch in enumerate(batches[1:], start=1)]
        later = counters["stats"]["unique_graphs"] - graphs
        difference = abs(found[0] - expected[0]) / abs(expected[0])
        missed = f"loss differs by {difference:.2g}" if difference > COMPILED_TOLERANCE else ""
        missed = missed or (f"{later} graphs were compiled after the first step" if later else "")
        drift = max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))
        return {
            "first_step_s": first,
            "graphs": graphs,
            "loss_difference": difference,
            "after_4_steps": drift,
            MISSED: missed,
        }

    def _in(self, name: str, precision: str, **values: Any) -> Trainer:
        if precision == "fp16" and self.device == "cpu":
            raise Skipped("fp16 needs a GPU")
        free_memory(torch.device(self.device))
        return self.trainer(name, precision=precision, **values)

    def _trained(self, name: str, resumed: bool) -> torch.Tensor:
        training = self.trainer(name, narrow=True, precision="fp32")
        batches = real_batches(training, BATCHES) * 2
        with _deterministic():
            for index, batch in enumerate(batches):
                if resumed and index == 2:
                    training = self._through_a_file(name, training)
                _step(training, batch, index)
        return flat(training.method)

    def _through_a_file(self, name: str, training: Trainer) -> Trainer:
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder, "state.pt"), training.state_dict())
            fresh = self.trainer(name, narrow=True, precision="fp32")
            fresh.load_state_dict(load_checkpoint(Path(folder, "state.pt")))
        fresh.model.train()
        return fresh


def _step(training: Trainer, batch: Batch, index: int) -> float:
    torch.manual_seed(index)
    return float(training._step(batch, index)["loss"])


def _levels(found: list[torch.Tensor], expected: list[torch.Tensor]) -> dict[str, float]:
    differences = torch.cat(
        [(one.int() - other.int()).abs().flatten() for one, other in zip(found, expected, strict=True)]
    )
    return {"mean": differences.double().mean().item(), "max": float(differences.max())}


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _no_waiting(device: torch.device) -> Iterator[None]:
    """A context in which reading a value of the device raises. On a CPU, the operations that would have to wait do."""
    if device.type != "cuda":
        with _Reads():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class _Reads(TorchDispatchMode):
    """Raises where the result's value or shape depends on what a tensor holds."""

    reading = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        called: Callable[..., Any] = func
        if func.overloadpacket.__name__.lstrip(".") in self.reading:
            raise RuntimeError(f"the host reads a value of the device: {func}")
        return called(*args, **(kwargs or {}))
