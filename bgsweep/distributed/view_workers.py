"""Batches made by actors of a Ray cluster, for nodes whose GPUs need more views than their own cores can make.

Plain actors rather than Ray Data: they live as long as the training process, so that an epoch, and a sweep's next
trial, begins without start-up (10 to 20 s for each Ray Data execution), and batches come in order. One and two actors
made 0.88 and 0.60 times the batches of as many processes alone, Ray Data 0.77 and 0.49 (benchmarks/loader.py).
"""

import functools
import hashlib
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from bgsweep.config import Data
from bgsweep.data import open_splits
from bgsweep.data.batch import Batch
from bgsweep.data.batch_maker import BatchIndex, BatchMaker, init_worker, made_for_another
from bgsweep.data.sample import ImageDataset
from bgsweep.distributed.actor_pool import TASKS_PER_ACTOR, ActorPool, ActorsDied, returns_user_errors
from bgsweep.errors import UserError

# One `BatchMaker` for each of the seeds that train side by side.
_CACHED_MAKERS = 16


class RayFeed:
    """A `BatchFeed` of `data.loader_workers` actors with one core each, started with the first epoch.

    Ray places them on nodes without GPUs while these have free cores. Each opens the dataset on its own node, and
    refuses to work if its images differ from those of the training process.
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        self._stored: Any = None

    def __call__(
        self, maker: BatchMaker, indices: Iterable[BatchIndex], pin_memory: bool
    ) -> Iterator[Batch | UserError]:
        """Raises `UserError` if a batch cannot be made, or an actor keeps dying."""
        import ray

        assert self._data.loader_workers
        here = ray.get_runtime_context()
        pool = _pool(here.get_node_id(), here.get_worker_id(), self._data.loader_workers)
        if self._stored is None:
            rest = {name: value for name, value in vars(maker).items() if name != "dataset"}
            self._stored = ray.put((self._data, fingerprint(maker.dataset), rest))
        requested = deque[Future[Batch]]()
        waiting = iter(enumerate(indices))
        thread = ThreadPoolExecutor(1, "batches")  # fetches over the network, and pins, while a step computes

        def request_next() -> None:
            for number, index in waiting:
                # In turns: batches are used in order, so that one made ahead of its turn would only wait.
                reference = pool.actors[number % len(pool.actors)].run.remote([self._stored], index)
                requested.append(thread.submit(_fetch, pool, reference, pin_memory))
                return

        try:
            for _ in range(TASKS_PER_ACTOR * len(pool.actors)):
                request_next()
            while requested:
                batch = requested.popleft().result()
                request_next()
                yield batch
        finally:
            # Wait for a batch that is being fetched: once Ray is shut down the thread would never get it, and Python
            # waits for the thread when it exits.
            thread.shutdown(wait=True, cancel_futures=True)


def ray_feed(data: Data) -> RayFeed | None:
    """The feed that `data.loader: cluster` asks for."""
    return RayFeed(data) if data.loader == "cluster" else None


def fingerprint(source: ImageDataset) -> str:
    """A digest of the images' names, order and labels."""
    total = hashlib.sha256("\0".join(source.ids).encode("utf-8", "surrogateescape"))
    total.update(source.labels.tobytes())
    return total.hexdigest()


@functools.lru_cache(maxsize=1)
def _pool(node: str, process: str, count: int) -> ActorPool:
    """The actors of this process, which end with it; node and process tell one session of Ray from the next."""
    # Zero copy: batches are read from Ray's shared memory instead of being copied out of it.
    options: dict[str, Any] = {
        "num_cpus": 1,
        "scheduling_strategy": "DEFAULT",  # not inside the placement group of the trial or the training worker
        "runtime_env": {"env_vars": {"RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1"}},
    }
    # Batches in Ray's store are read-only; nothing writes to them.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    return ActorPool(
        _ViewMaker,
        (Path.cwd(),),
        count,
        options,
        task="makes views",
        advice="lower data.loader_workers or training.batch_size",
    )


class _ViewMaker:
    """A `BatchMaker` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        init_worker()
        with suppress(OSError):  # so that relative paths mean the same as in the training process, on its machine
            os.chdir(folder)

    @returns_user_errors
    def run(self, stored: list[Any], index: BatchIndex) -> Batch | UserError:
        """The batch of (epoch, step); `stored` holds Ray's reference to the arguments of `BatchMaker`."""
        maker = _maker(stored[0])
        return made_for_another(lambda: maker[index])


@functools.lru_cache(maxsize=_CACHED_MAKERS)
def _maker(stored: Any) -> BatchMaker:
    import ray

    data, mark, rest = ray.get(stored)
    source = open_splits(data).train
    if fingerprint(source) != mark:
        raise UserError(
            f"{source.name}: node {ray.util.get_node_ip_address()}, which makes views, has other images under "
            "this name than the node that trains; copy the same images to both, or set data.loader: local"
        )
    return BatchMaker(dataset=source, **rest)


def _fetch(pool: ActorPool, reference: Any, pin_memory: bool) -> Batch:
    try:
        batch: Batch = pool.get(reference)
    except ActorsDied:
        _pool.cache_clear()
        raise
    return batch.pin_memory() if pin_memory else batch
