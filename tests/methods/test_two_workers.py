"""Two gloo workers with half the batch each do what one worker does with the whole batch."""

from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bgsweep.config import Experiment, resolve
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.training import Trainer, select_device

SMALL = [
    "encoder={name: resnet10, width: 8, stem: small}",
    "views={size: 16}",
    "training={epochs: 3, batch_size: 8, precision: fp32}",
    "optimizer={lr: 0.02}",
    "data={loader_workers: 0}",
    "workers={device: cpu}",
]
MOCO = ["method={queue_size: 32, hidden_dim: 16, embedding_dim: 8, momentum: 0.9}"]
SWAPS = ["background={random: 0.5, swap: 0.6}"]
BYOL = ["method={name: byol, hidden_dim: 16, embedding_dim: 8, momentum: 0.9}", "optimizer={name: lars, trust: 0.1}"]
SWAV = [
    "method={name: swav, prototypes: 12, hidden_dim: 16, embedding_dim: 8, freeze_prototypes: 1}",
    "views={size: 16, small_crops: 2, small_size: 8}",
]
SIMCLR = ["method={name: simclr, hidden_dim: 16, embedding_dim: 8}"]
VICREG = ["method={name: vicreg, hidden_dim: 16, embedding_dim: 8}"]
DINO = [
    "method={name: dino, prototypes: 12, hidden_dim: 16, embedding_dim: 8, momentum: 0.9, batch_norm: true}",
    "optimizer={name: adamw, lr: 0.001, weight_decay: {from: 0.1, to: 0.5}, clip_norm: 0.1}",
    "views={size: 16, small_crops: 2, small_size: 8}",
]
QUEUE = ["method.queue_size=16", "method.queue_start=0"]
SYNC = ["training.sync_bn=true"]
PARTS = ["training.accumulate=2"]
CASES = {  # what both have, what two workers have besides, and what one has
    "moco_v2": (MOCO, [], ["method.split_bn=2"]),
    "moco_v2 symmetric": ([*MOCO, *SWAPS, "method.symmetric=true"], ["method.split_bn=2"], ["method.split_bn=4"]),
    "moco_v2 in parts": ([*MOCO, *SWAPS, *PARTS], [], ["method.split_bn=2"]),
    "byol": (BYOL, SYNC, []),
    "byol in parts": ([*BYOL, *PARTS], SYNC, []),
    "swav": (SWAV, SYNC, []),
    "swav with queue": ([*SWAV, *QUEUE], SYNC, []),
    "simclr": (SIMCLR, SYNC, []),
    "simclr with swaps in parts": ([*SIMCLR, *SWAPS, *PARTS], SYNC, []),
    "vicreg": (VICREG, SYNC, []),
    "vicreg in parts": ([*VICREG, *PARTS], SYNC, []),
    "dino": (DINO, SYNC, []),
    "dino in parts": ([*DINO, *PARTS], SYNC, []),
    "supervised": (["method={name: supervised}"], SYNC, []),
}


class Preprocessing(EmbeddedSample):
    """Eight images, so that an epoch is one step."""

    def __init__(self) -> None:
        super().__init__("train", 24)
        chosen = range(0, len(self), 120)
        self._images, self._masks = [self._images[i] for i in chosen], [self._masks[i] for i in chosen]
        self.ids, self.labels = [self.ids[i] for i in chosen], self.labels[chosen]


def train(experiment: Experiment, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Three steps on this worker's share of the same batches; the weights, and the losses under `losses`.

    In double precision: so small networks on so few images are steep, and float32's rounding, which depends on
    how a batch is shared out, grows a thousandfold in three steps.
    """
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    with patch.object(torch.Tensor, "float", torch.Tensor.double):
        placement = select_device(experiment)
        training = Trainer(experiment, Preprocessing(), placement, rank, world_size)
        losses = [training.step_epoch()["loss"] for _ in range(experiment.training.epochs)]
    torch.set_default_dtype(torch.float32)
    return {**training.method.state_dict(), "losses": torch.tensor(losses)}


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for name, (shared, together, _) in CASES.items():
        torch.save(train(resolve({}, [*SMALL, *shared, *together]).experiment, rank, 2), folder / f"{name} {rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each of the two workers came to in each case."""
    folder = tmp_path_factory.mktemp("pairs")
    mp.spawn(work, args=(folder,), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_same_losses_and_same_weights(pairs: Path, name: str) -> None:
    first, second = (torch.load(pairs / f"{name} {rank}.pt", weights_only=True) for rank in (0, 1))
    shared, together, alone = CASES[name]
    one = train(resolve({}, [*SMALL, *shared, *alone]).experiment, 0, 1)
    for key, value in one.items():
        # Without synchronisation each worker's BatchNorm keeps its own statistics, of as many batches as it had groups.
        if together == SYNC or not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(first[key], value, rtol=1e-6, atol=1e-8, msg=partial("{}: {}".format, key))
            assert torch.equal(first[key], second[key]), f"the workers differ in {key}"
