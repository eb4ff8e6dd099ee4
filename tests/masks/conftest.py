"""Small trees of real images with their masks."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bgsweep.data.datasets.bundled import ARCHIVE

Extract = Callable[[int], Path]


@pytest.fixture
def extract_images(tmp_path: Path) -> Extract:
    """Extracts some of the embedded images, spread over all classes, with their masks beside them as truth."""

    def extract(count: int) -> Path:
        with zipfile.ZipFile(ARCHIVE) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith("images/train/"))
            for name in names[:: len(names) // count][:count]:
                archive.extract(name, tmp_path)
                archive.extract(name.replace("images/", "masks/").replace(".jpg", ".png"), tmp_path)
        (tmp_path / "masks").rename(tmp_path / "truth")
        return tmp_path / "images"

    return extract
