"""The campaign at toy size: stopped, moved to an epoch's end, evaluated, stopped and resumed, with nothing lost."""

import argparse
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.faults
def test_a_campaign_of_one_worker_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import campaign

    campaign.make_links(tmp_path / "toy", 960, 40, classes=10)  # 29 steps an epoch
    found, checks = campaign.rehearse(tmp_path, tmp_path / "toy", argparse.Namespace(workers=1, steps=8))
    assert all(checks.values()), checks
    assert found["evaluation"] > 0 and found["rank"] > found["loader"] > 0
    assert found["a rank's first step, first run"] > found["a rank opens the images, first run"] > 0
