import pickle
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from bgsweep.errors import collected_warnings
from bgsweep.storage.shared_arrays import Arrays, shared_arrays


def made() -> Arrays:
    return {"labels": np.arange(100_000), "masks": np.arange(7, dtype=np.uint8), "none": np.empty(0, np.int64)}


@pytest.mark.parametrize("kept", [True, False])
def test_a_pickle_holds_a_path_and_another_process_reads_the_same(tmp_path: Path, kept: bool) -> None:
    arrays = shared_arrays(tmp_path / "index" / "a.arrays" if kept else None, made)
    sent = pickle.dumps(arrays)
    assert len(sent) < 2_000
    code = "import pickle, sys; found = pickle.load(sys.stdin.buffer); print(found['labels'].sum(), len(found['none']))"
    read = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
    assert read.stdout.split() == [str(sum(range(100_000))).encode(), b"0"]
    # What is computed from them is a value of its own.
    assert pickle.loads(pickle.dumps(arrays["labels"][5:9] + 1)).tolist() == [6, 7, 8, 9]
    assert not arrays["masks"].flags.writeable


def test_they_are_made_once(tmp_path: Path) -> None:
    shared_arrays(tmp_path / "a.arrays", made)

    def again() -> Arrays:
        raise AssertionError("made twice")

    assert shared_arrays(tmp_path / "a.arrays", again)["masks"].tolist() == list(range(7))


def test_half_a_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a.arrays"
    shared_arrays(path, made)
    path.write_bytes(path.read_bytes()[:-100])
    assert shared_arrays(path, made)["labels"][-1] == 99_999


@pytest.mark.parametrize("trouble", ["no folder", "full"])
def test_without_room_they_are_in_memory_and_that_is_told(
    tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "index"
    if trouble == "no folder":
        place.write_text("a file where the folder should be")
    else:

        def full(array: np.ndarray, file: BinaryIO) -> None:
            if "memfd" not in str(Path(f"/proc/self/fd/{file.fileno()}").readlink()):
                raise OSError(28, "No space left on device")
            array.tofile(file)

        monkeypatch.setattr("bgsweep.storage.shared_arrays._append", full)
    with collected_warnings() as lines:
        arrays = shared_arrays(place / "a.arrays", made)
    assert arrays["labels"][-1] == 99_999
    assert len(lines) == 1 and "index: cannot be written" in lines[0] and "BGSWEEP_CACHE" in lines[0]
    assert len(pickle.dumps(arrays)) < 2_000
