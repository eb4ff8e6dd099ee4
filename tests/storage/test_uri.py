"""Images and checkpoints in an object store, through the addresses that a user writes."""

import errno
import fcntl
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgsweep.config import Data, load, resolve
from bgsweep.data import open_splits
from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.errors import UserError
from bgsweep.storage.uri import cached_split, downloaded, upload
from bgsweep.training.checkpoint import load_trained
from bgsweep.training.run import Run

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture
def image_folder(tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded images in folders, and in the bucket as ``photos/images`` and ``photos/masks``."""
    folder = tmp_path / "photos"
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [name for name in archive.namelist() if re.search(r"/(validation|test)/.*[05]\d?\.", name)]
        archive.extractall(folder, names)
    upload(folder, "s3://bucket/photos")
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    return folder


def test_images_of_a_bucket_are_those_of_the_folder_and_are_copied_once(image_folder: Path, s3: Any) -> None:
    splits = {"train": "validation", "validation": None, "test": "test"}
    here = open_splits(Data(images=f"{image_folder}/images", masks=f"{image_folder}/masks", **splits))
    there = open_splits(Data(images="s3://bucket/photos/images", masks="s3://bucket/photos/masks", **splits))
    for name in ("train", "test"):
        ours, theirs = getattr(here, name), getattr(there, name)
        assert list(ours.ids) == list(theirs.ids) and ours.digests() == theirs.digests()
        assert ours.name == theirs.name
        np.testing.assert_array_equal(ours[3].image, theirs[3].image)
        np.testing.assert_array_equal(ours[3].mask, theirs[3].mask)
    first = cached_split("s3://bucket/photos/images", "test", "data.images")
    changed = (first / "test").stat().st_mtime_ns
    assert cached_split("s3://bucket/photos/images", "test", "data.images") == first
    assert (first / "test").stat().st_mtime_ns == changed
    s3.put_object(Bucket="bucket", Key="photos/images/test/dress/zz.jpg", Body=b"one more")
    assert cached_split("s3://bucket/photos/images", "test", "data.images") != first


def test_a_checkpoint_in_a_bucket_is_read(tmp_path: Path, s3: Any) -> None:
    run = Run(load(TINY, ["training.epochs=1"]))
    run.step_epoch()
    run.save(tmp_path / "checkpoint")
    upload(tmp_path / "checkpoint", "s3://bucket/runs/checkpoint")
    trained = load_trained("s3://bucket/runs/checkpoint")
    expected = load_trained(tmp_path / "checkpoint").encoder.state_dict()
    assert trained.metrics == run.metrics
    assert all(np.array_equal(value, expected[name]) for name, value in trained.encoder.state_dict().items())


@pytest.mark.parametrize("place", ["s3://bucket/nothing", "s3://no-such-bucket/x", "zz://bucket/x"])
def test_a_wrong_address_is_one_line(place: str, s3: Any) -> None:
    with pytest.raises(UserError, match=place.replace("/", r"/")) as error, downloaded(place):
        pass
    assert "\n" not in str(error.value)


def test_objects_that_would_leave_their_folder_are_refused(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    s3.put_object(Bucket="bucket", Key="photos/test/../../../escaped.jpg", Body=b"x")
    with pytest.raises(UserError, match=r"'\.\./\.\./\.\./escaped\.jpg' would be written outside"):
        cached_split("s3://bucket/photos", "test", "data.images")
    with pytest.raises(UserError, match="would be written outside"), downloaded("s3://bucket/photos/test"):
        pass
    assert not list(tmp_path.rglob("escaped.jpg"))


def test_too_little_room_is_told_before_anything_is_copied(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    s3.put_object(Bucket="bucket", Key="photos/test/a.jpg", Body=bytes(11))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 10))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="BGSWEEP_CACHE"):
        cached_split("s3://bucket/photos", "test", "data.images")


@pytest.mark.parametrize("problem", ["a file", "no locks"])
def test_a_cache_that_cannot_be_used_is_named_with_the_cure(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path / "cache"))
    if problem == "a file":
        (tmp_path / "cache").write_text("")
    else:
        monkeypatch.setattr(fcntl, "flock", refuse)
    s3.put_object(Bucket="bucket", Key="photos/test/a.jpg", Body=bytes(11))
    reason = {"a file": "Not a directory", "no locks": "No locks available"}[problem]
    told = f"^data.images: s3://bucket/photos cannot be copied to {tmp_path}/cache/.*{reason}.*; set BGSWEEP_CACHE"
    with pytest.raises(UserError, match=told):
        cached_split("s3://bucket/photos", "test", "data.images")


@pytest.mark.parametrize("key", ["images", "masks"])
def test_credentials_in_an_address_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"data.{key}: credentials in an address would be logged") as error:
        resolve({"experiment": {"data": {key: "s3://AKIAKEY:planted-secret@bucket/photos"}}})
    assert "planted-secret" not in str(error.value)
