"""Device, precision and float32 arithmetic of a run, with GPUs that are not there."""

import contextlib

import pytest
import torch

from bgsweep.config import Encoder, resolve
from bgsweep.errors import UserError
from bgsweep.models import build_encoder, to_unit
from bgsweep.training import select_device
from bgsweep.training.device import arithmetic

CUDA = torch.device("cuda", 1)


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, (8, 0))


def gpus(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)


@pytest.mark.parametrize(
    ("asked", "assigned", "device"),
    [
        ("auto", None, "cuda:0"),
        ("auto", "cuda:2", "cuda:2"),
        ("cuda", "cuda:3", "cuda:3"),
        ("auto", "cpu", "cpu"),  # there are GPUs, but Ray gave this process none
        ("cpu", "cuda:1", "cpu"),
    ],
)
def test_the_assigned_device_is_taken(ampere: None, asked: str, assigned: str | None, device: str) -> None:
    experiment = resolve({}, [f"workers.device={asked}"]).experiment
    assert select_device(experiment, assigned).device == torch.device(device)


def test_cuda_on_a_process_without_a_gpu_is_refused(ampere: None) -> None:
    with pytest.raises(UserError, match="Ray gave this process no GPU"):
        select_device(resolve({}, ["workers.device=cuda"]).experiment, "cpu")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        ((6, 1), None),
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
    ],
)
def test_auto_precision_is_what_the_gpu_has_units_for(
    capability: tuple[int, int], precision: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, capability)
    assert select_device(resolve({}).experiment).autocast == precision


def flags() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("bf16", True), ("fp16", True)])
def test_tf32_only_beside_a_shorter_precision_and_never_in_float32(ampere: None, precision: str, tf32: bool) -> None:
    before = flags()
    placement = select_device(resolve({}, [f"training.precision={precision}"]).experiment)
    with placement.arithmetic():
        assert flags() == (tf32, tf32, True)
        with arithmetic(CUDA, tf32=False):  # an evaluation in float32
            assert flags() == (False, False, False)
        assert flags() == (tf32, tf32, True)
    assert flags() == before
    with contextlib.suppress(ZeroDivisionError), placement.arithmetic():
        raise ZeroDivisionError
    assert flags() == before


def test_algorithms_are_not_tried_for_each_number_of_negatives(ampere: None) -> None:
    with select_device(resolve({}, ["background.swap=0.2"]).experiment).arithmetic():
        assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_the_backbone_gets_images_in_the_memory_format(memory_format: torch.memory_format) -> None:
    encoder = build_encoder(Encoder(name="resnet10", width=8, stem="small"), [16])
    encoder.memory_format = memory_format
    seen: list[torch.Tensor] = []
    encoder.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(to_unit(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)))
    assert seen[0].is_contiguous(memory_format=memory_format)


def test_compiled_code_is_made_for_each_size_of_crops_and_not_for_each_batch() -> None:
    torch._dynamo.reset()
    made: list[tuple[int | torch.SymInt, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        made.extend(
            tuple(each.shape)
            for each in inputs
            if isinstance(each, torch.Tensor) and each.ndim == 4 and each.shape[1] == 3 and each.shape[2] > 7
        )
        return graph

    encoder = build_encoder(Encoder(name="resnet10", width=8, stem="small"), [16])
    encoder.compile(backend=backend)
    for size, batch in [(16, 2), (8, 4), (16, 3), (8, 5), (16, 4), (8, 7), (16, 5)]:
        assert encoder(torch.rand(batch, 3, size, size)).shape == (batch, 64)
    sides = [shape[2:] for shape in made]
    assert all(isinstance(side, int) for shape in sides for side in shape), made
    assert set(sides) == {(16, 16), (8, 8)} and len(made) <= 4, made
