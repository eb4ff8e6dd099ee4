"""One experiment, trained on Ray Train."""

from pathlib import Path
from typing import Any

import pytest
from ray.air._internal.util import skip_exceptions
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from bgsweep.config import load
from bgsweep.distributed import train
from bgsweep.distributed.session import ray_session
from tests.command import bgsweep
from tests.inputs import LOST_FILES

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.mark.slow
def test_what_ray_train_dies_of_can_be_told_by_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        def fit(self) -> Any:
            raise ControllerError(WorkerGroupStartupTimeoutError(2))

    monkeypatch.setattr(train, "_trainer", lambda *_: Trainer())
    with ray_session(2), pytest.raises(ControllerError, match="startup timed out") as met:
        train.train(load(TINY, ["workers.count=2"]), tmp_path, lambda *_: None)
    skip_exceptions(met.value)  # as Tune does with what a trial raises; it follows causes to their end


@pytest.mark.slow
def test_workers_find_images_by_a_relative_path_and_their_warnings_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LOST_FILES["link to nowhere"](tmp_path)
    ended = bgsweep("pretrain", "mine.yaml", "workers.count=2", "workers.cpus=1", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (view, neighbour) = (line for line in caplog.messages if line.startswith("photos/train/dress/"))
    assert "lost.jpg, which does not exist" in view and "lost.jpg, which does not exist" in neighbour
    assert "unreadable 1" in ended.stdout
