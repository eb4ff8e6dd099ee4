"""Trials of a sweep that train side by side on a machine give the losses and weights of separate ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bgsweep.config import load
from bgsweep.data import shared_views, splits
from bgsweep.data.sharing import Sharing, share_within
from bgsweep.training.run import Run

TINY = Path(__file__).parents[1] / "tiny.yaml"
TRIALS = {
    "t00": ["background.remove=0", "background.random=0"],
    "t01": ["background.remove=0.1"],
    "t02": ["background.remove=0.4"],
    "t03": ["optimizer.lr=0.1"],
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path))
    yield
    share_within(None)
    splits._open.cache_clear()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
def test_four_trials_with_shared_views_and_images_train_as_without() -> None:
    found = []
    for shares in (False, True):
        splits._open.cache_clear()
        runs = []
        for name, words in TRIALS.items():
            share_within(Sharing("a sweep", name, views=True) if shares else None)
            runs.append(Run(load(TINY, words)))
        sharing = [run.training.batches._maker.shared for run in runs]
        assert all((each is not None) == shares for each in sharing)
        for each in sharing:
            assert each is None or each.near(0) or each is sharing[0]
        losses = [run.training.step_epoch()["loss"] for run in runs]
        found.append((losses, [run.training.method.state_dict() for run in runs]))
        if shares:
            made = sharing[0].views._head()  # type: ignore[union-attr]
            views = 2 * len(runs) * len(runs[0].splits.train)
            assert 0 < made < 0.75 * views * 16 * 16 * 3
    (losses, weights), (shared_losses, shared_weights) = found
    assert losses == shared_losses
    for one, other in zip(weights, shared_weights, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    shared_views._rings.cache_clear()
