"""Copies between the host and the device for which the host does not wait."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on the device.

    From ordinary memory CUDA copies by way of a buffer of its own, and may wait for all earlier work to do so.
    """
    if device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class ArrivingNumber:
    """A number that changes on the device; `value` is what it was when it last reached the host, at first 0."""

    def __init__(self) -> None:
        self.value = 0.0
        self._copy: tuple[Tensor, torch.cuda.Event] | None = None

    def update(self, number: Tensor) -> None:
        """Take what has arrived, and send the present number after it; on a CPU it is there at once."""
        if number.device.type != "cuda":
            self.value = float(number)
            return
        if self._copy is not None:
            copy, arrived = self._copy
            if not arrived.query():
                return
            self.value = float(copy)
        self._copy = number.to("cpu", non_blocking=True), torch.cuda.Event()  # torch pins the memory of such a copy
        self._copy[1].record(torch.cuda.current_stream(number.device))
