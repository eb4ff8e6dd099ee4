"""Masks of every form that people have become 8-bit PNGs named as their images, or are refused in one line."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pycocotools.mask as coco
import pytest

from bgsweep.config import MaskFormat
from bgsweep.data.sample import Mask
from bgsweep.errors import UserError
from bgsweep.images.decoding import read_gray
from bgsweep.masks.plan import record_reviewed
from bgsweep.masks.sources import CocoMasks, MaskFiles
from bgsweep.storage.tree import open_tree
from bgsweep.workflows.import_masks import import_masks
from tests.command import bgsweep
from tests.inputs import write_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``photos`` and ``masks`` of 32 images, in splits and classes."""
    write_images(tmp_path)
    return tmp_path


def pairs(folder: Path) -> Iterator[tuple[str, Mask]]:
    """Each image's name, without suffix, with its true mask, 0 or 255."""
    for path in sorted((folder / "masks").rglob("*.png")):
        name = path.relative_to(folder / "masks").with_suffix("").as_posix()
        yield name, ((read_gray(path.read_bytes(), name) > 127) * 255).astype(np.uint8)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def halves(mask: Mask) -> list[Mask]:
    """Two masks that overlap and together are it; the first has more than half of its pixels."""
    first, second = mask.copy(), mask.copy()
    columns = np.flatnonzero(np.cumsum((mask > 0).sum(axis=0)) > np.count_nonzero(mask) * 0.7)[0]
    first[:, columns + 1 :] = 0
    second[:, : columns - 1] = 0
    return [first, second]


def run_lengths(mask: Mask, compressed: bool) -> dict[str, Any]:
    """A mask as COCO's run lengths: down the columns, background first."""
    if compressed:
        found = coco.encode(np.asfortranarray(mask > 0).astype(np.uint8, order="F"))
        return {"size": found["size"], "counts": found["counts"].decode()}
    flat = np.concatenate([[0], (mask > 0).T.ravel(), [2]])
    ends = np.flatnonzero(np.diff(flat.astype(int)))
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    return {"size": list(mask.shape), "counts": counts}


def polygons(mask: Mask) -> list[list[float]]:
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [outline.ravel().astype(float).tolist() for outline in outlines]


def suffixed(root: Path, name: str, mask: Mask) -> None:
    put(root / f"{name}_fg_mask_.png", png(mask))


def wide_suffixed(root: Path, name: str, mask: Mask) -> None:
    suffixed(root, name, np.pad(mask, ((0, 0), (0, 1)), mode="edge"))


def flat(root: Path, name: str, mask: Mask) -> None:
    put(root / f"{name.rpartition('/')[2]}.PNG", png(mask))


def instances(root: Path, name: str, mask: Mask) -> None:
    for number, half in enumerate(halves(mask)):
        put(root / f"{name}_{number}.png", png(half))


def a_folder_each(root: Path, name: str, mask: Mask) -> None:
    for number, half in enumerate(halves(mask)):
        put(root / name / f"{number}.png", png(half))


def classes(root: Path, name: str, mask: Mask) -> None:
    for label, half in zip(("cat", "dog"), halves(mask), strict=True):
        put(root / label / f"{name.rpartition('/')[2]}.png", png(half))


def stacked(root: Path, name: str, mask: Mask) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(root / f"{name}.npy", np.stack(halves(mask)) > 0)


def multimask(root: Path, name: str, mask: Mask) -> None:
    """As SAM gives them by default: three masks of each instance."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(root / f"{name}.npy", np.stack([[half] * 3 for half in halves(mask)]) > 0)


def numbered(root: Path, name: str, mask: Mask) -> None:
    first, second = halves(mask)
    put(root / f"{name}.png", png(np.where(first > 0, 1, second // 255 * 2).astype(np.uint8)))


def sam(root: Path, name: str, mask: Mask) -> None:
    segments = [{"segmentation": run_lengths(half, compressed=True), "area": 1} for half in halves(mask)]
    put(root / f"{name}.json", json.dumps(segments).encode())


def sa_1b(root: Path, name: str, mask: Mask) -> None:
    segments = [{"segmentation": run_lengths(half, compressed=False)} for half in halves(mask)]
    put(root / f"{name}.json", json.dumps({"image": {}, "annotations": segments}).encode())


def jpeg(root: Path, name: str, mask: Mask) -> None:
    put(root / f"{name}.jpg", cv2.imencode(".jpg", mask)[1].tobytes())


def imagenet_s(root: Path, name: str, mask: Mask) -> None:
    """Class 777 and 1000, which is ignored, as R + 256 G."""
    ids = np.where(mask > 0, 777, 0)
    ids[:2] = 1000
    put(root / f"{name}.png", png(np.dstack([np.zeros_like(ids), ids >> 8, ids & 255]).astype(np.uint8)))


def wider(root: Path, name: str, mask: Mask) -> None:
    put(root / f"{name}.png", png(np.pad(mask, ((0, 0), (0, 1)), mode="edge")))


# How the files are made, the options that read them, and what is foreground: all, the larger half, or all but two rows.
FORMS: dict[str, tuple[Callable[[Path, str, Mask], None], list[str], str]] = {
    "suffix": (suffixed, ["--pattern", "{stem}_fg_mask_.png"], "all"),
    "one folder, .PNG": (flat, ["--pattern", "/{stem}.png"], "all"),
    "one file an instance": (instances, ["--pattern", "{stem}_*.png"], "all"),
    "the largest instance": (instances, ["--pattern", "{stem}_*.png", "--instances", "largest"], "first"),
    "one folder an image": (a_folder_each, ["--pattern", "{stem}/*.png"], "all"),
    "one file a class": (classes, ["--pattern", "/*/{stem}.png"], "all"),
    "one class": (classes, ["--pattern", "/cat/{stem}.png"], "first"),
    "NumPy stack": (stacked, ["--pattern", "{stem}.npy"], "all"),
    "NumPy stack, the largest": (stacked, ["--pattern", "{stem}.npy", "--instances", "largest"], "first"),
    "instances as ids": (numbered, ["--foreground", "nonzero"], "all"),
    "the largest id": (numbered, ["--foreground", "nonzero", "--instances", "largest"], "first"),
    "one id": (numbered, ["--foreground", "1", "--void", "0", "2"], "first"),
    "SAM": (sam, ["--pattern", "{stem}.json", "--instances", "union"], "all"),
    "SAM, the largest": (sam, ["--pattern", "{stem}.json", "--instances", "largest"], "first"),
    "SA-1B": (sa_1b, ["--pattern", "{stem}.json", "--instances", "union"], "all"),
    "JPEG": (jpeg, ["--pattern", "{stem}.jpg"], "nearly all"),
    "ImageNet-S": (imagenet_s, ["--channel", "rgb_id", "--foreground", "nonzero", "--void", "1000"], "lower"),
    "a pixel wider": (wider, [], "nearly all"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_becomes_the_same_masks(folder: Path, kind: str) -> None:
    make, options, expected = FORMS[kind]
    truth = dict(pairs(folder))
    for name, mask in truth.items():
        make(folder / "theirs", name, mask)
    done = bgsweep("masks", "import", "photos", "theirs", "--out", "made", *options, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["images"], result["masks"], result["without_mask"], result["unreadable"]) == (32, 32, 0, [])
    assert result["scaled"] == (32 if kind == "a pixel wider" else 0)
    for name, mask in truth.items():
        wanted = halves(mask)[0] if expected == "first" else mask
        if expected == "lower":
            wanted[:2] = 0
        made = cv2.imread(str(folder / "made" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert made.dtype == np.uint8 and made.shape == wanted.shape
        assert np.mean((made > 127) != (wanted > 127)) <= (0.03 if expected == "nearly all" else 0), name


def coco_file(folder: Path, segment: Callable[[Mask], Any], names: Callable[[str], str]) -> None:
    """``coco.json``: each image has a person, and a dog that covers all of it."""
    images, annotations = [], []
    for number, (name, mask) in enumerate(pairs(folder)):
        height, width = mask.shape
        images.append({"id": number, "file_name": names(f"{name}.jpg"), "height": height, "width": width})
        dog = [[0.0, 0.0, width, 0.0, width, height, 0.0, height]]
        for category, segmentation in ((1, segment(mask)), (18, dog)):
            annotations.append({"image_id": number, "category_id": category, "segmentation": segmentation})
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(content))


COCO = {
    "polygons": (polygons, lambda name: name),
    "run lengths": (lambda mask: run_lengths(mask, compressed=False), lambda name: name),
    "compressed run lengths, bare names": (
        lambda mask: run_lengths(mask, compressed=True),
        lambda name: name.rpartition("/")[2],
    ),
}


@pytest.mark.parametrize("kind", COCO)
def test_coco_files_become_masks(folder: Path, kind: str) -> None:
    coco_file(folder, *COCO[kind])
    images = str(folder / "photos")

    def imported(out: str, **options: Any) -> dict[str, Any]:
        return import_masks(images, str(folder / "coco.json"), str(folder / out), MaskFormat(), **options)

    assert imported("made", categories=["person"])["masks"] == 32
    for name, mask in pairs(folder):
        made = read_gray((folder / "made" / f"{name}.png").read_bytes(), name)
        # Polygons run through the middles of pixels, and have no holes.
        assert np.mean(made != mask) < (0.04 if kind == "polygons" else 1e-9), name
    assert imported("all")["shares"]["huge"] == 1
    assert imported("ids", categories=["18"], instances="largest")["shares"]["huge"] == 1


PATHS = {
    "its end": (["a/1.jpg", "b/1.jpg"], {"train/a/1.jpg": "a/1.jpg", "train/b/1.jpg": "b/1.jpg"}),
    "its name": (["there/1.jpg"], {"train/a/1.jpg": "there/1.jpg"}),
    "itself, not another": (["train/a/1.jpg"], {"train/a/1.jpg": "train/a/1.jpg", "val/a/1.jpg": None}),
    "two files could be it": (["x/1.jpg", "y/1.jpg"], r"train/a/1\.jpg could be x/1\.jpg or y/1\.jpg"),
    "two images could be it": (["1.jpg"], r"train/a/1\.jpg and val/a/1\.jpg would both be its 1\.jpg"),
}


@pytest.mark.parametrize("kind", PATHS)
def test_coco_images_are_found_by(kind: str) -> None:
    """Each entry has a size of its own, by which it is recognised."""
    paths, expected = PATHS[kind]
    entries = [{"id": n, "file_name": path, "height": n + 1, "width": 9} for n, path in enumerate(paths)]
    data = json.dumps({"images": entries, "annotations": []}).encode()
    images = list(expected) if isinstance(expected, dict) else ["train/a/1.jpg", "val/a/1.jpg"]
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            CocoMasks(data, "coco.json", images, (), None)
        return
    masks = CocoMasks(data, "coco.json", images, (), None)
    for image, path in expected.items():
        mask = masks.mask_of(image)
        assert (None if mask is None else paths[mask.shape[0] - 1]) == path


def test_lvis_names_images_by_their_addresses(folder: Path) -> None:
    """The end of an address is the image's path: names repeat in two folders."""
    found = list(pairs(folder))[:2]
    for split, (name, _) in zip(("train2017", "val2017"), found, strict=True):
        put(folder / "coco" / split / "000000000139.jpg", (folder / "photos" / f"{name}.jpg").read_bytes())
    images, annotations = [], []
    for number, (split, (_, mask)) in enumerate(zip(("train2017", "val2017"), found, strict=True)):
        address = f"http://images.example.org/{split}/000000000139.jpg"
        height, width = mask.shape
        images.append({"id": number, "coco_url": address, "height": height, "width": width})
        annotations.append({"image_id": number, "category_id": 4, "segmentation": run_lengths(mask, compressed=False)})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 4, "name": "a", "synset": "a.n.01"}]}
    (folder / "lvis.json").write_text(json.dumps(content))
    done = bgsweep("masks", "import", "coco", "lvis.json", "--out", "made", "--categories", "a", folder=folder)
    assert done.returncode == 0 and "2 masks of 2 images" in done.stdout, done.stderr
    for split, (name, mask) in zip(("train2017", "val2017"), found, strict=True):
        made = read_gray((folder / "made" / split / "000000000139.png").read_bytes(), name)
        np.testing.assert_array_equal(made, mask)


def test_images_without_annotation_are_counted_and_those_without_a_segment_have_an_empty_mask(folder: Path) -> None:
    coco_file(folder, polygons, lambda name: name)
    content = json.loads((folder / "coco.json").read_text())
    del content["images"][0]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != 1]
    (folder / "coco.json").write_text(json.dumps(content))
    done = bgsweep("masks", "import", "photos", "coco.json", "--out", "made", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "31 masks of 32 images" in done.stdout and "empty 3.2" in done.stdout
    assert "without mask: 1 images, such as test/dress/" in done.stdout


def test_own_alpha_channel_and_exif_orientation(folder: Path) -> None:
    """Also of a square image, whose sizes do not tell."""
    truth = dict(pairs(folder))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for name, mask in truth.items():
        image = np.asarray(PIL.Image.open(folder / "photos" / f"{name}.jpg"))
        (folder / "photos" / f"{name}.jpg").unlink()
        pixels = np.rot90(np.dstack([image, mask])[:40, :40])
        PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "photos" / f"{name}.png", exif=exif)
    done = bgsweep("masks", "import", "photos", "alpha", "--out", "made", folder=folder)
    assert done.returncode == 0 and "32 masks of 32 images" in done.stdout, done.stderr
    for name, mask in truth.items():
        np.testing.assert_array_equal(
            read_gray((folder / "made" / f"{name}.png").read_bytes(), name) > 127, mask[:40, :40] > 0
        )


def test_masks_of_the_stored_pixels_are_turned_like_their_images(folder: Path) -> None:
    name, mask = max(pairs(folder), key=lambda pair: abs(pair[1].shape[0] - pair[1].shape[1]))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path = folder / "photos" / f"{name}.jpg"
    PIL.Image.open(path).save(path, exif=exif)
    done = bgsweep("masks", "import", "photos", "masks", "--out", "made", folder=folder)
    assert "turned as their images' EXIF orientations say: 1 masks" in done.stdout, done.stderr
    np.testing.assert_array_equal(
        read_gray((folder / "made" / f"{name}.png").read_bytes(), name) > 127, np.rot90(mask, -1) > 0
    )


def scaled(root: Path, name: str, mask: Mask) -> None:
    put(root / f"{name}.png", png(cv2.resize(mask, (mask.shape[1] * 2, mask.shape[0] * 2))))


REFUSED: dict[str, tuple[Callable[[Path, str, Mask], None], list[str], str]] = {
    "ids without foreground": (numbered, [], r"theirs/\S+\.png: its levels are 0, 1, 2, .* \(--foreground\)"),
    "ids that are not there": (
        numbered,
        ["--foreground", "7"],
        r"theirs: every mask is empty; theirs/\S+ has the ids 0, 1, 2; correct --for",
    ),
    "a suffix that is not named": (suffixed, [], r"_fg_mask_\.png lies there \(pattern '\{stem\}_fg_mask_\.png'\)"),
    "SAM, union or largest": (sam, ["--pattern", "{stem}.json"], r"SAM's segments cover .*--instances largest or"),
    "several masks an instance": (
        multimask,
        ["--pattern", "{stem}.npy"],
        r"theirs/\S+\.npy: an array of 2x3x\d+x\d+, where N x height .*; of SAM.s .*multimask_output=False",
    ),
    "no SAM": (lambda root, name, _: put(root / f"{name}.json", b"[3]"), ["--pattern", "{stem}.json"], r"not a list"),
    "another size": (scaled, [], r"mask of \S+: \d+x\d+ pixels, but its image photos/\S+ has \d+x\d+; a mask must"),
    "alpha and ids": (numbered, ["--channel", "alpha", "--foreground", "1"], r"--foreground: channel alpha has no ids"),
    "no id": (
        numbered,
        ["--foreground", "cup"],
        r"--foreground: ids are needed, which are whole numbers, such as \[1, 3\] \(given: \['cup'\]\)",
    ),
    "void alone": (numbered, ["--void", "255"], r"--void: ids are read only with foreground"),
    "no placeholder": (numbered, ["--pattern", "mask.png"], r"--pattern: it needs \{stem\} or \{name\}"),
    "nothing fits": (instances, ["--pattern", "{stem}-*.png"], r"theirs: no file for any image, such as \S+-\*\.png"),
    "categories": (numbered, ["--categories", "person"], r"--categories: only a COCO file has them"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_in_one_way_is_refused_in_one_line(folder: Path, kind: str) -> None:
    make, options, message = REFUSED[kind]
    for name, mask in pairs(folder):
        make(folder / "theirs", name, mask)
    done = bgsweep("masks", "import", "photos", "theirs", "--out", "made", *options, folder=folder)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(message, line), line


def test_the_folder_of_an_attempt_that_was_refused_can_be_used_again(folder: Path) -> None:
    for name, mask in pairs(folder):
        put(folder / "theirs" / f"{name}.png", png(mask // 255))
    refused = bgsweep("masks", "import", "photos", "theirs", "--out", "made", folder=folder)
    assert refused.returncode == 2 and "its foreground is 1" in refused.stderr
    done = bgsweep("masks", "import", "photos", "theirs", "--out", "made", "--foreground", "1", folder=folder)
    assert done.returncode == 0 and "32 masks of 32 images" in done.stdout, done.stderr


def test_a_file_that_two_images_could_have_is_refused(folder: Path) -> None:
    name, mask = next(pairs(folder))
    shutil.copyfile(folder / "photos" / f"{name}.jpg", folder / "photos" / f"{name}_1.jpg")
    put(folder / "theirs" / f"{name}_1_0.png", png(mask))
    with pytest.raises(UserError, match=r"_1_0\.png fits the pattern for .*\.jpg and for .*_1\.jpg; give a narrower"):
        given = MaskFormat(pattern="{stem}_*.png")
        import_masks(str(folder / "photos"), str(folder / "theirs"), str(folder / "made"), given)


BROKEN = {
    "not JSON": ("{", [], r"coco\.json: not JSON"),
    "no COCO": ("{}", [], r"coco\.json: has no `images` and `annotations`"),
    "no sizes": (
        '{"images": [{"id": 1, "file_name": "x"}], "annotations": []}',
        [],
        r"coco\.json: an image or annotation has no 'height', as COCO's files have; correct it",
    ),
    "no names": (
        '{"images": [{"id": 1, "height": 1, "width": 1}], "annotations": []}',
        [],
        r"coco\.json: an image or annotation has no 'file_name'",
    ),
    "lists for images": ('{"images": [[1]], "annotations": []}', [], r"coco\.json: not as COCO's files .* \(list ind"),
    "other images": (
        '{"images": [{"id": 1, "file_name": "x.jpg", "height": 1, "width": 1}], "annotations": []}',
        [],
        r"has none of the images, such as \S+\.jpg; its first is x\.jpg",
    ),
    "no such category": (
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}',
        ["--categories", "cat"],
        r"--categories cat: coco\.json has no such category; it has: person",
    ),
    "options of files": ("{}", ["--foreground", "1"], r"foreground is chosen by --categories"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_coco_files_that_cannot_be_read_are_refused_in_one_line(folder: Path, kind: str) -> None:
    content, options, message = BROKEN[kind]
    (folder / "coco.json").write_text(content)
    done = bgsweep("masks", "import", "photos", "coco.json", "--out", "made", *options, folder=folder)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and re.search(message, line), line


def test_masks_are_imported_again_by_the_same_settings_only(folder: Path) -> None:
    def imported(*options: str) -> int:
        return bgsweep("masks", "import", "photos", "masks", "--out", "made", *options, folder=folder).returncode

    assert [imported(), imported(), imported("--instances", "largest")] == [0, 0, 2]
    assert json.loads((folder / "made/masks.json").read_text())["complete"]


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of each file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("kind", ["files", "COCO"])
def test_an_interrupted_import_goes_on_and_writes_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The first mask is a pixel wider, which is counted although it is not read again."""
    for number, (name, mask) in enumerate(pairs(folder)):
        (suffixed if number else wide_suffixed)(folder / "theirs", name, mask)
    coco_file(folder, lambda mask: run_lengths(mask, compressed=True), lambda name: name)
    source, given = ("theirs", MaskFormat(pattern="{stem}_fg_mask_.png")) if kind == "files" else ("coco.json", None)

    def imported(out: str) -> dict[str, Any]:
        return import_masks(
            str(folder / "photos"), str(folder / source), str(folder / out), given or MaskFormat(), categories=()
        )

    whole = imported("whole")
    assert (whole["made"], whole["scaled"]) == (32, 1 if kind == "files" else 0)
    read: list[str] = []
    reader = MaskFiles if kind == "files" else CocoMasks
    mask_of = reader.mask_of

    def counted(masks: Any, image: str) -> Any:
        read.append(image)
        if len(read) == 12:
            raise KeyboardInterrupt
        return mask_of(masks, image)

    monkeypatch.setattr(reader, "mask_of", counted)
    with pytest.raises(KeyboardInterrupt):
        imported("made")
    before = state(folder / "made")
    assert not json.loads((folder / "made/masks.json").read_text())["complete"]
    put(folder / "made/test/.half.png.1.partial", b"half")
    done, read[:] = len(before) - 1, [""] * 12
    again = imported("made")
    after = state(folder / "made")
    assert 0 < done < 32
    assert again["made"] == len(read) - 12 == 32 - done, "a finished mask was read again"
    assert {name: kept for name, (kept, _) in after.items()} == {
        name: kept for name, (kept, _) in state(folder / "whole").items()
    }
    assert {**imported("made"), "out": ""} == {**again, "made": 0, "out": ""}
    assert state(folder / "made") == after


def test_masks_are_imported_again_if_their_source_or_their_image_has_changed(folder: Path) -> None:
    def imported() -> int:
        made = import_masks(str(folder / "photos"), str(folder / "theirs"), str(folder / "made"), MaskFormat())["made"]
        assert isinstance(made, int)
        return made

    shutil.copytree(folder / "masks", folder / "theirs")
    assert imported() == 32
    first, second, third = sorted((folder / "theirs").rglob("*.png"))[:3]
    first.write_bytes(png(np.zeros_like(cv2.imread(str(first), cv2.IMREAD_GRAYSCALE))))
    image = (folder / "photos" / second.relative_to(folder / "theirs")).with_suffix(".jpg")
    image.write_bytes(image.read_bytes())
    (folder / "made" / third.relative_to(folder / "theirs")).write_bytes(b"damaged")
    assert imported() == 3
    assert not cv2.imread(str(folder / "made" / first.relative_to(folder / "theirs"))).any()


def test_dropped_masks_stay_dropped(folder: Path) -> None:
    names = [f"{name}.png" for name, _ in pairs(folder)]
    source = folder / "photos", folder / "masks", folder / "made"
    import_masks(*map(str, source), MaskFormat())
    (folder / "made" / names[0]).unlink()
    record_reviewed(open_tree(str(folder / "made")), [names[0]], [])
    assert import_masks(*map(str, source), MaskFormat())["masks"] == 31
    assert not (folder / "made" / names[0]).exists()


def test_images_of_a_table_with_columns_of_other_names(folder: Path) -> None:
    names = [name for name, _ in pairs(folder)][:5]
    (folder / "photos/images.csv").write_text("file,kind\n" + "".join(f"{name}.jpg,any\n" for name in names))
    columns = ["--columns", "image=file", "label=kind"]
    done = bgsweep("masks", "import", "photos/images.csv", "masks", "--out", "made", *columns, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "5 masks of 5 images in made, 5 of them new" in done.stdout
    assert sorted(path.stem for path in (folder / "made").rglob("*.png")) == sorted(Path(name).name for name in names)
