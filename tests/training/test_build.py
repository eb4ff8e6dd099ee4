"""Methods on several workers."""

import warnings
from pathlib import Path

from bgsweep.config import load
from bgsweep.training.build import distribute, initial_method
from bgsweep.training.device import select_device

TINY = Path(__file__).parents[1] / "tiny.yaml"


def test_a_distributed_method_sends_no_buffers_and_warns_of_nothing(alone: None) -> None:
    experiment = load(TINY).experiment
    method = initial_method(experiment, 10)
    assert list(method.buffers())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = distribute(method, select_device(experiment))
        assert not getattr(model, "forward_sync_buffers", getattr(model, "broadcast_buffers", True))
