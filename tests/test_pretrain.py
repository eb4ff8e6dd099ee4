"""One experiment, trained on Ray Train."""

from pathlib import Path
from typing import Any

import pytest
from ray.air._internal.util import skip_exceptions
from ray.train import ControllerError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from bgsweep import pretrain
from bgsweep.config import load
from bgsweep.session import ray_session

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.mark.slow
def test_what_ray_train_dies_of_can_be_told_by_tune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trainer:
        def fit(self) -> Any:
            raise ControllerError(WorkerGroupStartupTimeoutError(2))

    monkeypatch.setattr(pretrain, "_trainer", lambda *_: Trainer())
    with ray_session(2), pytest.raises(ControllerError, match="startup timed out") as met:
        pretrain.train(load(TINY, ["workers.count=2"]), tmp_path, lambda *_: None)
    skip_exceptions(met.value)  # as Tune does with what a trial raises; it follows causes to their end
