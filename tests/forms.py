"""The images of `tests.inputs.write_images` in each form of files that can be read."""

import csv
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bgsweep.data.datasets.bundled import EmbeddedSample

SPLITS = ("train", "validation", "test")
CLASSES = ["dress", "hat"]


class Row(NamedTuple):
    """An image of ``photos`` with its mask."""

    split: str
    label: str
    image: Path
    mask: Path


def rows(folder: Path) -> list[Row]:
    """All images, not in the order of their names, so that order is the reader's doing."""
    images = sorted((folder / "photos").rglob("*.jpg"), key=lambda path: path.name[::-1])
    found = []
    for image in images:
        split, label = image.parts[-3:-1]
        found.append(Row(split, label, image, folder / "masks" / split / label / f"{image.stem}.png"))
    return found


def table(folder: Path) -> list[dict[str, str]]:
    return [
        {
            "path": str(each.image.relative_to(folder)),
            "label": each.label,
            "mask": str(each.mask.relative_to(folder)),
            "split": each.split,
        }
        for each in rows(folder)
    ]


def write_csv(file: Path, lines: list[dict[str, str]], delimiter: str = ",") -> str:
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, lines[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(lines)
    return str(file)


def write_tar(file: Path, members: Mapping[str, bytes]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(file)


def members(key: str, row: Row, about: str = "cls") -> dict[str, bytes]:
    said = row.label.encode() if about == "cls" else json.dumps({"label": row.label, "width": 80}).encode()
    return {f"{key}.jpg": row.image.read_bytes(), f"{key}.{about}": said, f"{key}.mask.png": row.mask.read_bytes()}


def shards(folder: Path, name: Callable[[str, int], str], about: str = "cls") -> None:
    """Two tars for each split."""
    for split in SPLITS:
        own = [row for row in rows(folder) if row.split == split]
        for number in range(2):
            part = {}
            for index, row in enumerate(own[number::2]):
                part |= members(f"{number}{index:04}", row, about)
            write_tar(folder / name(split, number), part)


def arrow_table(found: list[Row], names: bool = True) -> pa.Table:
    """As `datasets` writes it: images with the path that they came from, labels as numbers, named in the metadata."""

    def images(files: Iterator[Path]) -> pa.Array:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        return pa.array([{"bytes": each.read_bytes(), "path": each.name} for each in files], kind)

    label = {"names": CLASSES, "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": label, "mask": {"_type": "Image"}}}}
    columns = {
        "image": images(row.image for row in found),
        "label": pa.array([CLASSES.index(row.label) for row in found], pa.int64()),
        "mask": images(row.mask for row in found),
    }
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(about)})


def saved(folder: Path, found: list[Row]) -> None:
    """A folder as `datasets.save_to_disk` writes it."""
    folder.mkdir(parents=True)
    content, file = arrow_table(found), "data-00000-of-00001.arrow"
    with pa.OSFile(str(folder / file), "wb") as out, pa.ipc.new_stream(out, content.schema) as writer:
        writer.write_table(content, max_chunksize=3)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": file}]}))


def _csv(folder: Path) -> str:
    return write_csv(folder / "all.csv", table(folder))


def _tsv(folder: Path) -> str:
    return write_csv(folder / "all.tsv", table(folder), "\t")


def _jsonl(folder: Path) -> str:
    lines = [
        {"file_name": str(Path(line["path"]).relative_to("photos")), "label": line["label"], "split": line["split"]}
        | {"mask": str(folder / line["mask"])}
        for line in table(folder)
    ]
    (folder / "photos/all.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return str(folder / "photos/all.jsonl")


def _tars(folder: Path) -> str:
    shards(folder, lambda split, number: f"shards/{split}-{number:06}.tar")
    return str(folder / "shards")


def _tars_of_pattern(folder: Path) -> str:
    shards(folder, lambda split, number: f"shards/{split}-{number:06}.tar", "json")
    return str(folder / "shards" / "{train,validation,test}-{000000..000001}.tar")


def _tars_in_folders(folder: Path) -> str:
    shards(folder, lambda split, number: f"shards/{split}/{number:06}.tar")
    return str(folder / "shards")


def _parquet(folder: Path) -> str:
    (folder / "data").mkdir()
    for split in SPLITS:
        own = [row for row in rows(folder) if row.split == split]
        for number in range(2):
            pq.write_table(arrow_table(own[number::2]), folder / f"data/{split}-0000{number}-of-00002.parquet")
    return str(folder / "data")


def _arrow(folder: Path) -> str:
    for split in SPLITS:
        saved(folder / "saved" / split, [row for row in rows(folder) if row.split == split])
    (folder / "saved/dataset_dict.json").write_text(json.dumps({"splits": SPLITS}))
    return str(folder / "saved")


FORMS: dict[str, Callable[[Path], str]] = {
    "csv": _csv,
    "tsv": _tsv,
    "jsonl": _jsonl,
    "tars in a folder": _tars,
    "tars of a pattern": _tars_of_pattern,
    "tars in folders": _tars_in_folders,
    "parquet": _parquet,
    "arrow": _arrow,
}


def cifar(folder: Path, kind: int = 10, count: int = 20) -> str:
    """CIFAR's files, with small copies of the embedded images in them."""
    folder.mkdir(parents=True)
    if kind == 10:
        about: dict[bytes, Any] = {b"label_names": [f"class {number}".encode() for number in range(10)]}
        batches, keys = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"], {b"labels": 10}
    else:
        about = {b"fine_label_names": [b"f%d" % each for each in range(100)], b"coarse_label_names": [b"c0", b"c1"]}
        batches, keys = ["train", "test"], {b"fine_labels": 100, b"coarse_labels": 2}
    (folder / ("batches.meta" if kind == 10 else "meta")).write_bytes(pickle.dumps(about, protocol=2))
    source = EmbeddedSample("train")
    pixels = [cv2.resize(source[index * 40].image, (32, 32)).transpose(2, 0, 1).reshape(-1) for index in range(count)]
    for name in batches:
        batch: dict[bytes, Any] = {b"data": np.stack(pixels)}
        batch |= {key: [index % classes for index in range(count)] for key, classes in keys.items()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return str(folder)
