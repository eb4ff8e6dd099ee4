"""Two gloo workers with half the batch each do what one worker does with the whole batch."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from bgsweep.config import Experiment, resolve
from bgsweep.methods import build_method
from bgsweep.methods.method import Views

SMALL = ["encoder.name=resnet10", "encoder.width=8", "encoder.stem=small", "training.batch_size=8"]
MOCO = ["method.queue_size=32", "method.hidden_dim=16", "method.embedding_dim=8", "method.momentum=0.9"]
STEPS = 3


def train(experiment: Experiment, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """A few steps of SGD on this worker's share of fixed batches; the weights, and the losses under `losses`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    method = build_method(experiment, classes=3)
    model = DistributedDataParallel(method, broadcast_buffers=False) if world_size > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    losses = []
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        pictures = [torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8, generator=generator) for _ in range(2)]
        labels = torch.arange(8) % 3
        views = Views([picture.chunk(world_size)[rank] for picture in pictures], labels.chunk(world_size)[rank])
        loss = model(views).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(step / STEPS)
        losses.append(loss.detach())
    return {**method.state_dict(), "losses": torch.stack(losses)}


def work(rank: int, experiment: Experiment, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(train(experiment, rank, 2), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("together", "alone"),
    [
        ([*MOCO], [*MOCO, "method.split_bn=2"]),
        ([*MOCO, "method.split_bn=2", "method.symmetric=true"], [*MOCO, "method.split_bn=4", "method.symmetric=true"]),
    ],
    ids=["moco_v2", "moco_v2 symmetric"],
)
def test_same_losses_and_same_weights(tmp_path: Path, together: list[str], alone: list[str]) -> None:
    pair = resolve({}, [*SMALL, *together]).experiment
    mp.spawn(work, args=(pair, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    one = train(resolve({}, [*SMALL, *alone]).experiment, 0, 1)
    torch.testing.assert_close((first["losses"] + second["losses"]) / 2, one["losses"], rtol=1e-4, atol=1e-5)
    for name, value in one.items():
        if "running_" in name or name in ("losses", "num_batches_tracked"):
            continue  # each worker's BatchNorm keeps its own running statistics
        if "num_batches" not in name:
            torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4, msg=name)
            torch.testing.assert_close(first[name], second[name], msg=f"the workers differ in {name}")
