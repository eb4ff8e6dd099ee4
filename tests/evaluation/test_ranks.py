"""Two gloo ranks evaluate together: the same values as one, half the work each, and the same errors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from bgsweep.config import load
from bgsweep.errors import UnreadableImage
from bgsweep.evaluation import Ranks
from bgsweep.training import run

TINY = Path(__file__).parents[1] / "tiny.yaml"
SETTINGS = ["evaluate.bg_gap=true", "evaluate.online_bank=90", "evaluate.batch_size=32", "training.precision=fp32"]
SETTINGS += ["evaluate.metrics=[{name: lidar, images: 64, views: 2}, {name: reliance, foregrounds: 8, backgrounds: 8}]"]


def evaluated(rank: int, size: int) -> tuple[dict[str, float], int]:
    """The values of a run's first evaluation, and the number of images that this rank has encoded."""
    made = run.Run(load(TINY, SETTINGS), rank, size)
    for statistics in made.training.method.encoder.buffers():
        statistics += rank  # each rank's BatchNorm has its own; those of the first one count
    count = 0
    frozen_model = run.frozen_model

    def counting(*arguments: Any, **options: Any) -> Any:
        model = frozen_model(*arguments, **options)

        def encode(images: Tensor) -> Tensor:
            nonlocal count
            count += len(images)
            return model.encode(images)

        return replace(model, encode=encode)

    run.frozen_model = counting
    try:
        return made.evaluate(), count
    finally:
        run.frozen_model = frozen_model


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    ranks = Ranks(rank, 2, torch.device("cpu"))
    seen: list[int] = []

    def double(part: int) -> int:
        if part == 7:
            raise UnreadableImage("seven.jpg: gone")
        seen.append(part)
        return 2 * part

    doubled = list(ranks.map(double, range(5)))
    problem = ""
    try:
        list(ranks.map(double, range(8)))
    except UnreadableImage as error:
        problem = str(error)
    values, count = evaluated(rank, 2)
    torch.save(
        {"doubled": doubled, "seen": seen, "problem": problem, "values": values, "count": count}, folder / f"{rank}.pt"
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_values_of_one_and_share_its_work(tmp_path: Path) -> None:
    mp.spawn(work, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["doubled"] == second["doubled"] == [0, 2, 4, 6, 8]
    assert first["seen"][:3] == [0, 2, 4] and second["seen"][:2] == [1, 3]
    assert first["problem"] == second["problem"] == "seven.jpg: gone"
    values, count = evaluated(0, 1)
    assert first["values"] == second["values"] == pytest.approx(values, rel=1e-4)
    assert all(first["values"][name] == values[name] for name in ("knn_top1", "bg_gap")), "the same batches"
    assert values["knn_bank"] == 90 and "validation/lidar/rank_se" in values
    assert first["count"] + second["count"] == count
    assert abs(first["count"] - second["count"]) < 0.05 * count
