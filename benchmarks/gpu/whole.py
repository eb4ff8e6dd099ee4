"""The third part: training from JPEGs of ImageNet's size with masks, against training from one batch on the device."""

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.gpu import device_views
from benchmarks.gpu.rows import MISSED, Rows, Values
from benchmarks.gpu.timing import free_memory, seconds_of, synchronize
from benchmarks.gpu.workloads import Scale, device_of, noise, resolved
from bgsweep.config import Experiment
from bgsweep.data import open_splits
from bgsweep.data.cores import usable_cores
from bgsweep.training import Trainer, select_device

SHARE_OF_SYNTHETIC = 0.9
SECONDS = {"resnet50": 24, "vit_s_16": 17}
"""A row's seconds on an H100 with 16 cores."""

LINKS = 60
"""Names of each file: an epoch must be long enough to measure, and writing files takes time."""


def run(rows: Rows, toy: bool) -> None:
    scale, device = Scale(toy), torch.device(device_of(toy))
    with tempfile.TemporaryDirectory(prefix="bgsweep-gpu-") as folder:
        images, masks = split_images(Path(folder), scale)
        data = {"images": str(images), "masks": str(masks), "validation": "validation", "test": "test"}
        for encoder in scale.pick(("resnet50", "vit_s_16"), ("resnet50",)):
            for colors in ("cpu", "device"):
                settings = experiment(scale, data, encoder, colors)
                name = f"{encoder}, colors on the {colors}"
                rows.measure(name, partial(measure, settings, scale, device), seconds=0 if toy else SECONDS[encoder])
                free_memory(device)
        rows.measure("views on the GPU", partial(device_views.measure, images, masks, scale, device))
        rows.measure("loader alone", partial(loader_alone, experiment(scale, data, "resnet50", "cpu"), scale))
        rows.measure("masks by U2-Net-P", partial(masks_by_u2netp, images, scale, device))


def split_images(folder: Path, scale: Scale) -> tuple[Path, Path]:
    """Images of 500 x 375 px and masks, linked under several names, with splits to validate and test on."""
    from benchmarks.made_images import make_images

    images, masks = make_images(folder, scale.pick(256, 40))
    classes = sorted(child.name for child in images.iterdir() if child.is_dir())
    for root in (images, masks):
        for name in classes:
            source = root / name
            files = sorted(source.iterdir())
            for split in ("validation", "test"):
                (root / split / name).mkdir(parents=True)
            (root / "train").mkdir(exist_ok=True)
            source.rename(root / "train" / name)
            for index, file in enumerate(files):
                moved = root / "train" / name / file.name
                if index < 2 and len(files) > 2:
                    moved.rename(root / ("validation", "test")[index] / name / file.name)
                    continue
                for number in range(1, scale.pick(LINKS, 2)):
                    os.link(moved, moved.with_stem(f"{moved.stem}-{number}"))
    return images, masks


def experiment(scale: Scale, data: dict[str, Any], encoder: str, colors: str) -> Experiment:
    """MoCo-v2's recipe with background augmentation, from files, with as many loader processes as there are cores."""
    small = scale.toy
    tree = {
        "data": {**data, "loader_workers": 1 if small else min(32, max(1, usable_cores() - 1))},
        "views": {**scale.views("moco_v2", scale.pick(224, 24), 16), "photometric": colors},
        "background": {"remove": 0.2, "random": 0.2},
        "method": scale.method("moco_v2"),
        "encoder": scale.encoder if small else {"name": encoder},
        "training": {"batch_size": scale.pick(256, 16), "precision": "bf16", "epochs": 8},
    }
    return resolved(tree, device_of(scale.toy))


def measure(settings: Experiment, scale: Scale, device: torch.device) -> Values:
    """An epoch from files after one that started the processes, and the same steps from one batch on the device."""
    training = Trainer(settings, open_splits(settings.data).train, select_device(settings))
    training.model.train()
    batch = settings.training.batch_size
    steps = min(training.batches.steps_per_epoch, scale.pick(1000, 3))
    synthetic = noise(settings, device)
    index = iter(range(10**9))
    from_memory = [lambda: training._step(synthetic, next(index))]
    seconds_of(from_memory, device, 1, scale.pick(5, 1))
    ((alone, *_),) = seconds_of(from_memory, device, 1, scale.pick(20, 2))
    for each in training.batches.epoch(0):  # to its end: batches that nobody takes keep their memory
        training._step(each, 0)
    synchronize(device)
    psutil.cpu_percent()
    began, waited = time.perf_counter(), 0.0
    for number, (each, seconds) in enumerate(_timed(training.batches.epoch(1)), start=1):
        waited += seconds
        training._step(each, number)
        if number == steps:
            break
    synchronize(device)
    elapsed = time.perf_counter() - began
    share = alone / (elapsed / steps)
    return {
        "images_per_second": batch * steps / elapsed,
        "synthetic_images_per_second": batch / alone,
        "share_of_synthetic": round(share, 3),
        "data_wait": round(waited / elapsed, 3),
        "cpu_share": round(psutil.cpu_percent() / 100, 3),
        "loader_processes": settings.data.loader_workers,
        MISSED: f"wanted: {SHARE_OF_SYNTHETIC} of synthetic" if share < SHARE_OF_SYNTHETIC and not scale.toy else "",
    }


def _timed(batches: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """Each batch with the seconds that it was waited for."""
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - asked


def loader_alone(settings: Experiment, scale: Scale) -> Values:
    """Images a second that the loader's processes make while nothing trains: what these cores could feed."""
    training = Trainer(settings, open_splits(settings.data).train, select_device(settings))
    batches = itertools.chain.from_iterable(map(training.batches.epoch, itertools.count()))
    skipped, counted = scale.pick((16, 40), (1, 2))
    for _ in range(skipped):
        next(batches)
    began = time.perf_counter()
    for _ in range(counted):
        next(batches)
    rate = settings.training.batch_size * counted / (time.perf_counter() - began)
    workers = settings.data.loader_workers or 1
    return {"images_per_second": rate, "images_per_second_and_process": rate / workers, "processes": workers}


def masks_by_u2netp(images: Path, scale: Scale, device: torch.device) -> Values:
    """The default of `bgsweep masks make`: its network by itself and with all that one process does, beside the CPU."""
    from bgsweep.images.decoding import decode_image
    from bgsweep.masks.network import MaskNetwork
    from bgsweep.masks.u2netp import U2NetP, shipped_weights

    files = sorted((images / "train").rglob("*.jpg"))[: scale.pick(64, 2)]
    method, network = MaskNetwork(shipped_weights()), U2NetP(shipped_weights(), device.type)
    prepared = [method.prepare(decode_image(file.read_bytes(), file.name)[0]) for file in files[:16]]
    batch = np.stack([item.pixels for item in prepared[: network.batch]])
    difference = np.abs(network(batch[:1]) - U2NetP(shipped_weights(), "cpu")(batch[:1])).max()
    (times,) = seconds_of([lambda: network(batch)], device, 3, scale.pick(5, 1))
    began = time.perf_counter()
    for first in range(0, len(files), 16):
        read = (decode_image(file.read_bytes(), file.name)[0] for file in files[first : first + 16])
        list(method.masks([method.prepare(image) for image in read]))
    rate = len(files) / (time.perf_counter() - began)
    return {
        "images_per_second_of_the_network": len(batch) / min(times),
        "images_per_second_and_process": rate,
        "largest_difference_from_the_cpu": round(float(difference), 4),
        MISSED: "wanted: probabilities within 0.02 of the CPU's" if difference > 0.02 else "",
    }
