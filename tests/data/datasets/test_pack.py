import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Data, Views
from bgsweep.data import open_splits
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.pack import Pack, pack_mask, unpack_mask
from bgsweep.data.datasets.pack_size import PackSize
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.data.loader import Batches
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.storage.shards import RemoteShards, cache_root

SMALL = 20_000


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def packed(tree: Path) -> Path:
    """The tree as a pack of several shards; one mask has grey levels."""
    soft = sorted((tree / "masks/train").rglob("*.png"))[3]
    mask = cv2.imread(str(soft), cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    cv2.imwrite(str(soft), cv2.GaussianBlur(mask, (9, 9), 2))
    make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "pack"), SMALL)
    return tree / "pack"


@pytest.mark.parametrize("resize", [None, 32])
@pytest.mark.parametrize("split", ["train", "test", "."])
@pytest.mark.parametrize("remote", [False, True])
def test_samples_are_those_of_the_folders(packed: Path, resize: int | None, split: str, remote: bool) -> None:
    folder = Folder(packed.parent / "images", split, packed.parent / "masks", resize)
    pack = Pack(f"file://{packed}" if remote else str(packed), split, resize, cache_gb=1)
    assert list(pack.ids) == list(folder.ids)
    assert (pack.classes, pack.name, pack.digests()) == (folder.classes, folder.name, folder.digests())
    np.testing.assert_array_equal(pack.labels, folder.labels)
    for index in range(len(folder)):
        ours, theirs = pack[index], folder[index]
        assert (ours.id, ours.label) == (theirs.id, theirs.label)
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        assert ours.background_rect == theirs.background_rect


def test_views_are_those_of_the_folders(packed: Path) -> None:
    paths = {"images": str(packed.parent / "images"), "masks": str(packed.parent / "masks")}
    common = {"validation": None, "test": None}
    sources = [open_splits(Data(**names, **common)).train for names in (paths, {"pack": str(packed)})]
    pipeline = ViewPipeline(Views(size=48), Background(remove=0.4, random=0.4))
    epochs = [list(Batches(source, pipeline, 4, seed=1).epoch(0)) for source in sources]
    for folder, pack in zip(*epochs, strict=True):
        assert folder.counts == pack.counts
        for view, other in zip(folder.views, pack.views, strict=True):
            assert view.equal(other)


def test_a_copy_in_another_process_reads_the_same(packed: Path) -> None:
    pack = Pack(f"file://{packed}", "train", cache_gb=0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pack))[5].image, pack[5].image)


def test_shards_are_tar_files_that_webdataset_groups(packed: Path) -> None:
    shards = sorted(packed.glob("*.tar"))
    assert len(shards) > 2
    members: dict[str, dict[str, bytes]] = {}
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                stem, _, kind = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                members.setdefault(stem, {})[kind] = file.read()
    assert all(set(of) == {"json", "jpg", "mask.zst"} for of in members.values())
    first = members["000000000"]
    about = json.loads(first["json"])
    assert about["class"] == "dress"
    assert first["jpg"] == (packed.parent / "images" / about["id"]).read_bytes()


def test_masks_are_kept_exactly_hard_and_soft() -> None:
    soft = np.random.default_rng(0).integers(0, 256, (33, 21)).astype(np.uint8)
    hard = np.where(soft > 127, 255, 0).astype(np.uint8)
    for mask in (soft, hard, hard[:1, :1]):
        np.testing.assert_array_equal(unpack_mask(pack_mask(mask)), mask)
    assert len(pack_mask(hard)) < len(pack_mask(soft)) / 4


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_damaged_record_is_passed_over_and_named(packed: Path, part: str) -> None:
    shard = packed / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    offset, image, mask = (int(Pack(str(packed), ".")._index[key][0]) for key in ("offset", "image", "mask"))
    # The mask's member is the next: behind the padded image and a header.
    data[offset + 700 if part == "image" else offset + -(-image // 512) * 512 + 512 + mask - 1] ^= 1
    shard.write_bytes(data)
    pack = Pack(str(packed), ".")
    with pytest.raises(UnreadableImage, match=r"shard-000000\.tar: .*\.jpg is not what was packed; copy this shard"):
        pack[0]
    assert pack[1].image.size


def _truncate(pack: Path) -> None:
    shard = pack / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])


def _rename_out(pack: Path) -> None:
    """A pack made by somebody else, with a name that leads out of it and digests that fit."""
    import hashlib
    import io

    index = dict(np.load(pack / "index.npz"))
    text = index["names"].tobytes().replace(b"\0train/dress/", b"\0train/../../", 1)
    index["names"] = np.frombuffer(text, np.uint8)
    file = io.BytesIO()
    np.savez(file, **index)
    (pack / "index.npz").write_bytes(file.getvalue())
    manifest = json.loads((pack / "pack.json").read_text())
    manifest["index"] = hashlib.sha256(file.getvalue()).hexdigest()
    (pack / "pack.json").write_text(json.dumps(manifest))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda p: (p / "pack.json").unlink(), r"no finished pack at .*pack\.json is missing"),
    "manifest cut": (lambda p: (p / "pack.json").write_text("{"), r"damaged pack"),
    "shard missing": (lambda p: (p / "shard-000001.tar").unlink(), r"shard-000001\.tar is missing"),
    "shard truncated": (_truncate, r"shard-000001\.tar is missing or not of \d+ bytes"),
    "index changed": (lambda p: (p / "index.npz").write_bytes(b"x"), r"its index is not the one"),
    "name leads out": (_rename_out, r"a name in it leads out of the pack"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_pack_is_one_clear_line(packed: Path, case: str) -> None:
    spoil, message = BAD[case]
    spoil(packed)
    with pytest.raises(UserError, match=message) as error:
        Pack(str(packed), "train")
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_named_with_the_nearest(packed: Path) -> None:
    with pytest.raises(UserError, match=r"no split 'trian'; did you mean 'train'\?"):
        Pack(str(packed), "trian")


def test_a_remote_pack_is_fetched_within_the_limit(packed: Path) -> None:
    sizes = [size for size, _ in json.loads((packed / "pack.json").read_text())["shards"]]
    stranger = cache_root() / "another"
    stranger.mkdir(parents=True)
    (stranger / "shard-000000.tar").write_bytes(bytes(sizes[0]))
    limit = sizes[0] + sizes[1] + 100
    pack = Pack(f"file://{packed}", "train", cache_gb=limit / 1e9)
    assert isinstance(pack._shards, RemoteShards)
    pack._shards.fetch()
    kept = list(cache_root().rglob("*.tar"))
    assert not stranger.exists()
    assert sum(path.stat().st_size for path in kept) <= limit
    assert len(kept) >= 2
    folder = Folder(packed.parent / "images", "train", packed.parent / "masks")
    shutil.move(packed / "shard-000000.tar", packed / "gone")  # from here on only the local copy is there
    np.testing.assert_array_equal(pack[0].image, folder[0].image)


def test_reading_begins_before_shards_are_fetched(packed: Path) -> None:
    pack = Pack(f"file://{packed}", "train", cache_gb=1)
    assert not cache_root().exists()
    assert pack[0].image.size
    assert isinstance(pack._shards, RemoteShards)
    pack._shards._now["thread"].join()
    assert len(list(cache_root().rglob("*.tar"))) == len(list(packed.glob("*.tar")))


def test_a_shard_damaged_on_its_way_is_not_kept(packed: Path) -> None:
    pack = Pack(f"file://{packed}", "train", cache_gb=1)
    shard = packed / "shard-000000.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert isinstance(pack._shards, RemoteShards)
    with pytest.raises(OSError, match=r"shard-000000\.tar differs from its checksum"):
        pack._shards.fetch()
    assert not [path for path in cache_root().rglob("*") if path.is_file() and path.name != ".lock"]


def test_a_killed_packer_leaves_nothing_that_looks_finished(tree: Path) -> None:
    code = (
        "import sys, time; from bgsweep.storage.tree import LocalTree\n"
        "import bgsweep.data.datasets.pack_writer as packing\n"
        "write = LocalTree.write\n"
        "def slowly(self, name, data): write(self, name, data); print(name, flush=True); time.sleep(60)\n"
        "LocalTree.write = slowly\n"
        f"packing.make_pack(*sys.argv[1:4], {SMALL})"
    )
    places = [str(tree / name) for name in ("images", "masks", "pack")]
    child = subprocess.Popen([sys.executable, "-c", code, *places], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"shard-000000.tar\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait(120)
    assert not (tree / "pack").exists()
    make_pack(places[0], places[1], places[2], SMALL)
    assert len(Pack(places[2], "train")) == 18
    assert not list(tree.glob(".*partial"))


def test_what_is_there_is_not_written_over(packed: Path) -> None:
    for out in (str(packed), f"file://{packed}"):
        with pytest.raises(UserError, match=r"--out .*(exists|holds a pack)"):
            make_pack(str(packed.parent / "images"), str(packed.parent / "masks"), out)


def test_a_pack_can_be_written_to_a_uri(packed: Path) -> None:
    out = packed.parent / "remote"
    make_pack(str(packed.parent / "images"), str(packed.parent / "masks"), f"file://{out}", SMALL)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in packed.iterdir()
    }


@pytest.mark.slow
def test_a_bucket_is_packed_into_and_trained_from(packed: Path, s3: Any) -> None:
    """By the URI alone, over HTTP, by processes of the loader; a second run finds all on its own disk."""
    uri = "s3://bucket/packs/one"
    make_pack(str(packed.parent / "images"), str(packed.parent / "masks"), uri, SMALL)
    names = sorted(item["Key"] for item in s3.list_objects_v2(Bucket="bucket")["Contents"])
    assert [name.rpartition("/")[2] for name in names] == sorted(path.name for path in packed.iterdir())
    pipeline = ViewPipeline(Views(size=48), Background(remove=0.4, random=0.4))
    local = list(Batches(Pack(str(packed), "train"), pipeline, 4, seed=1).epoch(0))
    for workers in (2, 0):
        pack = Pack(uri, "train", cache_gb=1)
        remote = list(Batches(pack, pipeline, 4, seed=1, workers=workers).epoch(0))
        assert len(remote) == len(local)
        for ours, theirs in zip(remote, local, strict=True):
            assert all(view.equal(other) for view, other in zip(ours.views, theirs.views, strict=True))
        assert isinstance(pack._shards, RemoteShards)
        pack._shards.fetch()  # what the processes have begun in the background
        for name in names:
            if name.endswith(".tar") and workers:
                s3.delete_object(Bucket="bucket", Key=name)
    assert len(list(cache_root().rglob("*.tar"))) == len(list(packed.glob("*.tar")))


def test_the_index_takes_at_most_100_bytes_an_image(packed: Path) -> None:
    pack = Pack(str(packed), "train")
    arrays = [*pack._index.values(), pack.labels, pack._verified, pack.ids.bounds]  # type: ignore[attr-defined]
    total = sum(array.nbytes for array in arrays) + len(pack.ids.text)  # type: ignore[attr-defined]
    assert total / len(pack) <= 100


def test_masks_of_zero_and_one_are_refused(tree: Path) -> None:
    first = min((tree / "masks").rglob("*.png"))
    cv2.imwrite(str(first), np.eye(80, dtype=np.uint8))
    with pytest.raises(UserError, match=r"foreground is 1; masks go from 0"):
        make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "pack"))
    assert not list(tree.glob("*pack*"))


def test_a_mask_damaged_before_packing_is_told(tree: Path) -> None:
    first = min((tree / "masks").rglob("*.png"))
    first.write_bytes(b"no mask")
    result = make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "pack"))
    assert len(result["unreadable"]) == 1
    with pytest.raises(UnreadableImage, match="damaged when it was packed"):
        _ = Pack(str(tree / "pack"), ".")[0].mask


@pytest.mark.parametrize("part", [2, 5, 1000])
def test_images_packed_without_a_mask_are_counted_part_by_part(
    tree: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgsweep.data.datasets.pack._PART", part)
    lost = sorted((tree / "masks/train").rglob("*.png"))[7]
    lost.unlink()
    make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "pack"), SMALL)
    found = Pack(str(tree / "pack"), "train").missing_masks
    assert found is not None and (found.missing, found.images) == (1, 18)
    assert Path(found.example).stem == lost.stem


@pytest.mark.parametrize(
    ("size", "given", "expected"),
    [
        (PackSize(short_side=40), (80, 120), (40, 60)),
        (PackSize(max_side=60), (80, 120), (40, 60)),
        (PackSize(40, 50), (80, 120), (33, 50)),
        (PackSize(short_side=256), (80, 120), (80, 120)),
        (PackSize(max_side=32), (4000, 10), (32, 1)),
    ],
)
def test_a_size_holds_for_both_sides_and_never_enlarges(
    size: PackSize, given: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert size.of(given) == expected


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (PackSize(quality=90), r"--quality: images are packed unchanged; add --short-side"),
        (PackSize(short_side=8), r"--short-side 8: too small"),
        (PackSize(256, 200), r"--max-side 200: less than --short-side 256"),
        (PackSize(256, quality=101), r"--quality 101: .* 30 to 100"),
    ],
)
def test_sizes_without_sense_are_refused(tree: Path, size: PackSize, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "pack"), size=size)
    assert not (tree / "pack").exists()


def test_images_and_masks_are_shrunk_alike(tree: Path) -> None:
    """A large image, one with alpha in a PNG, one turned by EXIF; small ones keep their bytes."""
    large, cut, turned, damaged, *_ = sorted((tree / "images/train").rglob("*.jpg"))
    for path in (large, cut, turned):
        mask = path.relative_to(tree / "images").with_suffix(".png")
        for file in (path, tree / "masks" / mask):
            with PIL.Image.open(file) as opened:
                kernel = PIL.Image.Resampling.NEAREST if file != path else PIL.Image.Resampling.BICUBIC
                opened.resize((300, 200), kernel).save(file)
    with PIL.Image.open(cut) as opened:
        opened.convert("RGBA").save(cut.with_suffix(".png"))
    cut.unlink()
    with PIL.Image.open(turned) as opened:
        exif = opened.getexif()
        exif[0x0112] = 6
        opened.save(turned, exif=exif)
    damaged.write_bytes(damaged.read_bytes()[:300])
    size = PackSize(short_side=100)
    found = make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "small"), size=size)
    make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "whole"))
    assert found["shrunk"] == 3
    manifest = json.loads((tree / "small/pack.json").read_text())
    assert manifest["size"] == {"short_side": 100, "max_side": None, "quality": 90, "shrunk": 3}
    small, whole = Pack(str(tree / "small"), "train"), Pack(str(tree / "whole"), "train")
    assert list(small.ids) == list(whole.ids) and small.labels.tolist() == whole.labels.tolist()
    assert all(small.digests()[kind] != whole.digests()[kind] for kind in ("images", "masks"))
    for index, name in enumerate(small.ids):
        if Path(name).stem == damaged.stem:
            with pytest.raises(UnreadableImage):
                small[index]
            continue
        ours, theirs = small[index], whole[index]
        assert ours.mask is not None and theirs.mask is not None and ours.mask.shape == ours.image.shape[:2]
        if Path(name).stem not in (large.stem, cut.stem, turned.stem):
            assert small.encoded(index) == whole.encoded(index)
            continue
        assert ours.image.shape[:2] == ((150, 100) if Path(name).stem == turned.stem else (100, 150))
        exact = np.asarray(PIL.Image.fromarray(theirs.image).resize(ours.image.shape[1::-1]))
        assert np.abs(ours.image.astype(int) - exact).mean() < 6
        assert set(np.unique(ours.mask)) <= {0, 255}
        shrunk = cv2.resize(theirs.mask, ours.mask.shape[::-1], interpolation=cv2.INTER_AREA) > 127
        assert (shrunk == (ours.mask > 0)).mean() > 0.99
    with tarfile.open(tree / "small/shard-000000.tar") as tar:
        assert not [name for name in tar.getnames() if name.endswith(".png")], "shrunk images are JPEGs"
