"""Methods on several workers."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from bgsweep.config import load
from bgsweep.training.build import distribute, initial_method
from bgsweep.training.device import select_device

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_distributed_method_sends_no_buffers_and_warns_of_nothing(alone: None) -> None:
    experiment = load(TINY).experiment
    method = initial_method(experiment, 10)
    assert list(method.buffers())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = distribute(method, select_device(experiment))
        assert not getattr(model, "forward_sync_buffers", getattr(model, "broadcast_buffers", True))
