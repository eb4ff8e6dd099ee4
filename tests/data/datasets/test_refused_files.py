"""Files that images cannot be read from: each is refused in one line, with the file, the line or key, and the cure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgsweep.config import Data
from bgsweep.data import open_splits
from bgsweep.data.datasets import formats
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.errors import UserError
from tests.forms import FORMS, members, rows, table, write_csv, write_tar
from tests.inputs import write_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    formats._listing.cache_clear()
    write_images(tmp_path)
    return tmp_path


def _line(change: Callable[[list[dict[str, str]]], Any]) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        lines = table(folder)
        change(lines)
        return write_csv(folder / "mine.csv", lines)

    return make


def _text(text: str, name: str = "mine.csv") -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_text(text.replace("IMAGE", str(rows(folder)[0].image)))
        return str(folder / name)

    return make


def _tar_of(*names: str) -> Callable[[Path], str]:
    return lambda folder: write_tar(folder / "mine.tar", {name: rows(folder)[0].image.read_bytes() for name in names})


def _bytes(content: bytes, name: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


def _lost_shard(folder: Path) -> str:
    (Path(FORMS["tars in a folder"](folder)) / "train-000001.tar").unlink()
    return str(folder / "shards" / "train-{000000..000001}.tar")


def _no_bytes(folder: Path) -> str:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": "/far/0.jpg"}] * 2, kind)
    pq.write_table(pa.table({"image": images}), folder / "mine.parquet")
    return str(folder / "mine.parquet")


def _no_images(folder: Path) -> str:
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), folder / "mine.parquet")
    return str(folder / "mine.parquet")


def _pack(folder: Path) -> str:
    make_pack(str(folder / "photos"), str(folder / "masks"), str(folder / "pack"))
    return str(folder / "pack")


REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "no such column": (_text("file,label\na.jpg,x\n"), "mine.csv: no column 'path' .there are file, label.; name"),
    "no file": (_line(lambda lines: lines[2].update(path="no.jpg")), "mine.csv, line 4: no file .*/no.jpg; correct"),
    "no mask": (_line(lambda lines: lines[0].update(mask="no.png")), "mine.csv, line 2: no file .*/no.png; correct"),
    "no path": (_line(lambda lines: lines[1].update(path=" ")), "mine.csv, line 3: no path in column 'path'"),
    "a folder": (_line(lambda lines: lines[1].update(path="photos/x.jpg/..")), "line 3: .* is not named as an image"),
    "address": (_line(lambda lines: lines[1].update(path="http://a/b.jpg")), "line 3: http://a/b.jpg: files are read"),
    "no label": (_line(lambda lines: lines[1].update(label="")), "mine.csv, line 3: no label, but .* has one; add it"),
    "no split": (_line(lambda lines: lines[1].update(split="")), "line 3: '' in column 'split' cannot be a split's"),
    "twice": (_line(lambda lines: lines.append(lines[0])), "line .*: photos/.* is in .*, line .* too; remove one"),
    "twice, without label": (
        _line(lambda lines: lines.append(lines[0] | {"label": ""})),
        "photos/.* is in .*, line .* too; remove one",
    ),
    "strange label": (
        _line(lambda lines: next(each for each in lines if each["split"] == "validation").update(label="hut")),
        "mine.csv/validation: photos/.* has the label 'hut', which no training image has .1 such images.; .*mean 'hat'",
    ),
    "other values": (_text("path,label\nIMAGE,a,b\n"), "mine.csv, line 2: 3 values, but the first line has 2 names"),
    "no rows": (_text("path,label\n"), "mine.csv: no rows in it"),
    "not UTF-8": (_bytes(b"path\n\xff\xfe\n", "mine.csv"), "mine.csv: cannot be read .*; save it as CSV or JSONL"),
    "not JSON": (_text('{"path": "IMAGE"}\n{"path": \n', "mine.jsonl"), "mine.jsonl, line 2: not JSON .*; write one"),
    "not an object": (_text('["IMAGE"]\n', "mine.jsonl"), "mine.jsonl, line 1: not a JSON object"),
    "a list as label": (_text('{"path": "IMAGE", "label": [1]}', "m.jsonl"), "m.jsonl, line 1: .1. in 'label' is"),
    **{
        f"a late {key}": (
            _text(f'{{"path": "IMAGE"}}\n{{"path": "IMAGE", "{key}": "{value}"}}', "m.jsonl"),
            f"m.jsonl, line 2: has the key '{key}', which .* first row lacks; .*data.columns.{key}=none",
        )
        for key, value in (("label", "hat"), ("mask", "IMAGE"), ("split", "test"))
    },
    "one image": (_text("path\nIMAGE\n"), "mine.csv: only one image in it"),
    "tar without images": (_tar_of("0.txt", "0.cls"), "mine.tar: no images in it .*there are cls, txt.; correct the"),
    "tar with two images": (_tar_of("0.jpg", "0.png"), "mine.tar: 0: jpg and png could be the image; name its"),
    "tar with one label": (_tar_of("0.jpg", "0.cls", "1.jpg"), "mine.tar: 1: no label, but .*mine.tar: 0 has one"),
    "tar with bad JSON": (_tar_of("0.jpg", "0.json"), "mine.tar: 0.json: not a JSON object"),
    "compressed tar": (_bytes(b"\x1f\x8b\x08\0\0\0\0", "m.tar.gz"), "m.tar.gz: compressed, .* unpack it to .tar"),
    "no tar": (_bytes(b"text" * 300, "mine.tar"), "mine.tar: not a tar file, or damaged .*; copy it again"),
    "tar cut off": (lambda folder: _cut(Path(_tar_of("0.jpg", "1.jpg")(folder))), "not a tar file, or damaged"),
    "lost shard": (_lost_shard, "train-000001.tar is missing; copy it there, or correct the pattern"),
    "no such shard": (lambda folder: str(folder / "a-*.tar"), r"a-\*.tar: no such file; correct the path"),
    "parquet without images": (_no_images, "mine.parquet, columns of images .*: no column 'image' .there is none."),
    "parquet without bytes": (_no_bytes, "mine.parquet, row 0: no bytes of an image .*, and no file /far/0.jpg; save"),
    "no parquet": (_bytes(b"PAR1" * 9, "mine.parquet"), "mine.parquet: not a parquet file, or damaged"),
    "no arrow": (_bytes(b"text" * 9, "mine.arrow"), "mine.arrow: not an arrow file, or damaged"),
    "at a URI": (lambda folder: "s3://bucket/train-{00..12}.tar", "s3://.*: such files are read from a disk"),
    "another file": (_text("a", "mine.txt"), "mine.txt: neither a folder nor a file that images are read from"),
    "a pack": (_pack, "a pack; name it by data.pack"),
    "no such split": (FORMS["arrow"], "data.images: .*saved has no split 'dev'; there are: test, train, validation"),
}  # fmt: skip


def _cut(file: Path) -> str:
    file.write_bytes(file.read_bytes()[:2600])
    return str(file)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(folder: Path, name: str) -> None:
    make, error = REFUSED[name]
    uri = make(folder)
    with pytest.raises(UserError, match=error) as refused:
        open_splits(Data(images=uri, validation="dev" if name == "no such split" else "validation"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"masks": "included"}, "data.masks: no masks are included in .*mine.csv; name their column"),
        ({"masks": "included", "images": "photos"}, "data.masks: .*photos is a folder of images, which includes no"),
        ({"columns": {"label": "kind"}}, "mine.csv: no column 'kind' .there are path, label.; .*data.columns.label"),
        ({"columns": {"label": "kind"}, "images": "photos"}, "data.columns: .*photos is a folder of images"),
        ({"columns": {"split": "fold"}, "images": "a.tar"}, "data.columns.split: only CSV and JSONL files have it"),
        ({"columns": {"root": "nowhere"}}, "data.columns.root: no folder nowhere; correct it"),
        ({"images": "no.csv"}, "no.csv: no such file; correct the path"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder: Path, settings: dict[str, Any], error: str) -> None:
    write_csv(folder / "mine.csv", [{"path": line["path"], "label": line["label"]} for line in table(folder)])
    write_tar(folder / "a.tar", members("0", rows(folder)[0]))
    images = str(folder / settings.pop("images", "mine.csv"))
    with pytest.raises(UserError, match=error):
        open_splits(Data.model_validate({"images": images, **settings}))
