"""Small inputs for tests: images, masks and the YAML file of a run of a second."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import PIL.Image
import pytest

from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.data.sample import Mask
from bgsweep.tracking import Tracker, tracking_uri

if TYPE_CHECKING:
    from bgsweep.training import Trainer

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"

YAML = """\
experiment:
  data: {images: photos, masks: masks, resize: 32, loader_workers: 0}
  views: {size: 24, blur: 0.0}
  background: {remove: 0.3, random: 0.3}
  method: {queue_size: 16, hidden_dim: 16, embedding_dim: 8}
  encoder: {name: resnet10, width: 8, stem: small}
  training: {epochs: 1, batch_size: 8}
  workers: {device: cpu}
evaluate: {knn: {k: 5}}
"""


def write_images(folder: Path) -> None:
    """``photos`` and ``masks``: eight images of two classes for training, four each for validation and test."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        for split, count in (("train", 8), ("validation", 4), ("test", 4)):
            for label in ("dress", "hat"):
                names = sorted(name for name in archive.namelist() if name.startswith(f"images/{split}/{label}/"))
                for name in names[:count]:
                    mask = f"masks{name[6:-4]}.png"
                    for member, path in ((name, f"photos{name[6:]}"), (mask, mask)):
                        (folder / path).parent.mkdir(parents=True, exist_ok=True)
                        (folder / path).write_bytes(archive.read(member))
    (folder / "mine.yaml").write_text(YAML)


def case(name: str) -> Callable[[Path], None]:
    """A folder of ``../shared/cases``, beside which the one that works lies too."""

    def make(folder: Path) -> None:
        if not CASES.is_dir():
            pytest.skip("the shared cases do not lie beside this checkout")
        for each in {"base", name}:
            shutil.copytree(CASES / each, folder / each, symlinks=True)
            for path in (folder / each).rglob("*.*g"):  # where links were stored as texts of what they lead to
                if path.is_file() and path.stat().st_size < 30 and (target := path.read_bytes()).startswith(b"/"):
                    path.chmod(0o644)
                    path.unlink()
                    path.symlink_to(os.fsdecode(target))

    return make


def changed(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """The images, after something was done to their folder."""

    def make(folder: Path) -> None:
        write_images(folder)
        change(folder)

    return make


def _replace(path: Path, put: Callable[[Path], object]) -> None:
    path.unlink()
    put(path)


def _first(folder: Path, kind: str) -> Path:
    return sorted((folder / kind / "train").rglob("*.*"))[1]


LOST_FILES = {
    name: changed(change)
    for name, change in {
        "link to nowhere": lambda folder: _replace(_first(folder, "photos"), lambda path: path.symlink_to("lost.jpg")),
        "link to itself": lambda folder: _replace(_first(folder, "photos"), lambda path: path.symlink_to(path.name)),
        "folder called like an image": lambda folder: _replace(_first(folder, "photos"), Path.mkdir),
        "named pipe": lambda folder: _replace(_first(folder, "photos"), os.mkfifo),
        "empty image": lambda folder: _first(folder, "photos").write_bytes(b""),
        "mask is a link to nowhere": lambda folder: _replace(
            _first(folder, "masks"), lambda path: path.symlink_to("lost.png")
        ),
        "mask cut off": lambda folder: _first(folder, "masks").write_bytes(_first(folder, "masks").read_bytes()[:90]),
    }.items()
}

looped = changed(lambda folder: (folder / "photos/train/dress/again").symlink_to(folder / "photos/train"))


def _no_utf8(folder: Path) -> None:
    for kind in ("photos", "masks"):
        path = _first(folder, kind)
        path.rename(path.with_name(os.fsdecode(b"caf\xe9") + path.suffix))


no_utf8 = changed(_no_utf8)


def _square_exif(folder: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for kind in ("photos", "masks"):
        path = _first(folder, kind)
        options = {"exif": exif} if kind == "photos" else {}
        PIL.Image.open(path).resize((40, 40), PIL.Image.Resampling.NEAREST).save(path, **options)


square_exif = changed(_square_exif)


def deleted_experiment(folder: Path) -> None:
    """A store in which the experiment that the run would belong to was deleted."""
    write_images(folder)
    with Tracker(tracking_uri(folder / "own"), "mine") as tracker:
        tracker.client.delete_experiment(tracker.experiment_id)


def damaged_store(folder: Path) -> None:
    """A store whose database was overwritten."""
    write_images(folder)
    (folder / "own").mkdir()
    (folder / "own/mlflow.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)


def one_mask(change: Callable[[Mask], Mask]) -> Callable[[Path], None]:
    """The images, with one mask changed."""

    def recode(folder: Path) -> None:
        path = _first(folder, "masks")
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)))

    return changed(recode)


def coded_by_one(mask: Mask) -> Mask:
    return mask // 255


def _other_formats(folder: Path) -> None:
    paths = sorted((folder / "photos/train/dress").iterdir())
    PIL.Image.open(paths[0]).save(paths[0].with_suffix(".avif"))
    paths[0].unlink()
    paths[1].rename(paths[1].with_suffix(".jfif"))
    pixels = np.asarray(PIL.Image.open(paths[2]).convert("L"), np.float32) / 255
    PIL.Image.fromarray(pixels).save(paths[2].with_suffix(".tif"))
    paths[2].unlink()
    for path in paths[3:5]:
        path.with_name(f"phone-{path.stem}.heic").write_bytes(b"ftypheic")
    for junk in ("photos/train/@eaDir/SYNO.jpg", "photos/train/__MACOSX/x.jpg", "photos/train/hat/Thumbs.db"):
        (folder / junk).parent.mkdir(exist_ok=True)
        (folder / junk).write_bytes(b"junk")


other_formats = changed(_other_formats)


def _twins(folder: Path) -> None:
    path = _first(folder, "photos")
    PIL.Image.open(path).save(path.with_suffix(".png"))


twins = changed(_twins)


def trainer_of(*overrides: str) -> "Trainer":
    """The trainer of an experiment, on one thread, from the beginning."""
    import torch  # takes seconds, and most tests that need inputs do without

    from bgsweep.config import resolve
    from bgsweep.data import open_splits
    from bgsweep.training import Trainer, select_device

    torch.set_num_threads(1)
    wanted = resolve({}, overrides).experiment
    return Trainer(wanted, open_splits(wanted.data).train, select_device(wanted))
