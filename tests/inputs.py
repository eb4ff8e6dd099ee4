"""Small inputs for tests: images, masks and the YAML file of a run of a second."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bgsweep.data.embedded import ARCHIVE

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


def photographs(folder: Path) -> None:
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

    return make
