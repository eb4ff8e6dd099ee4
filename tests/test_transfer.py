"""Copies for which the host does not wait."""

import math
from unittest.mock import Mock, patch

import pytest
import torch

from bgsweep.transfer import ArrivingNumber


def on_a_gpu(value: float) -> Mock:
    """A number on a GPU, whose copies to the host must not block."""

    def to(device: str, *, non_blocking: bool) -> torch.Tensor:
        assert (device, non_blocking) == ("cpu", True)
        return torch.tensor(value)

    return Mock(device=torch.device("cuda", 0), to=to)


def test_a_number_is_read_once_its_copy_has_arrived() -> None:
    number, event = ArrivingNumber(), Mock()
    with patch("torch.cuda.Event", return_value=event), patch("torch.cuda.current_stream"):
        event.query.return_value = False
        number.update(on_a_gpu(1.5))
        number.update(on_a_gpu(2.5))  # not sent: the first one is on its way
        assert number.value == 0
        event.query.return_value = True
        number.update(on_a_gpu(math.inf))
        assert number.value == 1.5
        number.update(on_a_gpu(4.5))
        assert number.value == math.inf


def test_on_a_cpu_it_is_there_at_once() -> None:
    number = ArrivingNumber()
    number.update(torch.tensor(2.5))
    assert number.value == pytest.approx(2.5)
