"""Views made by a Ray cluster: the very batches of the local loader, whatever happens to those who make them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL.Image
import psutil
import pytest
import torch

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Data, Views, load
from bgsweep.data import open_splits
from bgsweep.data.batch import Batch
from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.data.loader import Batches
from bgsweep.distributed.session import ray_session
from bgsweep.distributed.train import train
from bgsweep.distributed.view_workers import RayFeed
from bgsweep.errors import UserError

TINY = Path(__file__).parents[1] / "tiny.yaml"
SAMPLE = Data(resize=32, loader="cluster", loader_workers=2)


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with ray_session(4):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Data:
    """Sixty images of three classes in folders."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        for label in ("dress", "hat", "shoes"):
            for name in sorted(each for each in archive.namelist() if each.startswith(f"images/train/{label}/"))[:20]:
                archive.extract(name, tmp_path)
                archive.extract(name.replace("images/", "masks/").replace(".jpg", ".png"), tmp_path)
    return Data(
        images=str(tmp_path / "images"),
        masks=str(tmp_path / "masks"),
        validation=None,
        test=None,
        loader="cluster",
        loader_workers=1,
    )


def batches(data: Data, feed: RayFeed | None = None, size: int = 48, **background: float) -> Batches:
    views = Views(size=24, small_crops=1, small_size=16, photometric="device")
    pipeline = ViewPipeline(views, Background(**{"remove": 0.3, "random": 0.5} | background))
    return Batches(open_splits(data).train, pipeline, size, seed=5, feed=feed)


def assert_same(ours: Iterator[Batch], theirs: Iterator[Batch]) -> int:
    """The number of batches."""
    steps = 0
    for one, other in zip(ours, theirs, strict=True):
        steps += 1
        assert one.counts == other.counts
        assert one.photometry is not None and other.photometry is not None
        tensors: list[list[Any]] = [
            [*each.views, *(each.photometry or []), each.labels, each.indices, each.swaps, each.swapped]
            for each in (one, other)
        ]
        for a, b in zip(*tensors, strict=True):
            assert (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))
    return steps


def view_makers(driver: int | None = None) -> list[psutil.Process]:
    """The processes below a driver, by default this process, that Ray names after the actors' class."""
    found = []
    for child in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            found += [child] if "_ViewMaker" in " ".join(child.cmdline()) else []
    return found


def test_cluster_gives_the_batches_of_the_local_loader() -> None:
    here, feed = batches(SAMPLE, swap=0.4), RayFeed(SAMPLE)
    there = batches(SAMPLE, feed, swap=0.4)
    next(there.epoch(1))  # an epoch put down early leaves nothing behind
    for epoch, step in ((0, 0), (1, 0), (1, 17)):
        assert assert_same(there.epoch(epoch, step), here.epoch(epoch, step)) == 20 - step
    assert len(view_makers()) == 2
    two_at_once = zip(there.epoch(2), batches(SAMPLE, RayFeed(SAMPLE)).epoch(2), strict=True)
    assert all(torch.equal(one.indices, other.indices) for one, other in two_at_once)
    assert len(view_makers()) == 2, "the process has other makers for another run"


def test_no_more_is_made_ahead_than_two_batches_a_process(folder: Data) -> None:
    epoch = batches(folder, RayFeed(folder), 4).epoch(0)
    next(epoch)
    time.sleep(2)
    shutil.rmtree(folder.images)
    made = 1
    with pytest.raises(UserError, match="20 images in a row cannot be read"):
        for _ in epoch:
            made += 1
    assert 1 < made <= 4


def test_a_killed_process_costs_nothing_but_time() -> None:
    here, there = batches(SAMPLE), batches(SAMPLE, RayFeed(SAMPLE))
    epoch = there.epoch(0)
    first = next(epoch)
    victim = view_makers()[0]
    os.kill(victim.pid, signal.SIGKILL)
    expected = here.epoch(0)
    assert torch.equal(first.views[0], next(expected).views[0])
    assert assert_same(epoch, expected) == 19


def test_a_users_error_is_one_line(folder: Data) -> None:
    mask = next(Path(str(folder.masks)).rglob("*.png"))
    PIL.Image.open(mask).resize((30, 40)).save(mask)
    with pytest.raises(UserError, match=r"^\S+\.png: 30x40 pixels, but its image \S+\.jpg has .* size \(1 of "):
        list(batches(folder, RayFeed(folder), 18, remove=1.0).epoch(0))


def test_other_images_than_the_training_s_are_refused(folder: Data) -> None:
    made = batches(folder, RayFeed(folder), 18)
    images = sorted(Path(folder.images).rglob("*.jpg"))
    shutil.move(images[0], images[0].with_name("another.jpg"))
    shutil.move(
        Path(str(folder.masks), *images[0].relative_to(folder.images).parts).with_suffix(".png"),
        Path(str(folder.masks), *images[0].relative_to(folder.images).with_name("another.png").parts),
    )
    with pytest.raises(UserError, match=r"^images/train.*: node \S+, which makes views, has other images under"):
        next(made.epoch(0))


def sweep(folder: Path, *overrides: str) -> tuple[dict[str, Any], list[psutil.Process]]:
    """A sweep's result, and whatever of its processes that made views is still there."""
    words = [sys.executable, "-m", "bgsweep.cli", "sweep", str(TINY), *overrides, "--json"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    makers: dict[int, psutil.Process] = {}
    while process.poll() is None:
        makers |= {maker.pid: maker for maker in view_makers(process.pid)}
        time.sleep(0.1)
    out, log = process.communicate()
    assert process.returncode == 0, log
    assert makers, "nobody but the training made views"
    _, alive = psutil.wait_procs(list(makers.values()), timeout=120)
    # Where nobody takes care of orphans, as in some containers, the dead stay in the list.
    return json.loads(out.splitlines()[-1]), [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.faults  # for its time
def test_trials_are_fed_by_the_cluster(tmp_path: Path) -> None:
    feed = ["data.loader=cluster", "data.loader_workers=1"]
    space = ["space.optimizer.lr={uniform: [0.03, 0.04]}", "search.trials=1", "search.scheduler=none"]
    found, left = sweep(tmp_path, *feed, *space)
    assert not left
    metrics: list[dict[str, Any]] = []
    train(load(TINY, ["background.remove=0", "background.random=0"]), tmp_path, lambda each, _: metrics.append(each))
    assert found["trials"][0]["metrics"]["loss"] == metrics[-1]["loss"], "the baseline sees other views than locally"
