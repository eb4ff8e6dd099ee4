"""Masks of other names and contents, read where they are by `data.masks` and by `bgsweep pack`."""

import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from bgsweep.config import Data, Experiment, MaskFormat
from bgsweep.data import Splits, open_splits, splits
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.data.kept_backgrounds import check_views, too_many_kept
from bgsweep.errors import UserError
from tests.command import bgsweep
from tests.inputs import case, write_images

# What the cases' READMEs say of their files, as settings, and the share of pixels that may differ from the right masks:
# outlines that are void, and JPEG.
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "mask-16bit-255": ({"foreground": [255]}, 0),
    "mask-jpeg": ({"pattern": "{stem}.jpg"}, 0.02),
    "mask-multiclass": ({"foreground": "nonzero"}, 0),
    "mask-name-suffix": ({"pattern": "{stem}_mask.png"}, 0),
    "mask-palette-voc": ({"foreground": [1]}, 0.15),
    "mask-rgba-cutout": ({"channel": "alpha"}, 0),
    "mask-trimap-pets": ({"foreground": [1, 3]}, 0.15),
    "mask-upper-suffix": ({}, 0),
    "mask-void255": ({"foreground": "nonzero", "void": 255}, 0.15),
}


def opened(folder: Path, masks: str = "masks", **given: Any) -> Splits:
    images, root = str(folder / "photos"), masks if masks == "alpha" else str(folder / masks)
    return open_splits(Data(images=images, masks=root, mask_format=MaskFormat(**given)))


def assert_same_masks(read: Splits, right: Splits, tolerance: float) -> None:
    assert list(read.train.ids) == list(right.train.ids)
    for index in range(len(right.train)):
        mask, wanted = read.train[index].mask, right.train[index].mask
        assert mask is not None and wanted is not None
        assert np.mean((mask > 127) != (wanted > 127)) <= tolerance, read.train.ids[index]
        assert np.count_nonzero(mask > 127) > 0.5 * np.count_nonzero(wanted > 127)


@pytest.mark.parametrize("name", CASES)
def test_settings_read_what_is_refused_without_them(tmp_path: Path, name: str) -> None:
    case(name)(tmp_path)
    given, tolerance = CASES[name]
    right = opened(tmp_path / "base")
    assert_same_masks(opened(tmp_path / name, **given), right, tolerance)
    packed, options = tmp_path / "packed", []
    for key, value in given.items():
        words = value if isinstance(value, list) else [value]
        options += [f"--{key}", *map(str, words)]
    done = bgsweep("pack", name + "/photos", name + "/masks", "--out", packed, *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    pack = open_splits(Data(pack=str(packed)))
    assert_same_masks(pack, right, tolerance)
    assert pack.train.digests() == opened(tmp_path / name, **given).train.digests()


def test_the_same_files_read_in_another_way_have_another_digest(tmp_path: Path) -> None:
    case("mask-trimap-pets")(tmp_path)
    one, two = (opened(tmp_path / "mask-trimap-pets", foreground=ids).train.digests() for ids in ([1], [1, 3]))
    assert one["images"] == two["images"] and one["masks"] != two["masks"]


def test_ids_that_no_mask_has_are_refused_with_those_that_are_there(tmp_path: Path) -> None:
    case("mask-multiclass")(tmp_path)
    with pytest.raises(
        UserError, match=r"\.png: has the ids 0, 1, 2, 3, of which none is foreground.*mask_format\.fore"
    ):
        opened(tmp_path / "mask-multiclass", foreground=[7])


def test_a_pixel_more_is_scaled_with_a_warning_and_two_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path)
    right = opened(tmp_path)

    def pad(root: str, columns: int) -> None:
        shutil.copytree(tmp_path / "masks", tmp_path / root)
        for path in (tmp_path / root).rglob("*.png"):
            levels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(path), np.pad(levels, ((0, 0), (0, columns)), mode="edge"))

    pad("one", 1)
    assert_same_masks(opened(tmp_path, "one"), right, 0.03)
    assert "its mask differs from it by a pixel in size, and is scaled; 16 of the 16 images looked at" in caplog.text
    assert bgsweep("pack", "photos", "one", "--out", "packed", folder=tmp_path).returncode == 0
    pack = open_splits(Data(pack=str(tmp_path / "packed"))).train
    for index in range(len(pack)):
        mask, rect = pack[index].mask, pack[index].background_rect
        assert mask is not None and mask.shape == pack[index].image.shape[:2]
        assert rect is None or not (rect.of(mask) > 127).any()
    pad("two", 2)
    with pytest.raises(
        UserError, match=r"two/train/\S+: \d+x\d+ pixels, but its image \S+ has \d+x\d+; .*16 of the 16"
    ):
        opened(tmp_path, "two")


def test_own_alpha_channel(tmp_path: Path) -> None:
    write_images(tmp_path)
    right = opened(tmp_path)
    for path in sorted((tmp_path / "photos").rglob("*.jpg")):
        mask = path.parents[3] / "masks" / path.relative_to(tmp_path / "photos").with_suffix(".png")
        levels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        pixels = np.dstack([np.asarray(PIL.Image.open(path)), levels])
        PIL.Image.fromarray(pixels, "RGBA").save(path.with_suffix(".webp"), lossless=True, exact=True)
        path.rename(tmp_path / path.name)
    cut_out = opened(tmp_path, "alpha")
    assert [each[:-5] for each in cut_out.train.ids] == [each[:-4] for each in right.train.ids]
    for index in range(len(cut_out.train)):
        mask = cut_out.train[index].mask
        wanted = cv2.imread(str(tmp_path / "masks/train" / f"{cut_out.train.ids[index][:-5]}.png"), 0)
        np.testing.assert_array_equal(mask, wanted)
    done = bgsweep("pack", "photos", "alpha", "--out", "packed", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    without_alpha = next(tmp_path.glob("*.jpg"))
    without_alpha.rename(tmp_path / "photos/train/dress" / f"x{without_alpha.name}")
    splits._open.cache_clear()
    with pytest.raises(UserError, match=r"\.jpg: has no alpha channel"):
        opened(tmp_path, "alpha")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pattern without image": ({"mask_format": {"pattern": "mask.png"}}, r"pattern\n.* it needs \{stem\} or \{name\}"),
    "pattern out of the folder": ({"mask_format": {"pattern": "../{stem}.png"}}, r"pattern\n.* leave out \.\."),
    "several files": ({"mask_format": {"pattern": "{stem}_*.png"}}, r"pattern: \* stands for .*`bgsweep masks import`"),
    "segments": (
        {"mask_format": {"pattern": "{stem}.json"}},
        r"pattern: JSON files hold segments, of which `bgsweep masks",
    ),
    "annotations": (
        {"masks": "coco.json"},
        r"masks: coco\.json holds annotations: make masks of it by",
    ),
    "void alone": ({"mask_format": {"void": 255}}, r"void: ids are read only with foreground"),
    "no ids": ({"mask_format": {"foreground": []}}, r"foreground: name at least one id"),
    "void that is foreground": ({"mask_format": {"foreground": [1, 2], "void": 2}}, r"none that void names too"),
    "rgb without ids": ({"mask_format": {"channel": "rgb_id"}}, r"foreground: channel rgb_id reads ids"),
    "truth value": ({"mask_format": {"foreground": True}}, r"foreground"),
    "alpha with a format": ({"masks": "alpha", "mask_format": {"foreground": 1}}, r"describes files in data\.masks"),
    "format without masks": ({"masks": None, "mask_format": {"foreground": 1}}, r"describes files in data\.masks"),
}


@pytest.mark.parametrize(
    ("masks", "pattern", "message"),
    [
        (
            "coco.json",
            "{stem}.png",
            r"^masks: coco\.json holds annotations: make masks of it by",
        ),
        ("masks", "{stem}_*.png", r"^--pattern: \* stands for several files of an image, which `bgsweep masks import`"),
        (
            "masks",
            "{stem}.json",
            r"^--pattern: JSON files hold segments, of which `bgsweep masks import` makes",
        ),
    ],
)
def test_masks_that_are_imported_first_are_not_packed(masks: str, pattern: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        make_pack("images", masks, str(tmp_path / "pack"), mask_format=MaskFormat(pattern=pattern))


def test_no_views_are_not_too_few(recwarn: pytest.WarningsRecorder) -> None:
    """No warning of NumPy, where no mask can be read, which is told elsewhere."""
    assert too_many_kept(Experiment(), []) is None and not recwarn.list


@pytest.mark.parametrize("kind", REFUSED)
def test_settings_that_make_no_sense_are_refused(kind: str) -> None:
    given, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        Data(**{"images": "photos", "masks": "masks", **given})


def test_a_folder_called_alpha_must_be_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Data(images="photos", masks="alpha")
    (tmp_path / "alpha").mkdir()
    with pytest.raises(ValueError, match=r"masks: alpha is the images' own alpha channel.* write \./alpha"):
        Data(images="photos", masks="alpha")
    Data(images="photos", masks="./alpha")


@pytest.mark.parametrize("held_out", [False, True])
def test_digests_of_experiments_are_those_before_the_key_existed(held_out: bool) -> None:
    data = {"images": "photos", "masks": "masks"} | ({"test": None} if held_out else {})
    plain = Experiment.model_validate({"data": data})
    assert plain.digest == {False: "2ac359fdd9ed338a", True: "876e7e4958d58e1d"}[held_out]
    assert Experiment.model_validate({"data": data, "background": {"most_kept": 1.0}}).digest == plain.digest
    ids = Experiment.model_validate({"data": {**data, "mask_format": {"foreground": 1}}})
    assert ids.digest != plain.digest


def test_most_kept_lets_a_run_begin_whose_masks_are_right(tmp_path: Path) -> None:
    write_images(tmp_path)
    for path in (tmp_path / "masks").rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) * 0)
    train = opened(tmp_path).train
    experiment = Experiment.model_validate({"background": {"remove": 0.5, "most_kept": 1.0}})
    check_views(experiment, train)
    with pytest.raises(UserError, match=r"which is 0\.99$"):
        check_views(experiment.with_values({"background.most_kept": 0.99}), train)


MOSTLY = {
    "empty": (lambda mask: mask * 0, r"100\.0% empty", r"less than background\.min_area 0\.01 in 100%"),
    "never above half": (lambda mask: cv2.GaussianBlur(mask, (0, 0), 9) // 3, r"100\.0% never above half", r"in 100%"),
    "full": (
        lambda mask: mask | 255,
        r"100\.0% above 95% of the image",
        r"more than background\.max_area 0\.95 in 100%",
    ),
}


@pytest.mark.parametrize("kind", MOSTLY)
def test_masks_with_which_most_views_would_keep_their_background_are_refused(tmp_path: Path, kind: str) -> None:
    write_images(tmp_path)
    change, shares, kept = MOSTLY[kind]
    for path in (tmp_path / "masks").rglob("*.png"):
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)))
    refused = rf"photos/train: 100% of 32 views would keep their background: .*{kept}.*`bgsweep masks show`"
    done = bgsweep("pretrain", "mine.yaml", folder=tmp_path)
    assert done.returncode == 2 and re.search(refused, done.stderr), done.stderr
    assert "most_kept, which is 0.5" in done.stderr
    done = bgsweep("doctor", "mine.yaml", folder=tmp_path)
    assert done.returncode == 2 and re.search(shares, done.stdout) and "100% of 32 views" in done.stdout, done.stdout
    done = bgsweep("preview", "mine.yaml", "--out", "v.png", folder=tmp_path)
    assert done.returncode == 0 and re.search(shares, done.stderr) and "100% of 32 views" in done.stderr, done.stderr
    assert bgsweep("pack", "photos", "masks", "--out", "packed", folder=tmp_path).returncode == 0
    packed = "experiment: {data: {pack: packed}, background: {remove: 0.3}}\n"
    (tmp_path / "packed.yaml").write_text(packed)
    done = bgsweep("doctor", "packed.yaml", folder=tmp_path)
    assert re.search(shares, done.stdout) and "100% of 32 views" in done.stdout, done.stdout


def test_few_masks_without_foreground_are_told(tmp_path: Path) -> None:
    write_images(tmp_path)
    paths = sorted((tmp_path / "masks/train/dress").iterdir())
    for path, level in zip(paths[:2], (0, 255), strict=True):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) * 0 + np.uint8(level))
    (line,) = opened(tmp_path).said
    assert line.startswith(
        "photos/train: 16 masks looked at: 6.2% empty, 6.2% above 95% of the image; `bgsweep masks show`"
    )
    done = bgsweep("doctor", "mine.yaml", folder=tmp_path)
    assert "6.2% above 95%" in done.stdout and "for every image; 16 masks" in done.stdout, done.stdout
