"""A small folder of real images, laid out as users lay theirs out."""

import zipfile
from pathlib import Path

import pytest

from bgsweep.data.datasets.bundled import ARCHIVE

CLASSES = ("dress", "hat", "shoes")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """``images`` and ``masks`` with train and test splits: three classes of six images each."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        for split in ("train", "test"):
            for label in CLASSES:
                names = sorted(name for name in archive.namelist() if name.startswith(f"images/{split}/{label}/"))
                for name in names[:6]:
                    archive.extract(name, tmp_path)
                    archive.extract(name.replace("images/", "masks/").replace(".jpg", ".png"), tmp_path)
    return tmp_path
