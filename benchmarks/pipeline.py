"""From files to batches of views on one core: bgsweep's pipeline beside lightly's, stock Albumentations and the floor.

    python benchmarks/pipeline.py [--images DIR --masks DIR] [--count 64] [--rounds 9] [--record] [--json]

Everything runs in one process and thread, in turn, round after round, and is measured in CPU time; ratios are medians
of those within a round, so that other load on the machine moves both sides. `exact` and `fast` are the two values of
`views.color`, `fast` with `data.fast_jpeg`; `bg` is BG_RM at 0.2 and tiled BG_Random at 0.2, with the decoding of masks
and donors' rectangles; the others are without background augmentation. `bilinear` and `bicubic`, which the published
recipes have, and `area` resize with antialiasing, the others do not. bgsweep reads a pack; rows say where it reads
folders. There a process keeps the masks that it has decoded in a few bytes each, and from a pack it compares each
record with its checksum once, so that the first epoch, which has rows of its own, is dearer than later ones (its rows
count making views only, not opening the images). Other libraries' pipelines are in `peers.py`; those that are not
installed are left out, with a line each. `--rows` takes some of the rows, by parts of their names. The floor is
the fastest known call for each step (decode, crop and resize, colour, blur, flip), at MoCo-v2's probabilities, bare and
without any of a pipeline's duties.

The keys of `--json` are ratios of throughput with `bg`, lightly's pipelines without. `share_of_floor` compares like
with like: fast without `bg`. `background_cost` is time with over time without `bg` (exact).
"""

import copy
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import simplejpeg  # type: ignore[import-untyped]
import torch
from common import markdown, parser_of, report
from made_images import make_images
from peers import PEERS, Views, peers

from bgsweep.augment.crop_window import draw_window
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import load
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.pack import Pack
from bgsweep.data.datasets.pack_size import PackSize
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.data.loader import Batches
from bgsweep.data.sample import ImageDataset
from bgsweep.training.run import limit_threads

SPACES = Path(__file__).parents[1] / "search_spaces"
BATCH = 32
BASE = "lightly MoCoV2Transform"
"""Other rows are measured against it."""
Pass = Callable[[int], None]
"""Makes all batches of an epoch, whose number it is given."""


def ours(method: str, source: ImageDataset, background: bool, *overrides: str) -> Pass:
    """bgsweep itself, from files or a pack to uint8 batches, by a method's published recipe but for the resize."""
    return epochs(pipeline_of(method, background, *overrides), source)


def pipeline_of(method: str, background: bool, *overrides: str) -> ViewPipeline:
    strength = 0.2 if background else 0.0
    values = ["data.images=sample", f"background.remove={strength}", f"background.random={strength}"]
    values += ["views.interpolation=linear", *overrides]
    experiment = load(SPACES / f"{method}_imagenet.yaml", values).experiment
    return ViewPipeline(experiment.views, experiment.background)


def epochs(pipeline: ViewPipeline, source: ImageDataset) -> Pass:
    batches = Batches(source, pipeline, BATCH, seed=0)

    def run(epoch: int) -> None:
        for _ in batches.epoch(epoch):
            pass

    return run


def batched(paths: list[Path], views_of: Callable[[Path], list[Any]], sizes: Sequence[int] = ()) -> Pass:
    """Views of one file after the other, put together to batches: arrays into arrays of these sizes, else tensors."""

    def run(epoch: int) -> None:
        for first in range(0, len(paths), BATCH):
            files = paths[first : first + BATCH]
            if not sizes:
                for column in zip(*map(views_of, files), strict=True):
                    torch.stack(column)
                continue
            batch = [np.empty((BATCH, size, size, 3), np.uint8) for size in sizes]
            for number, path in enumerate(files):
                for view, picture in zip(batch, views_of(path), strict=True):
                    view[number] = picture

    return run


def lightly(name: str, paths: list[Path]) -> Pass:
    """lightly's transform of a method on Pillow's images, as its own datasets give them."""
    from lightly import transforms

    transform = getattr(transforms, name)()

    def views_of(path: Path) -> list[Any]:
        with PIL.Image.open(path) as file:
            return list(transform(file.convert("RGB")))

    return batched(paths, views_of)


def peer(views: Views, paths: list[Path]) -> Pass:
    """Another library's views of the same files, in batches of the same size."""

    def run(epoch: int) -> None:
        for first in range(0, len(paths), BATCH):
            views(paths[first : first + BATCH])

    return run


def stock(paths: list[Path]) -> Pass:
    """OpenCV and Albumentations as they come, with MoCo-v2's probabilities, to uint8."""
    import albumentations as A

    view = A.Compose(
        [
            A.RandomResizedCrop((224, 224), scale=(0.2, 1.0)),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
        ]
    )

    def views_of(path: Path) -> list[Any]:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
        return [view(image=image)["image"] for _ in range(2)]

    return batched(paths, views_of, (224, 224))


def floor(paths: list[Path]) -> Pass:
    """The fastest known calls: see the head of this file. Its colours are approximate, of one fused matrix."""
    generator = random.Random(0)
    kernels = [cv2.getGaussianKernel(2 * -(-2 * s // 10) + 1, s / 10, cv2.CV_32F) for s in range(1, 21)]
    matrix = np.array([[0.9, 0.1, 0.05, 3], [0.05, 0.9, 0.1, 3], [0.1, 0.05, 0.9, 3]], np.float32)

    def view(image: Any) -> Any:
        uniform = generator.random
        window = draw_window(image.shape[0], image.shape[1], (0.2, 1.0), (3 / 4, 4 / 3), generator)
        picture = cv2.resize(window.of(image), (224, 224), interpolation=cv2.INTER_LINEAR)
        if uniform() < 0.84:  # jitter or grey
            picture = cv2.transform(picture, matrix)
        if uniform() < 0.5:
            kernel = kernels[int(uniform() * len(kernels))]
            picture = cv2.sepFilter2D(picture, -1, kernel, kernel)
        return cv2.flip(picture, 1) if uniform() < 0.5 else picture

    def views_of(path: Path) -> list[Any]:
        image = simplejpeg.decode_jpeg(path.read_bytes(), fastdct=True, fastupsample=True)
        return [view(image), view(image)]

    return batched(paths, views_of, (224, 224))


def first_epoch(source: ImageDataset) -> Pass:
    """As `ours` with `bg`, by a process that has just opened the images, from which none has been read before."""
    pipeline = pipeline_of("moco_v2", True)

    def run(epoch: int) -> None:
        epochs(pipeline, copy.deepcopy(source))(epoch)

    return run


def contestants(images: Path, masks: Path, pack: Path, small: Path, paths: list[Path]) -> dict[str, Pass]:
    packed, fast = Pack(str(pack), "."), Pack(str(pack), ".", fast_jpeg=True)
    folder = Folder(images, ".", masks)  # whose copies have empty caches
    others, left_out = peers()
    for line in left_out:
        print(line)
    return {
        BASE: lightly("MoCoV2Transform", paths),
        **{name: peer(views, paths) for name, views in others.items()},
        "OpenCV and stock Albumentations": stock(paths),
        "moco_v2, exact": ours("moco_v2", packed, False),
        "moco_v2, exact, bg": ours("moco_v2", packed, True),
        "moco_v2, exact, bg, bilinear": ours("moco_v2", packed, True, "views.interpolation=bilinear"),
        "moco_v2, exact, bg, bicubic": ours("moco_v2", packed, True, "views.interpolation=bicubic"),
        "moco_v2, exact, bg, area": ours("moco_v2", packed, True, "views.interpolation=area"),
        "moco_v2, exact, bg, first epoch": first_epoch(Pack(str(pack), ".")),
        "moco_v2, exact, bg, pack of short side 256": ours("moco_v2", Pack(str(small), "."), True),
        "moco_v2, exact, folders": ours("moco_v2", folder, False),
        "moco_v2, exact, bg, folders": ours("moco_v2", folder, True),
        "moco_v2, exact, bg, folders, first epoch": first_epoch(folder),
        "moco_v2, fast": ours("moco_v2", fast, False, "views.color=fast"),
        "moco_v2, fast, bg": ours("moco_v2", fast, True, "views.color=fast"),
        "floor": floor(paths),
        "moco_v2, photometric part on the device, bg": ours("moco_v2", packed, True, "views.photometric=device"),
        "lightly BYOLTransform": lightly("BYOLTransform", paths),
        "byol, exact, bg": ours("byol", packed, True),
        "lightly SwaVTransform": lightly("SwaVTransform", paths),
        "swav, exact, bg": ours("swav", packed, True),
    }


def measure(passes: dict[str, Pass], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each contestant's epochs, interleaved, after an epoch to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name, run in passes.items():
            began = time.process_time()
            run(number)
            if number:
                seconds[name].append(time.process_time() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, quick: str) -> float:
    pairs = zip(seconds[slow], seconds[quick], strict=True)
    return statistics.median(one / other for one, other in pairs)


RATIOS = {
    "moco_v2_vs_lightly": (BASE, "moco_v2, exact, bg"),
    "moco_v2_fast_vs_lightly": (BASE, "moco_v2, fast, bg"),
    "byol_vs_lightly": ("lightly BYOLTransform", "byol, exact, bg"),
    "swav_vs_lightly": ("lightly SwaVTransform", "swav, exact, bg"),
    "background_cost": ("moco_v2, exact, bg", "moco_v2, exact"),
    "share_of_floor": ("floor", "moco_v2, fast"),
    "first_epoch_cost": ("moco_v2, exact, bg, first epoch", "moco_v2, exact, bg"),
    "short_side_256_gain": ("moco_v2, exact, bg", "moco_v2, exact, bg, pack of short side 256"),
    "antialiasing_cost": ("moco_v2, exact, bg, bilinear", "moco_v2, exact, bg"),
    "device_photometric_vs_lightly": (BASE, "moco_v2, photometric part on the device, bg"),
} | {f"moco_v2_vs_{module}": (name, "moco_v2, exact, bg") for name, (module, *_) in PEERS.items()}
"""Keys of `--json`: time of the first row over that of the second."""


def summary(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The ratios of the rows that were measured."""
    there = {name: rows for name, rows in RATIOS.items() if seconds.keys() >= set(rows)}
    return {name: round(ratio(seconds, *rows), 3) for name, rows in there.items()}


def table(seconds: dict[str, list[float]], count: int) -> str:
    rows = []
    for name, values in seconds.items():
        each = statistics.median(values) / count
        times = ratio(seconds, BASE, name)
        rows.append([name, f"{1e3 * each:.2f}", f"{1 / each:.0f}", f"{times:.2f}"])
    return markdown(["pipeline", "ms an image", "images/s", "times lightly's MoCo-v2"], rows)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=Path, help="a folder of JPEGs; default: made from the embedded sample")
    parser.add_argument("--masks", type=Path, help="a folder of PNGs that mirrors it")
    parser.add_argument("--count", type=int, default=64, help="how many to make (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", nargs="+", metavar="PART", help=f"rows whose names contain one of these, and {BASE}")
    options = parser.parse_args()
    if (options.images is None) != (options.masks is None):
        parser.error("--images and --masks go together")
    limit_threads(1)
    with tempfile.TemporaryDirectory() as made:
        images, masks = options.images, options.masks
        if images is None:
            images, masks = make_images(Path(made), options.count)
        pack, small = Path(made) / "pack", Path(made) / "small"
        make_pack(str(images), str(masks), str(pack))
        make_pack(str(images), str(masks), str(small), size=PackSize(short_side=256))
        names = Pack(str(pack), ".").ids
        paths = [images / name for name in names][: len(names) // BATCH * BATCH]
        size = statistics.mean(path.stat().st_size for path in paths)
        passes = contestants(images, masks, pack, small, paths)
        if options.rows:
            passes = {name: run for name, run in passes.items() if any(each in name for each in [BASE, *options.rows])}
        seconds = measure(passes, options.rounds)
    load_average = os.getloadavg()[1]
    text = table(seconds, len(paths))
    found = summary(seconds)
    notes = f"{len(paths)} images of {size / 1e3:.0f} KB, {options.rounds} rounds, load {load_average:.1f}"
    body = f"{text}\n\n{notes}\n\n`{json.dumps(found)}`"
    command = f"python benchmarks/pipeline.py --rounds {options.rounds}"
    report(options, "Input pipeline, one core", command, body, found)


if __name__ == "__main__":
    main()
