"""Images in CSV and JSONL files, in tars of WebDataset, in Hugging Face's files and in CIFAR's."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bgsweep import testing
from bgsweep.config import Data, resolve
from bgsweep.config.columns import Columns
from bgsweep.data import ImageDataset, open_splits
from bgsweep.data.datasets import formats, listing
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.listed import Listed
from bgsweep.data.datasets.pack_size import PackSize
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.errors import Stopped, UserError
from bgsweep.stopping import Request
from bgsweep.training import load_checkpoint, save_checkpoint
from tests.forms import (
    CLASSES,
    FORMS,
    SPLITS,
    Row,
    arrow_table,
    cifar,
    members,
    rows,
    saved,
    table,
    write_csv,
    write_tar,
)
from tests.inputs import trainer_of, write_images


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    formats._listing.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path)
    return tmp_path


def split(uri: str, name: str = "train", masks: str | None = "included", **columns: str) -> Listed:
    found = formats.open_listing(uri, Columns(**columns))
    assert found is not None
    return Listed(found, name, masks)


def contents(dataset: ImageDataset) -> dict[bytes, tuple[str, bytes]]:
    """Label and mask of each image, by its pixels."""
    found = {}
    for index in range(len(dataset)):
        sample = dataset[index]
        mask = b"" if sample.mask is None else sample.mask.tobytes()
        found[sample.image.tobytes()] = (dataset.classes[sample.label] if sample.label >= 0 else "", mask)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_images_masks_and_labels_are_those_of_the_folders(folder: Path, form: str) -> None:
    uri = FORMS[form](folder)
    ours = open_splits(Data(images=uri, masks="included"))
    theirs = open_splits(Data(images=str(folder / "photos"), masks=str(folder / "masks")))
    for name in SPLITS:
        one, other = getattr(ours, name), getattr(theirs, name)
        assert contents(one) == contents(other) and list(one.classes) == list(other.classes) == CLASSES
        assert list(one.ids) == sorted(one.ids) and len(one) == len(other)
    assert ours.said == ()
    data = Data(images=uri, masks="included", resize=32)
    testing.check_dataset(lambda: open_splits(data.model_copy(update={"cache": True})).train)
    testing.check_dataset(lambda: split(uri, "test"))


@pytest.mark.parametrize("form", FORMS)
def test_a_pack_of_them_has_the_same_ids_labels_and_digests(folder: Path, form: str) -> None:
    uri = FORMS[form](folder)
    made = make_pack(uri, "included", str(folder / "pack"))
    assert made["images"] == 32 and made["missing_masks"] is None
    ours, packed = open_splits(Data(images=uri, masks="included")), open_splits(Data(pack=str(folder / "pack")))
    for name in SPLITS:
        one, other = getattr(ours, name), getattr(packed, name)
        assert list(one.ids) == list(other.ids) and one.labels.tolist() == other.labels.tolist()
        assert one.digests() == other.digests() and contents(one) == contents(other)
    make_pack(uri, "included", str(folder / "small"), size=PackSize(short_side=40))
    small = open_splits(Data(pack=str(folder / "small"))).train
    assert list(small.ids) == list(ours.train.ids) and small.labels.tolist() == ours.train.labels.tolist()
    for index, before in enumerate(map(ours.train.__getitem__, range(len(small)))):
        assert min(small[index].image.shape[:2]) == min(40, *before.image.shape[:2])


def test_digests_follow_labels(folder: Path) -> None:
    lines = table(folder)
    one = split(write_csv(folder / "one.csv", lines)).digests()
    lines[0]["label"] = next(name for name in CLASSES if name != lines[0]["label"])
    lines[0]["split"] = "train"
    other = split(write_csv(folder / "two.csv", lines)).digests()
    assert one["images"] != other["images"]


def test_ids_do_not_follow_the_order_of_rows_or_shards(folder: Path) -> None:
    lines = table(folder)
    one, other = split(write_csv(folder / "a.csv", lines)), split(write_csv(folder / "b.csv", lines[::-1]))
    assert list(one.ids) == list(other.ids) and one.digests() == other.digests()
    assert (
        one.ids[0]
        == str(rows(folder)[0].image.parent.relative_to(folder)).replace("hat", "dress") + "/" + Path(one.ids[0]).name
    )


def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(folder: Path) -> None:
    changes = [
        f"data={{images: {FORMS['tars in a folder'](folder)}, masks: included, resize: 24, loader_workers: 0}}",
        "views={size: 16, blur: 0.5}",
        "background={remove: 0.3, random: 0.4}",
        "method={queue_size: 16, hidden_dim: 16, embedding_dim: 8, split_bn: 2}",
        "encoder={name: resnet10, width: 4, stem: small}",
        "training={epochs: 2, batch_size: 4}",
        "workers={device: cpu}",
    ]
    whole, part = trainer_of(*changes), trainer_of(*changes)
    expected = [whole.step_epoch() for _ in range(2)][1]["loss"]
    part.stop.asked = lambda: Request.LEAVE if (part.epoch, part.step) == (1, 2) else Request.NOTHING
    part.step_epoch()
    with pytest.raises(Stopped):
        part.step_epoch()
    save_checkpoint(folder / "state.pt", part.state_dict())
    formats._listing.cache_clear()
    resumed = trainer_of(*changes)
    resumed.load_state_dict(load_checkpoint(folder / "state.pt"))
    assert resumed.step_epoch()["loss"] == expected
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name


def test_files_without_splits_hold_images_out(folder: Path) -> None:
    lines = [{key: line[key] for key in ("path", "label")} for line in table(folder)]
    found = open_splits(Data(images=write_csv(folder / "mine.csv", lines), holdout=0.25))
    assert (len(found.train), len(found.validation), len(found.test)) == (16, 8, 8)
    assert "mine.csv: no splits: 25% of each class is held out for validation and test each" in found.said[0]
    make_pack(str(folder / "mine.csv"), str(_mirrored(folder, lines)), str(folder / "pack"))
    packed = open_splits(Data(pack=str(folder / "pack"), holdout=0.25))
    assert list(packed.train.ids) == list(found.train.ids), "a pack of files without splits has none either"


def _mirrored(folder: Path, lines: list[dict[str, str]]) -> Path:
    for line, row in zip(lines, rows(folder), strict=True):
        path = (folder / "beside" / line["path"]).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(row.mask, path)
    return folder / "beside"


def test_the_split_of_a_file_follows_from_its_name(folder: Path) -> None:
    lines = table(folder)
    for name in ("train", "val"):
        wanted = name.replace("val", "validation")
        own = [{key: line[key] for key in ("path", "label")} for line in lines if line["split"] == wanted]
        write_csv(folder / f"{name}.csv", own)
    found = open_splits(Data(images=str(folder / "{train,val}.csv"), validation="val", test=None))
    assert (len(found.train), len(found.validation), len(found.test)) == (14, 8, 2)
    alone = open_splits(Data(images=str(folder / "train.csv")))
    assert len(alone.train) + len(alone.validation) + len(alone.test) == 16


def test_masks_lie_in_a_folder_in_other_tars_or_in_the_alpha_channel(folder: Path) -> None:
    own = [row for row in rows(folder) if row.split == "train"]
    images, masks, cut = {}, {}, {}
    for index, row in enumerate(own):
        images |= {key: value for key, value in members(f"{index:04}", row).items() if "mask" not in key}
        masks[f"{index:04}.png"] = row.mask.read_bytes()
        picture = PIL.Image.open(row.image)
        picture.putalpha(PIL.Image.open(row.mask).convert("L"))
        picture.save(folder / "cut.png")
        cut[f"{index:04}.png"] = (folder / "cut.png").read_bytes()
    expected = contents(split(_tar(folder, own)))
    uri = write_tar(folder / "photos-0.tar", images)
    for name, content in masks.items():
        (folder / "beside").mkdir(exist_ok=True)
        (folder / "beside" / name).write_bytes(content)
    for given in (write_tar(folder / "masks-0.tar", masks), str(folder / "beside")):
        assert contents(split(uri, ".", given)) == expected
        made = make_pack(uri, given, str(folder / f"{Path(given).name}.pack"))
        assert (made["images"], made["unreadable"], made["missing_masks"]) == (16, [], None)
    transparent = open_splits(Data(images=write_tar(folder / "cut-0.tar", cut), masks="alpha")).train
    found = {mask for _, mask in contents(transparent).values()}
    assert found <= {mask for _, mask in expected.values()} and len(found) > 10


def _tar(folder: Path, own: list[Row]) -> str:
    content: dict[str, bytes] = {}
    for index, row in enumerate(own):
        content |= members(f"{index:04}", row)
    return write_tar(folder / "train-0.tar", content)


def test_other_names_are_given_by_columns(folder: Path) -> None:
    lines = [
        {"file": f"{Path(line['path']).relative_to('photos')}", "kind": line["label"], "fold": line["split"]}
        for line in table(folder)
    ]
    uri = write_csv(folder / "mine.csv", lines)
    columns = {"image": "file", "label": "kind", "split": "fold", "root": str(folder / "photos")}
    found = open_splits(Data(images=uri, columns=Columns(**columns)))
    assert list(found.train.classes) == CLASSES and len(found.test) == 8
    assert split(uri, masks=None, **(columns | {"label": "none"})).classes == []
    about = {"0.jpg": rows(folder)[0].image.read_bytes(), "0.json": b'{"kind": 7}', "0.png": b"mask"}
    about |= {"1.jpg": rows(folder)[1].image.read_bytes(), "1.json": b'{"kind": 10}', "1.png": b"mask"}
    tar = write_tar(folder / "mine.tar", about)
    found_in_tar = split(tar, ".", None, image="jpg", label="kind", mask="png")
    assert (found_in_tar.classes, found_in_tar.listing.has_masks) == (["7", "10"], True), "in the order of numbers"


def test_unlabelled_images_train(folder: Path) -> None:
    lines = [{"path": line["path"], "split": line["split"]} for line in table(folder)]
    found = open_splits(Data(images=write_csv(folder / "mine.csv", lines)))
    assert (found.train.classes, set(found.train.labels.tolist())) == ([], {-1})
    names = open_splits(Data(images=str(folder / "bare.parquet"))) if _bare(folder) else found
    assert names.train.classes == ["0", "1"], "labels without names are their numbers"


def _bare(folder: Path) -> bool:
    pq.write_table(arrow_table(rows(folder), names=False), folder / "bare.parquet")
    return True


def test_images_without_a_path_are_named_by_their_row(folder: Path) -> None:
    content = arrow_table(rows(folder)[:9]).drop_columns(["image"])
    images = pa.array([row.image.read_bytes() for row in rows(folder)[:9]], pa.large_binary())
    pq.write_table(content.append_column("jpeg", images), folder / "mine.parquet")
    found = split(str(folder / "mine.parquet"), ".", "included", image="jpeg")
    assert list(found.ids) == [f"{number:09}.jpg" for number in range(9)]


def test_classes_of_one_name_stay_apart(folder: Path) -> None:
    content = arrow_table(rows(folder))
    about = content.schema.metadata[b"huggingface"].replace(b'"dress", "hat"', b'"crane", "crane"')
    pq.write_table(content.replace_schema_metadata({"huggingface": about}), folder / "mine.parquet")
    found = split(str(folder / "mine.parquet"), ".")
    assert found.classes == ["crane (0)", "crane (1)"] and sorted(np.bincount(found.labels).tolist()) == [16, 16]


def test_rows_without_bytes_are_the_files_at_their_paths(folder: Path) -> None:
    """As `datasets` writes into parquet files what it has read from files."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    lines = {name: [getattr(row, name) for row in rows(folder)] for name in ("image", "mask")}
    columns = {
        name: pa.array([{"bytes": None, "path": str(path)} for path in paths], kind) for name, paths in lines.items()
    }
    pq.write_table(pa.table({**columns, "label": [row.label for row in rows(folder)]}), folder / "mine.parquet")
    found = split(str(folder / "mine.parquet"), ".")
    assert contents(found) == contents(split(FORMS["csv"](folder), "."))
    assert list(found.ids) == sorted(path.name for path in lines["image"])


def test_compressed_arrow_files_are_copied(folder: Path) -> None:
    content = arrow_table(rows(folder))
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    file = pa.OSFile(str(folder / "m.arrow"), "wb")
    with file, pa.ipc.new_file(file, content.schema, options=options) as writer:
        writer.write_table(content)
    found = split(str(folder / "m.arrow"), ".")
    assert found.listing.copied and Path(found.listing.copied).is_relative_to(folder / "cache")
    assert len(contents(found)) == 32
    assert split(FORMS["arrow"](folder)).listing.copied is None, "others are read where they lie"


def test_an_index_is_made_once_and_follows_the_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_KEPT_FROM", 1000)
    uri, parquet = FORMS["tars in a folder"](folder), FORMS["parquet"](folder)
    before, copied = split(uri), split(parquet)
    assert {path.suffix for path in (folder / "cache/index").iterdir() if path.name[0] != "."} == {".arrays", ".images"}
    sent = pickle.dumps(before)
    assert len(sent) < 4000, "loader processes map the index"
    assert contents(pickle.loads(sent)) == contents(before)
    made: list[Any] = []
    monkeypatch.setattr(formats, "_entries", lambda files, *_: made.append(files.uri) or exit())
    formats._listing.cache_clear()
    assert list(split(uri).ids) == list(before.ids)
    monkeypatch.undo()
    monkeypatch.setattr(listing, "_KEPT_FROM", 1000)
    monkeypatch.setenv("BGSWEEP_CACHE", str(folder / "cache"))
    write_tar(folder / "shards/train-000000.tar", members("new", rows(folder)[0]))
    assert list(split(uri).ids)[-1] == "new.jpg"
    assert copied.listing.copied is not None
    os.remove(copied.listing.copied)  # noqa: PTH107
    formats._listing.cache_clear()
    assert contents(split(parquet)) == contents(split(FORMS["csv"](folder))), "a copy that was removed is made again"


def test_keys_that_shards_repeat_are_told_apart(folder: Path) -> None:
    for number, row in enumerate(rows(folder)[:4]):
        write_tar(folder / f"mine-{number}.tar", members("0000", row))
    assert list(split(str(folder / "mine-*.tar"), ".").ids) == [f"mine-{number}/0000.jpg" for number in range(4)]


def test_images_that_two_splits_share_are_left_out(folder: Path) -> None:
    lines = table(folder)
    twin = next(line for line in lines if line["split"] == "test")
    found = open_splits(Data(images=write_csv(folder / "a.csv", [*lines, twin | {"split": "train"}])))
    assert len(found.train) == 16 and "1 of 17 images left out, since a.csv/test has them too" in found.said[1]


@pytest.mark.parametrize(("kind", "label", "classes"), [(10, None, 10), (100, None, 100), (100, "coarse_labels", 2)])
def test_cifar_is_read_from_its_authors_files(tmp_path: Path, kind: int, label: str | None, classes: int) -> None:
    uri = cifar(tmp_path / "given" / ("cifar-10-batches-py" if kind == 10 else "cifar-100-python"), kind)
    columns = {} if label is None else {"label": label}
    train = split(str(tmp_path / "given"), "train", None, **columns)
    assert len(train) == (100 if kind == 10 else 20) and len(train.classes) == classes
    assert train.labels[:3].tolist() == [index % classes for index in range(3)]
    first = split(uri, "test", None)[0]
    np.testing.assert_array_equal(first.image, cv2.resize(EmbeddedSample("train")[0].image, (32, 32)))
    assert first.id == ("test_batch" if kind == 10 else "test") + "_00000.png"
    testing.check_dataset(lambda: split(uri, "train", None))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("ran",)

    uri = cifar(tmp_path / "cifar")
    (tmp_path / "cifar/test_batch").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(UserError, match=r"test_batch: not one of CIFAR's files.*print is no part of CIFAR's files"):
        split(uri)


def test_masks_of_a_tenth_of_the_images_may_be_missing(folder: Path) -> None:
    lines = table(folder)
    of_train = [line for line in lines if line["split"] == "train"]
    of_train[0]["mask"] = ""
    found = split(write_csv(folder / "a.csv", lines))
    assert found.missing_masks is not None and found.missing_masks.missing == 1
    index = list(found.ids).index(of_train[0]["path"])
    mask = found[index].mask
    assert mask is not None and mask.min() == 255, "such an image keeps its background"
    made = make_pack(str(folder / "a.csv"), "included", str(folder / "pack"))
    assert made["missing_masks"].startswith("1 of 32 images have no mask")
    of_train[1]["mask"] = ""
    with pytest.raises(UserError, match=r"data.masks: included: 2 of 16 images have no mask, .* up to 10% may be"):
        split(write_csv(folder / "b.csv", lines))


def test_masks_that_are_there_and_unused_are_told(folder: Path) -> None:
    uri = FORMS["csv"](folder)
    assert "the masks in it are not used; data.masks=included takes them" in open_splits(Data(images=uri)).said[0]
    with pytest.raises(UserError, match=r"set data.masks .`included`, if .*all.csv has them."):
        resolve({}, [f"data.images={uri}", "background.remove=0.2"])


def test_data_that_names_no_columns_has_the_digest_of_before() -> None:
    before, now = (resolve({}, [f"data={{images: a.csv, columns: {{{text}}}}}"]) for text in ("", "label: kind"))
    assert before.experiment.digest == resolve({}, ["data.images=a.csv"]).experiment.digest != now.experiment.digest
    with pytest.raises(UserError, match=r"data.columns: they are those of a file in data.images; name it"):
        resolve({}, ["data.columns={label: kind}"])


def test_a_saved_dataset_may_be_one_split(folder: Path) -> None:
    saved(folder / "one", [row for row in rows(folder) if row.split == "train"])
    assert len(split(str(folder / "one"), ".")) == 16
