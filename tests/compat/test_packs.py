"""Packs of earlier versions are read and checked.

`packs.zip` holds four images of the embedded sample with their masks, packed from folders (format 1) and from a CSV
file (format 2). Never make it again: code that changes the format must go on reading these.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.pack import Pack
from bgsweep.errors import UnreadableImage

DIGESTS = {"tree.pack": "138512054cf392bc", "listed.pack": "54ebea35d437fd7d"}
PACKS = pytest.mark.parametrize("name", DIGESTS)


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("packs.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@PACKS
def test_samples_are_those_that_were_packed(packs: Path, name: str) -> None:
    pack = Pack(str(packs / name), "train")
    assert list(pack.classes) == ["dress", "hat"] and pack.labels.tolist() == [0, 0, 1, 1]
    assert pack.digests()["images"] == DIGESTS[name]
    with zipfile.ZipFile(ARCHIVE) as archive:
        for kind, ending in (("images", ".jpg"), ("masks", ".png")):
            for each, label in zip(pack.ids, pack.labels, strict=True):
                archive.extract(f"{kind}/train/{pack.classes[label]}/{Path(each).stem}{ending}", packs)
    folder = Folder(packs / "images", "train", packs / "masks")
    for ours, theirs in zip(map(pack.__getitem__, range(4)), map(folder.__getitem__, range(4)), strict=True):
        assert Path(ours.id).name == Path(theirs.id).name
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.mask, theirs.mask)


@PACKS
def test_a_changed_byte_is_found(packs: Path, name: str) -> None:
    shard = packs / name / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[int(Pack(str(packs / name), ".")._index["offset"][1]) + 700] ^= 1
    shard.write_bytes(data)
    pack = Pack(str(packs / name), ".")
    assert pack[0].image.size
    with pytest.raises(UnreadableImage, match=r"shard-000000\.tar: .*\.jpg is not what was packed"):
        pack[1]
