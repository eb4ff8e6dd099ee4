"""Folders as large ones are opened: the index is kept for all processes of a machine (here from no images on)."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bgsweep.config import Data
from bgsweep.data.datasets import folder
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.wrappers import Subset, hold_out
from bgsweep.data.sample import ImageDataset
from bgsweep.data.splits import open_sources
from bgsweep.errors import UserError, collected_warnings, warn_once
from bgsweep.images import files
from bgsweep.seeding import Draw, rng_key
from bgsweep.storage.shared_arrays import MappedArray, index_folder

ROOMS = ("folder_index", "wrappers", "pack_index")


@pytest.fixture(autouse=True)
def _large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    for room in ROOMS:
        monkeypatch.setattr(f"bgsweep.data.datasets.{room}.LARGE", 0)
    monkeypatch.setattr("bgsweep.data.datasets.folder_index._UNSETTLED", -1.0)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are listed."""
    found: list[Path] = []
    real = files.walk

    def counted(root: Path, *args: object, **options: object) -> Iterator[object]:
        found.append(root)
        return real(root, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("bgsweep.data.datasets.folder_index.walk", counted)
    return found


def opened(tree: Path) -> Folder:
    return Folder(tree / "images", "train", tree / "masks")


def test_a_folder_is_listed_once_and_read_the_same(tree: Path, walks: list[Path]) -> None:
    first = opened(tree)
    assert walks
    walks.clear()
    second = opened(tree)
    assert not walks
    assert list(first.ids) == list(second.ids) and first.classes == second.classes
    assert np.array_equal(first.labels, second.labels)
    assert isinstance(second.labels, MappedArray)
    assert len(pickle.dumps(second)) < 3_000
    assert np.array_equal(pickle.loads(pickle.dumps(second))[3].mask, first[3].mask)


@pytest.mark.parametrize("change", ["add", "remove", "rename", "class", "mask"])
def test_a_changed_folder_is_listed_again(tree: Path, change: str) -> None:
    before = list(opened(tree).ids)
    image = min((tree / "images/train").rglob("*.jpg"))
    mask = min((tree / "masks/train").rglob("*.png"))
    status = image.parent.stat()
    if change == "add":
        (image.parent / "zz.jpg").write_bytes(image.read_bytes())
        (mask.parent / "zz.png").write_bytes(mask.read_bytes())
    elif change == "remove":
        image.unlink()
    elif change == "rename":
        image.rename(image.with_name("zz.jpg"))
        mask.rename(mask.with_name("zz.png"))
    elif change == "class":
        for kind in ("images", "masks"):
            (tree / kind / "train/hat").rename(tree / kind / "train/zzz")
    else:
        mask.unlink()
        assert opened(tree).missing_masks == (1, len(before), before[0])
        return
    os.utime(image.parent, ns=(status.st_atime_ns, status.st_mtime_ns))  # as tar does, or rsync
    assert list(opened(tree).ids) != before


def test_a_folder_that_has_just_changed_is_not_kept(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgsweep.data.datasets.folder_index._UNSETTLED", 60.0)
    assert opened(tree).identity is None
    assert not list(index_folder().glob("*.arrays"))


def test_warnings_are_given_by_each_process(tree: Path) -> None:
    (tree / "images/train/hat/one.heic").write_bytes(b"")
    for _ in range(2):
        warn_once.cache_clear()  # as in another process
        with collected_warnings() as lines:
            opened(tree)
        assert len(lines) == 1 and ".heic" in lines[0]


def test_processes_that_begin_together_list_it_once(tree: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from bgsweep.data.datasets import folder_index, folder
folder_index.LARGE, folder_index._UNSETTLED = 0, -1.0
scan = folder_index._scan
def slowly(*args):
    print("scan")
    time.sleep(2)
    return scan(*args)
folder_index._scan = slowly
tree = Path(sys.argv[1])
print(len(folder.Folder(tree / "images", "train", tree / "masks")))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tree)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = "".join(each.communicate()[0] for each in both)
    assert said.split().count("scan") == 1 and said.split().count("18") == 2


def _held_out_before(dataset: ImageDataset, share: float, kind: Draw, seed: int) -> list[int]:
    """The choice as it was first written: runs of all versions agree on it."""
    shuffled = np.array(sorted(range(len(dataset)), key=lambda index: rng_key(seed, 0, dataset.ids[index], kind)))
    held = [
        members[: min(max(1, round(share * len(members))), len(members) - 1)]
        for label in np.unique(dataset.labels)
        if len(members := shuffled[dataset.labels[shuffled] == label]) > 1
    ]
    return np.sort(np.concatenate(held)).tolist()


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.4, 3), (0.5, 1)])
def test_images_held_out_are_the_same_as_ever(tree: Path, share: float, seed: int) -> None:
    whole = opened(tree)
    rest, held = hold_out(whole, share, Draw.VALIDATION, seed, "validation")
    assert held.indices.tolist() == _held_out_before(whole, share, Draw.VALIDATION, seed)
    assert sorted([*rest.ids, *held.ids]) == list(whole.ids)
    inner, _ = hold_out(rest, share, Draw.TEST, seed, "test")
    assert [inner[place].id for place in range(len(inner))] == list(inner.ids)
    assert [whole.labels[list(whole.ids).index(name)] for name in inner.ids] == inner.labels.tolist()


def test_what_is_held_out_is_kept_and_small_in_a_pickle(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data(images=str(tree / "images"), masks=str(tree / "masks"), train="train", validation=None, test=None)
    first, _ = open_sources(data)
    monkeypatch.setattr("bgsweep.data.datasets.wrappers._held_out", lambda *_: pytest.fail("chosen twice"))
    second, _ = open_sources(data)
    for name in ("train", "validation", "test"):
        assert list(first[name].ids) == list(second[name].ids)  # type: ignore[index]
        assert isinstance(second[name], Subset) and len(pickle.dumps(second[name])) < 6_000  # type: ignore[index]


@pytest.mark.parametrize("missing", [1, 2])
def test_a_tenth_of_the_masks_may_be_missing(tree: Path, missing: int) -> None:
    for mask in sorted((tree / "masks/train").rglob("*.png"))[:missing]:
        mask.unlink()
    if missing > 1:  # of 18
        with pytest.raises(UserError, match=r"2 of 18 images have no mask, .*up to 10% may be missing"):
            opened(tree)
        return
    source = opened(tree)
    assert source.missing_masks is not None and source.missing_masks.missing == 1
    mask = source[0].mask
    assert mask is not None and mask.shape == source[0].image.shape[:2] and mask.min() == 255


def test_sizes_are_asked_for_once_on_a_machine(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "DIGESTED_WHOLE", 0)
    monkeypatch.setattr(folder, "_SIZES_AGAIN", 2)
    real, asked = folder.size_of, list[str]()

    def counted(path: str) -> int:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(folder, "size_of", counted)
    digests = opened(tree).digests()
    assert digests.keys() == {"images", "masks"} and len(asked) == 4 + 2 * len(opened(tree))
    asked.clear()
    assert opened(tree).digests() == digests and len(asked) == 4
    first = Path(asked[0])
    first.write_bytes(first.read_bytes() + b"more")  # in place: no folder changes
    assert opened(tree).digests()["images"] != digests["images"]
