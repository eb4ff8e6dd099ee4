"""Small trees of real photographs, and what can go wrong with them."""

import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgsweep.data.datasets.bundled import ARCHIVE

Extract = Callable[[int], Path]


@pytest.fixture
def photographs(tmp_path: Path) -> Extract:
    """Extracts some of the embedded photographs, spread over all classes, with their masks beside them as truth."""

    def extract(count: int) -> Path:
        with zipfile.ZipFile(ARCHIVE) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith("images/train/"))
            for name in names[:: len(names) // count][:count]:
                archive.extract(name, tmp_path)
                archive.extract(name.replace("images/", "masks/").replace(".jpg", ".png"), tmp_path)
        (tmp_path / "masks").rename(tmp_path / "truth")
        return tmp_path / "images"

    return extract


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts, or mounts anew, a file system in memory with the options given; skips where that is not allowed."""
    point = tmp_path / "disk"
    point.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        options = f"remount,{options}" if mounted else options
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", point], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this machine lets nobody mount a small disk")
        mounted = True
        return point

    yield mount
    if mounted:
        subprocess.run(["umount", point], check=True)
