"""Sums over the steps of an epoch, kept in checkpoints that are written within it."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bgsweep.data.batch import Batch


@dataclass
class EpochSums:
    """Sums over the steps of an epoch so far.

    Attributes:
        totals: the loss and the method's metrics, on the device, over this worker's steps.
        counts: of `Batch.counts`.
        waited: seconds that training waited for batches.
        elapsed: seconds in all.
        of_workers: `totals` of each worker, gathered for a checkpoint.
    """

    totals: dict[str, Tensor] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    waited: float = 0.0
    elapsed: float = 0.0
    of_workers: list[dict[str, float]] = field(default_factory=list)

    def add(self, metrics: dict[str, Tensor], counts: dict[str, int]) -> None:
        """Add one step's values."""
        for name, value in metrics.items():
            self.totals[name] = self.totals.get(name, 0) + value
        self.counts.update(counts)

    def public(self) -> dict[str, Any]:
        """The sums as plain values: a float32 is exact as a Python float."""
        times = {"waited": self.waited, "elapsed": self.elapsed}
        return {"of_workers": self.of_workers, "counts": dict(self.counts), **times}

    @classmethod
    def read(cls, saved: dict[str, Any], rank: int, world_size: int, device: torch.device) -> "EpochSums":
        """One worker's sums of what `public` wrote; other workers than then each take the mean of theirs."""
        found = saved["of_workers"]
        names = list(found[0])
        own = {name: math.fsum(each[name] for each in found) / len(found) for name in names}
        if len(found) == world_size:
            own = found[rank]
        totals = {name: torch.tensor(value, device=device) for name, value in own.items()}
        return cls(totals, Counter(saved["counts"]), saved["waited"], saved["elapsed"])


def timed(batches: Iterable[Batch], sums: EpochSums) -> Iterator[Batch]:
    """The batches; adds the time that they take, and the share of it in which training waits for them."""
    began = time.perf_counter()
    for batch in batches:
        sums.waited += time.perf_counter() - began
        yield batch
        now = time.perf_counter()
        sums.elapsed += now - began
        began = now


def shares_of_views(counts: Counter[str], n_views: int) -> dict[str, float]:
    """Shares of all views and, for BG_Swaps, of all images; and the number of unreadable images."""
    shares = {
        "bg_removed": counts["removed"],
        "bg_replaced": counts["replaced"],
        "bg_kept": counts["kept_small"] + counts["kept_large"],
        "bg_swapped": counts["swaps"] * n_views,
        "bg_swap_kept": counts["swaps_kept"] * n_views,
    }
    return {name: n / counts["views"] for name, n in shares.items()} | {"unreadable": float(counts["unreadable"])}
