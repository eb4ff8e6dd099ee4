"""`bgsweep masks make` over whole trees: kept, continued, refused, and what odd files become."""

import io
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from bgsweep.data.datasets.folder import Folder
from bgsweep.errors import UserError
from bgsweep.images.decoding import decode_image
from bgsweep.masks.registry import HANDCRAFTED, METHODS
from bgsweep.masks.score import score_trees
from bgsweep.storage.tree import LocalTree
from bgsweep.workflows.make_masks import Making, _MaskWorker, gpu_share, make_masks
from tests.command import bgsweep
from tests.masks.conftest import Extract, extract_images
from tests.masks.onnx_network import one_channel
from tests.progress import wait_for

__all__ = ["extract_images"]

BGSWEEP = [sys.executable, "-m", "bgsweep.cli", "masks"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def make(images: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Make masks in this process, by the fastest method if none is named."""
    method = "network" if {"weights", "network"} & options.keys() else "rbd"
    return make_masks(str(images), str(out), **{"workers": 1, "method": method, **options})


def test_masks_mirror_the_images_and_can_be_trained_with(extract_images: Extract, tmp_path: Path) -> None:
    images = extract_images(20)
    said = make(images, tmp_path / "masks")
    source = Folder(images, "train", tmp_path / "masks")
    for index in range(len(source)):
        sample = source[index]
        assert sample.mask is not None and sample.mask.shape == sample.image.shape[:2]
    assert (said["images"], said["masks"], said["made"], said["unreadable"]) == (20, 20, 20, [])
    assert (said["method"], said["weights"], said["soft"]) == ("rbd", None, False)
    assert set(np.unique([np.unique(cv2.imread(str(mask))) for mask in (tmp_path / "masks").rglob("*.png")])) == {
        0,
        255,
    }
    manifest = json.loads((tmp_path / "masks/masks.json").read_text())
    assert manifest["complete"]
    assert manifest.items() <= said.items()
    assert not any(said["shares"].values())


def test_a_finished_tree_is_looked_at_and_left_alone(extract_images: Extract, tmp_path: Path) -> None:
    images, out = extract_images(20), tmp_path / "masks"
    first = make(images, out)
    before = times(out)
    again = make(images, out)
    assert times(out) == before
    assert again["made"] == 0
    assert {**first, "made": 0, "seconds": 0.0, "images_per_second": 0.0} == again


def test_what_is_missing_damaged_or_older_than_its_image_is_made_again(extract_images: Extract, tmp_path: Path) -> None:
    images, out = extract_images(70), tmp_path / "masks"
    make(images, out)
    whole, before = contents(out), times(out)
    masks = sorted(out.rglob("*.png"))
    masks[2].unlink()
    masks[20].write_bytes(b"")
    masks[36].write_bytes(b"damaged")
    image = sorted(images.rglob("*.jpg"))[69]
    image.write_bytes(image.read_bytes())
    make(images, out)
    assert contents(out) == whole
    after = times(out)
    kept = [name for name in before if before[name] == after[name]]
    assert len(kept) == 70 - 16 - 16 - 16 - 6, "groups of 16 that are whole are left alone"


def kill_after(count: int, images: Path, out: Path, workers: int) -> None:
    """Make masks in another process until so many are there, and kill it."""
    command = [*BGSWEEP, "make", str(images), "--out", str(out), "--workers", str(workers), "--method", "rbd"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: len(times(out)) >= count, lambda: times(out), "no more masks are made", process, every=0.02)
        process.send_signal(signal.SIGKILL)


def test_killed_half_way_and_continued_gives_the_same_bytes(extract_images: Extract, tmp_path: Path) -> None:
    images = extract_images(160)
    make(images, tmp_path / "whole")
    out = tmp_path / "killed"
    kill_after(60, images, out, workers=1)
    before = times(out)
    assert 60 <= len(before) < 160
    assert not json.loads((out / "masks.json").read_text())["complete"]
    (out / "train/.half.png.1.partial").write_bytes(b"half")
    make(images, out)
    assert contents(out) == contents(tmp_path / "whole")
    after = times(out)
    assert sum(before[name] != after[name] for name in before) < 16, "finished masks were made again"


@pytest.mark.faults
def test_ray_actors_give_the_same_bytes_also_when_killed(extract_images: Extract, tmp_path: Path) -> None:
    images = extract_images(160)
    make(images, tmp_path / "one")
    out = tmp_path / "killed"
    kill_after(50, images, out, workers=2)
    assert 50 <= len(times(out)) < 160
    made: dict[str, int] = {}
    while made != (made := times(out)):  # actors that outlive their driver for a moment finish what they have begun
        time.sleep(3)
    make(images, out, workers=2)
    assert contents(out) == contents(tmp_path / "one")


@pytest.mark.slow
def test_actors_reach_trees_by_uri(extract_images: Extract, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    images = extract_images(40)
    weights = tmp_path / "network.onnx"
    weights.write_bytes(one_channel("n"))
    make(images, tmp_path / "one", weights=str(weights))
    uri = f"file://{tmp_path}/two"
    said = make_masks(f"file://{images}", uri, weights=str(weights), workers=2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert (said["method"], said["parameters"]["input"]) == ("network", [32, 32])


def test_an_actor_returns_a_users_error(extract_images: Extract, tmp_path: Path) -> None:
    images, out = extract_images(2), tmp_path / "blocked"
    out.mkdir()
    (out / "train").write_text("in the way")
    names = [path.relative_to(images).as_posix() for path in images.rglob("*.jpg")]
    making = Making(str(images), str(out), "rbd", None, None, False)
    returned = pickle.loads(pickle.dumps(_MaskWorker(making).run(("make", names), [])))
    with pytest.raises(UserError, match=r"blocked/train/.*\.png: cannot be written: "):
        raise returned


@pytest.mark.parametrize(("gpus", "workers"), [(1, 1), (1, 3), (8, 10), (8, 8), (4, 2), (3, 7)])
def test_all_workers_find_a_place_on_the_gpus(gpus: int, workers: int) -> None:
    share = gpu_share(gpus, workers)
    assert 0 < share <= 1
    assert int(1 / share + 1e-9) * gpus >= workers
    assert gpu_share(0, workers) == 0


def _odd_files(folder: Path) -> None:
    """One good image, and one of each kind that makes trouble."""
    draws = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    picture = PIL.Image.fromarray(draws)
    folder.mkdir(parents=True)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG")
    (folder / "good.jpg").write_bytes(jpeg.getvalue())
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(jpeg.getvalue()[:700])
    (folder / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("no picture by its name")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    PIL.Image.fromarray(draws[:, :, 0].astype(np.uint16) * 257).save(folder / "deep.png")
    cv2.imwrite(str(folder / "deep_color.png"), draws.astype(np.uint16) * 257)
    picture.quantize(16).save(folder / "palette.png", transparency=3)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "rotated.jpg", exif=exif)
    picture.resize((1, 1)).save(folder / "dot.png")
    picture.resize((20_000, 10)).save(folder / "strip.png")


@pytest.mark.parametrize("method", METHODS)
def test_odd_files_get_a_mask_or_are_named(tmp_path: Path, method: Any) -> None:
    images, out, weights = tmp_path / "images", tmp_path / "masks", None
    _odd_files(images / "train")
    if method not in HANDCRAFTED:
        pytest.importorskip("onnxruntime")
        weights = tmp_path / "network.onnx"
        weights.write_bytes(one_channel())
    said = make(images, out, method=method, weights=weights and str(weights))
    unreadable = {item["image"]: item["reason"] for item in said["unreadable"]}
    assert unreadable.keys() == {"train/text.jpg", "train/truncated.jpg", "train/zero.jpg"}
    assert all("cannot be read" in reason for reason in unreadable.values())
    assert (said["images"], said["masks"], said["passed_over"]) == (11, 8, 1)
    assert json.loads((out / "masks.json").read_text())["unreadable"] == said["unreadable"]
    for mask in out.rglob("*.png"):
        image = next((images / "train").glob(f"{mask.stem}.*"))
        size = decode_image(image.read_bytes(), image.name)[1]
        assert PIL.Image.open(mask).size == size[::-1], image.name
    assert PIL.Image.open(out / "train/rotated.png").size == (48, 64)


def test_the_report_names_every_image_without_mask(tmp_path: Path) -> None:
    _odd_files(tmp_path / "images")
    command = [*BGSWEEP, "make", "images", "--out", "masks", "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "without mask: 3 images" in done.stdout
    for name in ("zero.jpg", "truncated.jpg", "text.jpg"):
        assert f"  {name}: cannot be read" in done.stdout
    assert "skipped: 1 files" in done.stdout


def _only_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path / "images").rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:50])


BAD: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "no images": (lambda t: (t / "images").rename(t / "pictures"), {}, r"images: no such folder, or no images in it"),
    "duplicate stems": (
        lambda t: [(t / "images" / name).write_bytes(b"") for name in ("a.PNG", "a.jpg")],
        {},
        r"a\.PNG and a\.jpg would share the mask a\.png; rename one of them",
    ),
    "masks inside images": (lambda t: None, {"out": "images/masks"}, r"--out .*images/masks: inside .*images"),
    "somebody's masks": (
        lambda t: (t / "truth").rename(t / "masks"),
        {},
        r"masks: contains PNG files that bgsweep has not",
    ),
    "weights for rbd": (lambda t: None, {"method": "rbd", "weights": "x.onnx"}, r"method rbd takes no weights"),
    "no network": (lambda t: None, {"method": "usps"}, r"--method usps: name a network by --weights"),
    "network of rbd": (lambda t: None, {"method": "rbd", "network": "u2net"}, r"--network u2net: method rbd has no"),
    "no weights file": (lambda t: None, {"weights": "x.onnx"}, r"--weights x\.onnx: No such file"),
    "nothing readable": (_only_unreadable, {}, r"none of 4 images can be read.*: train/.*\.jpg: cannot be read"),
    "damaged manifest": (
        lambda t: (t / "masks").mkdir() or (t / "masks/masks.json").write_text("{"),
        {},
        r"masks/masks\.json: damaged",
    ),
}


def test_masks_inside_images_are_refused_in_object_stores_too() -> None:
    with pytest.raises(UserError, match=r"--out s3://bucket/images/masks.*: inside s3://bucket/images"):
        make_masks("s3://bucket/images?region=x", "s3://bucket/images/masks?region=x")


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(extract_images: Extract, tmp_path: Path, case: str) -> None:
    spoil, options, message = BAD[case]
    images = extract_images(4)
    spoil(tmp_path)
    before = contents(images)
    out = tmp_path / options.get("out", "masks")
    with pytest.raises(UserError, match=message) as error:
        make(images, out, **{key: value for key, value in options.items() if key != "out"})
    assert "\n" not in str(error.value)
    assert contents(images) == before


def test_masks_of_two_methods_are_not_mixed(extract_images: Extract, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    images, out = extract_images(4), tmp_path / "masks"
    make(images, out)
    before = contents(out)
    (tmp_path / "network.onnx").write_bytes(one_channel())
    with pytest.raises(
        UserError, match=r"masks: contains masks made with method rbd, not network; name another folder"
    ):
        make(images, out, weights=str(tmp_path / "network.onnx"))
    assert contents(out) == before


def test_by_default_the_network_that_comes_with_the_package(extract_images: Extract, tmp_path: Path) -> None:
    images, out = extract_images(4), tmp_path / "masks"
    said = make_masks(str(images), str(out), workers=1)
    assert (said["method"], said["weights"][:8]) == ("network", "309c8469")
    assert said["parameters"].items() >= {"network": "u2netp", "input": [320, 320]}.items()
    assert said["license"] == "Apache-2.0"
    scores, _ = score_trees(LocalTree(out), LocalTree(tmp_path / "truth"))
    assert scores["iou"] > 0.9
    assert make_masks(str(images), str(out), workers=1)["made"] == 0


def test_masks_of_an_earlier_version_are_continued_or_refused(extract_images: Extract, tmp_path: Path) -> None:
    """The default of then, with manifests that did not yet say whether masks are soft."""
    images, out = extract_images(4), tmp_path / "masks"
    make(images, out, soft=True)
    manifest = json.loads((out / "masks.json").read_text())
    del manifest["soft"]
    (out / "masks.json").write_text(json.dumps({**manifest, "complete": False}))
    before = contents(out)
    with pytest.raises(
        UserError, match=r"masks: contains masks made with method rbd, not network; name another folder"
    ):
        make_masks(str(images), str(out), workers=1)
    with pytest.raises(UserError, match=r"masks: contains masks made with soft True, not False"):
        make(images, out)
    assert contents(out) == before
    assert make(images, out, soft=True)["complete"]
    (out / "masks.json").write_text(json.dumps({**manifest, "parameters": {"side": 160}, "complete": False}))
    with pytest.raises(UserError, match=r"made with grabcut None, not .*, version None, not 3; name"):
        make(images, out, soft=True)


def test_a_changed_setting_is_named_alone(extract_images: Extract, tmp_path: Path) -> None:
    images, out = extract_images(4), tmp_path / "masks"
    make(images, out)
    path = out / "masks.json"
    path.write_text(path.read_text().replace('"superpixels": 200', '"superpixels": 90'))
    with pytest.raises(UserError, match=r"contains masks made with superpixels 90, not 200; name"):
        make(images, out)


def test_soft_masks_keep_their_levels(extract_images: Extract, tmp_path: Path) -> None:
    images = extract_images(4)
    for soft in (False, True):
        make(images, tmp_path / str(soft), method="mbd", soft=soft)
    for path in (tmp_path / "True").rglob("*.png"):
        soft_mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        hard_mask = cv2.imread(str(tmp_path / "False" / path.relative_to(tmp_path / "True")), cv2.IMREAD_UNCHANGED)
        assert soft_mask.dtype == np.uint8 and len(np.unique(soft_mask)) > 50
        np.testing.assert_array_equal(hard_mask, np.where(soft_mask > 127, 255, 0))


def test_a_license_without_commercial_use_is_told(extract_images: Extract, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    extract_images(2)
    (tmp_path / "file.onnx").write_bytes(one_channel("n", side="side"))
    network = ("--network", "bria-rmbg-1.4", "--weights", "file.onnx", "--workers", "1")
    done = bgsweep("masks", "make", "images", "--out", "masks", *network, folder=tmp_path)
    assert done.returncode == 0 and "2 masks by bria-rmbg-1.4" in done.stdout
    assert "license of the network's weights: of BRIA AI, not for commercial use" in done.stdout


def test_a_network_that_is_misread_makes_no_masks(extract_images: Extract, tmp_path: Path) -> None:
    """Refused before the folder is claimed, so that the right command can follow."""
    pytest.importorskip("onnxruntime")
    images, out = extract_images(4), tmp_path / "masks"
    weights = tmp_path / "logits.onnx"
    weights.write_bytes(one_channel("n", side="side", last="Identity"))
    with pytest.raises(UserError, match=r"output lies between .* name the network by --network"):
        make(images, out, weights=str(weights))
    said = make(images, out, weights=str(weights), network="birefnet-general-lite")
    assert said["parameters"].items() >= {"network": "birefnet-general-lite", "activation": "sigmoid"}.items()


def test_a_full_disk_ends_clearly_and_loses_nothing(
    extract_images: Extract, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    images = extract_images(60)
    make(images, tmp_path / "whole")
    out = small_disk("size=140k") / "masks"
    with pytest.raises(
        UserError, match=r"masks/train/.*\.png: cannot be written: No space left on device; fix this and run"
    ):
        make(images, out)
    before = times(out)
    assert len(before) > 10
    whole = contents(tmp_path / "whole")
    assert all(content == whole[name] for name, content in contents(out).items() if name != "masks.json")
    assert not list(out.rglob("*.partial"))
    small_disk("size=4m")
    make(images, out)
    assert contents(out) == whole
    assert sum(times(out)[name] != before[name] for name in before) < 16


def test_a_read_only_output_ends_at_once(
    extract_images: Extract, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"masks\.json: cannot be written: Read-only file system"):
        make(extract_images(4), small_disk("ro,size=64k"))


def test_a_disk_that_becomes_read_only_loses_nothing(
    extract_images: Extract, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    images, out = extract_images(4), small_disk("size=1m") / "masks"
    make(images, out)
    whole = contents(out)
    newest = min(images.rglob("*.jpg"))
    newest.with_name("added.jpg").write_bytes(newest.read_bytes())
    small_disk("ro")
    with pytest.raises(UserError, match=r"masks\.json: cannot be written: Read-only file system; fix this"):
        make(images, out)
    assert contents(out) == whole
    small_disk("rw")
    make(images, out)
    after = contents(out)
    assert len(after) == 6
    assert all(after[name] == content for name, content in whole.items() if name != "masks.json")
