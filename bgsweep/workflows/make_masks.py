"""`bgsweep masks make`: masks for a tree of images, in one process or on Ray actors; resumes after interruption."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bgsweep.config.columns import Columns
from bgsweep.data.cores import usable_cores
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.formats import DEFAULT, open_images
from bgsweep.distributed.actor_pool import ActorPool, returns_user_errors
from bgsweep.errors import UserError
from bgsweep.masks.generate import Outcome, Worker
from bgsweep.masks.interfaces import NETWORKS
from bgsweep.masks.network import MaskNetwork
from bgsweep.masks.plan import Plan, check_target, make_plan, read_manifest, summary, write_manifest
from bgsweep.masks.registry import (
    HANDCRAFTED,
    METHODS,
    MaskMethod,
    build_method,
    of_another_package,
    weights_digest,
)
from bgsweep.masks.weights import load_weights
from bgsweep.storage.tree import open_tree
from bgsweep.storage.uri import refuse_inside

Job = tuple[Literal["make", "inspect"], Sequence[str]]


class Making(NamedTuple):
    """The trees of a run, and all that determines its masks.

    Attributes:
        weights: content of the network's file, or in actors where it lies in Ray's store.
        network: name of the network's interface; None if it is not known.
    """

    images: str
    out: str
    method: str
    weights: Any
    network: str | None
    soft: bool
    columns: Columns = DEFAULT

    def build(self) -> MaskMethod:
        """The method."""
        return build_method(self.method, self.weights, self.network)


# Fewer images than this are finished before Ray has started: of 50 ms by hand-crafted methods, 250 ms by U2-Net-P.
_WORTH_RAY, _WORTH_RAY_NETWORK = 256, 100
_LOG_INTERVAL = 30.0


def make_masks(
    images: str,
    out: str,
    method: str = "network",
    weights: str | None = None,
    workers: int | None = None,
    network: str | None = None,
    soft: bool = False,
    columns: Columns = DEFAULT,
) -> dict[str, Any]:
    """Write a tree of PNG masks that mirrors a tree of images, and ``masks.json`` beside it.

    Existing masks are kept. A run that was killed and restarted writes the same bytes as an uninterrupted one.

    Args:
        images: folder or URI, or files that list or hold images.
        out: folder or URI of the masks; not inside `images`.
        method: one of `masks.registry.METHODS`, or of another package; default: a network, without other arguments
            the U2-Net-P that comes with bgsweep.
        weights: an ONNX file for `network`, or for `usps` the file written by `bgsweep masks train`.
        workers: processes, one core each; more than one are Ray actors. Default: one for each core of this machine.
        network: name of the network in `masks.interfaces`; None with weights: one whose interface is not known.
        soft: keep the masks' 256 levels; by default only 0 and 255 are written.
        columns: names in the images' files.

    Returns:
        The content of ``masks.json``, with `out`, `made`, `seconds` and `images_per_second` (of masks made now).

    Raises:
        UserError: no image can be read, no mask can be written, or there are masks with other settings.
    """
    network = network or ("u2netp" if method == "network" and weights is None else None)
    making = Making(images, out, method, _weights(method, network, weights), network, soft, columns)
    refuse_inside(images, out)
    return _fill(making, workers)


def _fill(making: Making, workers: int | None) -> dict[str, Any]:
    """Make the masks that are missing, and the manifest of all."""
    source, target = open_images(making.images, making.columns), open_tree(making.out)
    built = making.build()
    settings = {
        "method": making.method,
        "weights": weights_digest(making.weights),
        "soft": making.soft,
        "parameters": built.parameters,
    }
    manifest = read_manifest(target)
    check_target(target, manifest, settings)
    if manifest and not manifest.get("complete"):
        target.sweep()
    if reviewed := (manifest or {}).get("reviewed"):
        settings["reviewed"] = reviewed
    settled = {name for names in (reviewed or {}).values() for name in names}
    plan = make_plan(source, target, settled)
    if manifest and manifest.get("complete") and manifest.get("listing") == plan.listing:
        return {**manifest, "out": making.out, "made": 0, "seconds": 0.0, "images_per_second": 0.0}
    if isinstance(built, MaskNetwork):
        built.check(EmbeddedSample("test")[0].image)
    write_manifest(target, {**settings, "complete": False})
    outcomes, seconds = _run(plan, making, workers)
    summed = summary(plan, outcomes)
    if not summed["masks"]:
        first = summed["unreadable"][0]
        reason = f"{first['image']}: {first['reason']}"
        raise UserError(f"{making.images}: none of {len(plan.images)} images can be read; the first: {reason}")
    # Planned again, so that the listing includes the new masks.
    license = NETWORKS[making.network].license if making.network else None
    listing = make_plan(source, target).listing
    manifest = {**settings, "license": license, "complete": True, **summed, "listing": listing}
    write_manifest(target, manifest)
    made = sum(map(len, plan.missing)) - len(summed["unreadable"])
    return {**manifest, "out": making.out, "made": made, "seconds": seconds, "images_per_second": made / seconds}


def _run(plan: Plan, making: Making, workers: int | None) -> tuple[list[Outcome], float]:
    """Make the missing masks and inspect the present ones; returns the results and the seconds it took."""
    jobs: list[Job] = [("make", group) for group in plan.missing] + [("inspect", group) for group in plan.present]
    wanted = sum(map(len, plan.missing))
    worth = _WORTH_RAY if making.method in HANDCRAFTED else _WORTH_RAY_NETWORK
    count = workers or (usable_cores() if wanted >= worth else 1)
    began = time.perf_counter()
    run = _here if count == 1 else _on_ray
    outcomes: list[Outcome] = []
    with Meter(len(plan.images)) as meter:
        for found in run(making, jobs, count):
            outcomes += found
            meter.advance(len(found))
    return outcomes, time.perf_counter() - began


def _weights(method: str, network: str | None, file: str | None) -> bytes | None:
    if method != "network" and network is not None:
        raise UserError(f"--network {network}: method {method} has no choice of networks; leave out one of the two")
    if method not in METHODS:
        of_another_package(method)
    if method in HANDCRAFTED or method not in METHODS:
        if file is not None:
            raise UserError(f"--weights {file}: method {method} takes no weights; leave out --method, or name usps")
        return None
    if method == "usps" and file is None:
        raise UserError("--method usps: name a network by --weights; `bgsweep masks train` trains one")
    return load_weights(network, file)


def _open_worker(making: Making) -> Worker:
    return Worker(open_images(making.images, making.columns), open_tree(making.out), making.build(), making.soft)


def _here(making: Making, jobs: Sequence[Job], _workers: int) -> Iterator[list[Outcome]]:
    worker = _open_worker(making)
    for kind, names in jobs:
        yield getattr(worker, kind)(names)


class _MaskWorker:
    """A `Worker` in a process of its own."""

    def __init__(self, making: Making) -> None:
        self._making = making
        self._worker: Worker | None = None

    @returns_user_errors
    def run(self, job: Job, stored: Sequence[Any]) -> list[Outcome]:
        """A group's results; the weights are in Ray's store, inside a list.

        They come with each job: of an actor that may be restarted and was begun with them, Ray writes an error.
        """
        kind, names = job
        self._worker = self._worker or self._open(stored)
        outcomes: list[Outcome] = getattr(self._worker, kind)(names)
        return outcomes

    def _open(self, stored: Sequence[Any]) -> Worker:
        import ray

        return _open_worker(self._making._replace(weights=ray.get(stored[0]) if stored else None))


def _on_ray(making: Making, jobs: Sequence[Job], workers: int) -> Iterator[list[Outcome]]:
    import ray

    from bgsweep.distributed.resources import wait_for_resources
    from bgsweep.distributed.session import ray_session

    with ray_session(workers):
        wait_for_resources([{"CPU": 1}] * workers, "--workers", wait_key=None)
        share = gpu_share(int(ray.cluster_resources().get("GPU", 0)), workers) if making.weights else 0
        # In Ray's store the weights (900 MB for BiRefNet) are there once, instead of in each actor's arguments.
        stored = [] if making.weights is None else [ray.put(making.weights)]
        pool = ActorPool(
            _MaskWorker,
            (making._replace(weights=None),),
            workers,
            {"num_cpus": 1, "num_gpus": share},
            task="makes masks",
            advice="the masks finished so far are kept: run the command again with fewer --workers",
        )
        yield from pool.map_unordered((job, stored) for job in jobs)


def gpu_share(gpus: int, workers: int) -> float:
    """Share of a GPU for each worker, so that all run at the same time."""
    return 1 / -(-workers // gpus) if gpus else 0.0


class Meter:
    """Progress on stderr: a bar in a terminal, a line every 30 seconds in a log file."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.began = self._logged = time.perf_counter()
        self.console = Console(stderr=True)
        columns = (
            TextColumn("masks"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f} images/s, left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self.console) if self.console.is_terminal else None
        self._task = self._bar.add_task("", total=total, rate=0.0) if self._bar else None

    def __enter__(self) -> "Meter":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, count: int, total: int | None = None) -> None:
        """Count images that are finished, of a total that may have become known only now."""
        self.done, self.total = self.done + count, total or self.total
        now = time.perf_counter()
        rate = self.done / (now - self.began)
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=count, total=self.total, rate=rate)
        elif now - self._logged >= _LOG_INTERVAL:
            self._logged = now
            left = (self.total - self.done) / rate
            self.console.print(
                f"{self.done}/{self.total} masks, {rate:.1f} images/s, {left:.0f} s left", highlight=False
            )
