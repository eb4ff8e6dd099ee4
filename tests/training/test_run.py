"""One run as its driver sees it."""

from pathlib import Path

import pytest
import torch

from bgsweep.config import load
from bgsweep.errors import UserError
from bgsweep.training import run

TINY = Path(__file__).parents[1] / "tiny.yaml"


def test_a_measured_value_that_is_no_number_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "online", lambda *_: {"knn_top1": float("nan")})
    with pytest.raises(run.Diverged, match="knn_top1 is nan in epoch 1"):
        run.Run(load(TINY)).step_epoch()


def test_the_gap_of_backgrounds_is_measured_on_the_way_where_it_is_wanted() -> None:
    values = run.Run(load(TINY, ["evaluate.bg_gap=true", "evaluate.variant=mixed_rand"])).evaluate()
    assert set(values) == {"knn_top1", "mixed_same", "mixed_rand", "bg_gap"}
    assert values["knn_top1"] == values["mixed_rand"]
    assert values["bg_gap"] == values["mixed_same"] - values["mixed_rand"]
    assert set(run.Run(load(TINY)).evaluate()) == {"knn_top1"}


def test_a_run_that_takes_over_anothers_state_keeps_its_own_settings(tmp_path: Path) -> None:
    donor = run.Run(load(TINY, ["optimizer.weight_decay=0.5", "optimizer.momentum=0.1"]))
    donor.step_epoch()
    donor.save(tmp_path)
    taker = run.Run(load(TINY, ["optimizer.weight_decay=0.001", "background.remove=0.0"]))
    with pytest.raises(UserError, match="the checkpoint is of experiment"):
        taker.restore(tmp_path)
    taker.restore(tmp_path, foreign=True)
    assert taker.epoch == 1 and taker.metrics == donor.metrics
    pairs = zip(taker.training.method.parameters(), donor.training.method.parameters(), strict=True)
    assert all(torch.equal(own, given) for own, given in pairs)
    for group in taker.training.optimizer.param_groups:
        assert (group["weight_decay"], group["momentum"]) == (0.001, 0.9)
    assert taker.training.optimizer.state_dict()["state"], "the optimiser's averages were left behind"
    assert taker.step_epoch()["epoch"] == 2
