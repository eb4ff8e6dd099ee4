"""Batches made by processes of a Ray cluster, for nodes whose GPUs want more views than their own cores can make.

Plain actors rather than Ray Data (benchmarks/loader.py compares them): they live as long as the process that trains, so
that an epoch, and a sweep's next trial, begins without start-up, and batches come in the order in which they are asked
for.
"""

import functools
import hashlib
import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from bgsweep.config import Data
from bgsweep.data import open_splits
from bgsweep.data.loader import Batch, BatchIndex, BatchMaker, begin
from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UserError

# Batches that each process has made or is making for a step that has not come yet: as many as torch's DataLoader.
_AHEAD = 2
# Makers that a process keeps, one for each of the seeds that train side by side.
_KEPT = 16


class RayFeed:
    """A `Feed` of as many actors, one core each, as `data.loader_workers` says; they begin with the first epoch.

    Ray puts them on nodes without GPUs, as long as these have cores. Each opens the photographs where it is, and
    refuses others than those that the training opened.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._held: Any = None

    def __call__(
        self, maker: BatchMaker, places: Sequence[BatchIndex], pin_memory: bool
    ) -> Iterator[Batch | UserError]:
        """Ends with a `UserError` if a process dies again and again."""
        import ray

        assert self._data.loader_workers
        here = ray.get_runtime_context()
        pool = _pool(here.get_node_id(), here.get_worker_id(), self._data.loader_workers)
        if self._held is None:
            rest = {name: value for name, value in vars(maker).items() if name != "source"}
            self._held = ray.put((self._data, fingerprint(maker.source), rest))
        asked = deque[Any]()
        waiting = iter(enumerate(places))
        thread = ThreadPoolExecutor(1, "batches")  # brings them over the network, and pins them, while a step computes

        def ask() -> None:
            for number, place in waiting:
                made = pool[number % len(pool)].make.remote([self._held], place)
                asked.append(thread.submit(_brought, made, pin_memory))
                return

        try:
            for _ in range(_AHEAD * len(pool)):
                ask()
            while asked:
                brought = asked.popleft().result()
                ask()
                yield brought
        finally:
            # A batch on its way is waited for: once Ray is shut down the thread would never get it, and at its exit
            # Python waits for the thread.
            thread.shutdown(wait=True, cancel_futures=True)


def ray_feed(data: Data) -> RayFeed | None:
    """The feed that `data.loader: cluster` asks for."""
    return RayFeed(data) if data.loader == "cluster" else None


def fingerprint(source: ImageDataset) -> str:
    """Tells photographs of other names, or in another order, or with other labels, apart."""
    total = hashlib.sha256("\0".join(source.ids).encode("utf-8", "surrogateescape"))
    total.update(source.labels.tobytes())
    return total.hexdigest()


@functools.lru_cache(maxsize=1)
def _pool(node: str, process: str, count: int) -> list[Any]:
    """The actors of this process, which end with it; node and process tell one session of Ray from the next."""
    import ray

    options: dict[str, Any] = {
        "num_cpus": 1,
        "max_restarts": 3,  # a batch can be made again, anywhere, bit for bit
        "max_task_retries": 3,
        "scheduling_strategy": "DEFAULT",  # not inside the placement group of the trial or the training worker
        "runtime_env": {"env_vars": {"RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1"}},
    }
    # Batches lie in Ray's store, where nobody may write; nobody does.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    return [ray.remote(_ViewMaker).options(**options).remote(Path.cwd()) for _ in range(count)]


class _ViewMaker:
    """Makes batches in a process of its own. A `UserError` is handed over as a result: raised, it would be wrapped."""

    def __init__(self, folder: Path) -> None:
        begin()
        with suppress(OSError):  # relative places mean what they mean to the training, where there is its folder
            os.chdir(folder)

    def make(self, held: list[Any], place: BatchIndex) -> Batch | UserError:
        """The batch at a place; ``held`` refers to what a maker is made of."""
        try:
            return _maker(held[0])[place]
        except UserError as error:
            return error


@functools.lru_cache(maxsize=_KEPT)
def _maker(held: Any) -> BatchMaker:
    import ray

    data, mark, rest = ray.get(held)
    source = open_splits(data).train
    if fingerprint(source) != mark:
        raise UserError(
            f"{source.name}: node {ray.util.get_node_ip_address()}, which makes views, has other photographs under "
            "this name than the node that trains; bring them into line, or set data.loader: local"
        )
    return BatchMaker(source=source, **rest)


def _brought(made: Any, pin_memory: bool) -> Batch | UserError:
    import ray
    from ray.exceptions import RayActorError

    try:
        batch: Batch | UserError = ray.get(made)
    except RayActorError as error:
        _pool.cache_clear()
        raise UserError(
            "a process that makes views died again and again, perhaps for lack of memory; lower data.loader_workers or "
            "training.batch_size"
        ) from error
    return batch.pin_memory() if pin_memory and isinstance(batch, Batch) else batch
