"""Evaluation by all ranks of a run together, so that none waits for another."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from bgsweep.errors import UnreadableImage

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """The ranks of torch's default process group, all of which run the same evaluation at the same time.

    Attributes:
        rank: of this process.
        size: number of ranks.
        device: of this process's encoder; NCCL exchanges results through it.
    """

    rank: int
    size: int
    device: torch.device

    def map(self, task: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        """The task's result for every part, in order, on all ranks; each rank computes every `size`-th part.

        Raises:
            UnreadableImage: on all ranks, where one of them met it, so that all of them begin again.
        """
        every = list(parts)
        found: list[Result] = []
        problem: str | None = None
        try:
            found = [task(part) for part in every[self.rank :: self.size]]
        except UnreadableImage as error:
            problem = str(error)
        gathered = self._gathered((found, problem))
        for _, told in gathered:
            if told is not None:
                raise UnreadableImage(told)
        return (gathered[number % self.size][0][number // self.size] for number in range(len(every)))

    def _gathered(self, mine: Any) -> list[Any]:
        gathered: list[Any] = [None] * self.size
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                dist.all_gather_object(gathered, mine)
        else:
            dist.all_gather_object(gathered, mine)
        return gathered
