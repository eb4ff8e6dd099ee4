"""One run as its driver sees it."""

from pathlib import Path

import pytest

from bgsweep import run
from bgsweep.config import load

TINY = Path(__file__).with_name("tiny.yaml")


def test_a_measured_value_that_is_no_number_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "online", lambda *_: {"knn_top1": float("nan")})
    with pytest.raises(run.Diverged, match="knn_top1 is nan in epoch 1"):
        run.Run(load(TINY)).step_epoch()
