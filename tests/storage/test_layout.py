"""The folders of runs and checkpoints in a store."""

from pathlib import Path
from typing import Any

import pytest

from bgsweep.storage.layout import (
    by_ray_train,
    checkpoint_file,
    ray_train_folder,
    ray_train_run,
    seed_checkpoints,
    still_there,
    sweep_folder,
)
from bgsweep.storage.uri import Uri


@pytest.mark.parametrize("store", ["s3://bucket/runs", "/runs"])
def test_a_trial_of_several_workers_has_a_folder_of_its_own(store: Uri) -> None:
    sweep = sweep_folder(store, "mine")
    first, second = (str(ray_train_folder(sweep, name, "0123")) for name in ("t00", "t01"))
    assert first == f"{store}/sweeps/mine/ray_train/t00-0123" and second != first


@pytest.mark.parametrize(
    "folder", ["s3://bucket/runs/sweeps/mine/ray_train/0123", "/runs/sweeps/mine/ray_train/t01-99"]
)
def test_a_trial_that_goes_on_keeps_the_folder_that_it_had(folder: str) -> None:
    """Older versions named it by the values alone."""
    assert str(ray_train_folder("/other", "t00", "0123", f"{folder}/checkpoint_2026")) == folder


def test_a_trial_that_had_one_worker_gets_a_folder_of_ray_train(tmp_path: Path) -> None:
    checkpoint = tmp_path / "tune-20261127-1" / "t00" / "checkpoint_000001"
    assert not by_ray_train(checkpoint) and by_ray_train("s3://b/sweeps/mine/ray_train/t00-9/checkpoint_2026")
    assert ray_train_folder(tmp_path, "t00", "0123", checkpoint) == tmp_path / "ray_train" / "t00-0123"


def test_each_seed_has_its_checkpoint_in_that_of_the_first(tmp_path: Path) -> None:
    assert seed_checkpoints("s3://b/c", 3, 3) == ["s3://b/c", "s3://b/c/seed_4", "s3://b/c/seed_5"]
    assert seed_checkpoints(tmp_path, 0, 2) == [tmp_path, tmp_path / "seed_1"]


def test_a_checkpoint_is_named_by_its_folder_or_its_file(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    file.touch()
    assert checkpoint_file(tmp_path) == checkpoint_file(file) == file


@pytest.mark.parametrize("store", ["s3://bucket/runs", "/runs"])
def test_ray_trains_run_of_a_trial_is_named_by_sweep_and_trial(store: str) -> None:
    folder = ray_train_folder(sweep_folder(store, "mine"), "t00", "0123")
    assert ray_train_run(folder) == (f"{store}/sweeps", "mine/ray_train/t00-0123")
    assert ray_train_run(f"{store}/pretrain/0123") == (f"{store}/pretrain", "0123")


@pytest.mark.parametrize("remote", [False, True])
def test_of_a_checkpoint_that_is_gone_the_oldest_beside_it_is_taken(remote: bool, tmp_path: Path, s3: Any) -> None:
    trial = "s3://bucket/runs/t00" if remote else str(tmp_path / "t00")

    def write(name: str) -> None:
        if remote:
            s3.put_object(Bucket="bucket", Key=f"runs/t00/{name}/state.pt", Body=b"x")
        else:
            (tmp_path / "t00" / name).mkdir(parents=True)

    assert still_there(f"{trial}/checkpoint_000004") is None
    write("checkpoint_000006")  # not whole yet, perhaps
    write("checkpoint_000005")
    assert str(still_there(f"{trial}/checkpoint_000004")) == f"{trial}/checkpoint_000005"
    write("checkpoint_000004")
    assert str(still_there(f"{trial}/checkpoint_000004")) == f"{trial}/checkpoint_000004"
