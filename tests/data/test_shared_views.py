"""Trials side by side make each view once together, and train on the same pixels as each by itself."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Experiment
from bgsweep.data import shared_views as module
from bgsweep.data.batch import Batch
from bgsweep.data.batch_maker import BatchMaker
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.sample import Sample
from bgsweep.data.shared_views import SharedViews, shared_views
from bgsweep.data.sharing import Sharing, share_within
from bgsweep.errors import UnreadableImage

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")

BATCH = 48  # one and a half blocks


class Counted(EmbeddedSample):
    def __init__(self, unreadable: str = "") -> None:
        super().__init__("train")
        self.unreadable = unreadable
        self.decoded = Counter[int]()

    def __getitem__(self, index: int) -> Sample:
        self.decoded[index] += 1
        if self.ids[index] == self.unreadable:
            raise UnreadableImage(f"{self.unreadable}: damaged")
        return super().__getitem__(index)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path))
    module._rings.cache_clear()
    yield
    share_within(None)
    module._rings.cache_clear()


def experiment(**settings: Any) -> Experiment:
    views = {"size": 32, "small_size": 16, **settings.pop("views", {})}
    tree = {"method": {"name": "simclr"}, "views": views, "training": {"batch_size": BATCH, "epochs": 4}}
    return Experiment.model_validate(tree | settings)


class Trial:
    """A trial of a sweep as far as its batches go."""

    def __init__(self, name: str, settings: Experiment, shares: bool = True, dataset: Counted | None = None) -> None:
        share_within(Sharing("a sweep", name, shares))
        pipeline = ViewPipeline(settings.views, settings.background, settings.training.epochs)
        self.made = 0
        self.dataset = dataset or Counted()
        self.shared = shared_views(settings, self.dataset, pipeline)
        assert (self.shared is not None) == shares
        self.maker = BatchMaker(self.dataset, pipeline, BATCH, BATCH, 0, settings.seed, self.shared)
        make = pipeline.make

        def counted(*arguments: Any, **named: Any) -> Any:
            self.made += 1
            return make(*arguments, **named)

        pipeline.make = counted  # type: ignore[method-assign]
        self.meet()

    def meet(self) -> None:
        if self.shared is not None:
            self.shared.near(0)

    def batch(self, step: int = 0, epoch: int = 0) -> Batch:
        made = self.maker[epoch, step]
        assert isinstance(made, Batch)
        return made


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.counts == other.counts
    for name in ("labels", "indices", "swaps", "swapped"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None and right is None) or torch.equal(left, right), name
    for left, right in zip(one.views, other.views, strict=True):
        assert torch.equal(left, right)
    assert (one.photometry is None) == (other.photometry is None)
    for left, right in zip(one.photometry or [], other.photometry or [], strict=True):
        assert torch.equal(left, right)


SETTINGS: dict[str, list[dict[str, Any]]] = {
    "equal": [{"method": {"name": "simclr", "temperature": each}} for each in (0.1, 0.2, 0.3)],
    "probabilities": [
        {"background": {"remove": remove, "random": random}} for remove, random in ((0.2, 0.0), (0.0, 0.4), (0.4, 0.4))
    ],
    "backgrounds": [
        {"background": {"remove": 0.3, "random": 0.3, **each}} for each in ({"fill": "black"}, {"donor": "plain"})
    ],
    "scheduled": [{"background": {"remove": {"from": 0.5, "to": end, "course": "linear"}}} for end in (0.5, 0.0)],
    "swaps": [{"background": {"swap": share, "random": 0.2}} for share in (0.1, 0.4)],
    "on the device": [{"views": {"photometric": "device"}, "background": {"remove": each}} for each in (0.1, 0.5)],
    "inpainted": [{"background": {"donor": "inpainted", "random": each}} for each in (0.1, 0.3)],
    "multi-crop": [
        {"method": {"name": "swav"}, "views": {"small_crops": 2}, "background": {"apply_to": to, "remove": 0.3}}
        for to in ("global", "all")
    ],
    "soft": [
        {"background": {"remove": 0.4, "random": p, "blend": "soft", "foreground_scale": 1.5}} for p in (0.1, 0.6)
    ],
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_trials_together_train_on_what_each_would_by_itself(kind: str) -> None:
    alone = [Trial(f"alone {number}", experiment(**each), shares=False) for number, each in enumerate(SETTINGS[kind])]
    together = [Trial(f"{number}", experiment(**each)) for number, each in enumerate(SETTINGS[kind])]
    for trial in together:
        trial.meet()
    for step, epoch in ((0, 0), (1, 0), (3, 1)):
        for one, other in zip(together, alone, strict=True):
            assert_equal(one.batch(step, epoch), other.batch(step, epoch))
    made, needed = (sum(trial.made for trial in trials) for trials in (together, alone))
    assert made < 0.85 * needed
    if kind == "equal":
        assert made == alone[0].made and not together[1].dataset.decoded
    if kind == "probabilities":  # the same images, decoded once
        decoded = [sum(sum(each.dataset.decoded.values()) for each in trials) for trials in (together, alone)]
        assert decoded[0] < 0.5 * decoded[1]


def test_trials_at_the_same_time_share_the_work() -> None:
    settings = [experiment(background={"random": each}) for each in (0.1, 0.2, 0.3)]
    alone = [Trial("alone", each, shares=False).batch() for each in settings]
    together = [Trial(f"{number}", each) for number, each in enumerate(settings)]
    found: dict[int, Batch] = {}
    threads = [
        threading.Thread(target=lambda number=number, trial=trial: found.update({number: trial.batch()}))
        for number, trial in enumerate(together)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, batch in enumerate(alone):
        assert_equal(found[number], batch)
    assert sum(trial.made for trial in together) < 2.2 * 2 * BATCH  # of 6 without sharing


def test_trials_of_other_views_seeds_or_epochs_share_nothing() -> None:
    first = Trial("first", experiment())
    for number, other in enumerate(
        [experiment(seed=1), experiment(views={"size": 24}), experiment(data={"resize": 40}), experiment()]
    ):
        trial = Trial(f"{number}", other)
        assert trial.shared is not None
        near = trial.shared.near(0 if number < 3 else 10**9)
        assert not near
    first.batch()
    assert Trial("alone", experiment(), shares=False).shared is None


def test_trials_that_opened_a_folder_before_and_after_a_change_share_nothing() -> None:
    changed = Counted()
    changed.ids = changed.ids[1:]  # an image was removed, so that each number means the next file
    changed.labels = changed.labels[1:]
    same, before, after = (
        Trial(name, experiment(), dataset=each) for name, each in (("0", None), ("1", None), ("2", changed))
    )
    assert {before.shared.plain} == {same.shared.plain} != {after.shared.plain}  # type: ignore[union-attr]
    before.meet()
    assert not after.shared.near(0)  # type: ignore[union-attr]


def test_an_unreadable_image_is_replaced_as_without_sharing() -> None:
    name = EmbeddedSample("train").ids[int(Trial("order", experiment(), False).maker.order((0, 0), range(BATCH))[5])]
    settings = [experiment(background={"random": each}) for each in (0.2, 0.6)]
    together = [Trial(f"{number}", each, dataset=Counted(name)) for number, each in enumerate(settings)]
    together[0].meet()
    for trial, each in zip(together, settings, strict=True):
        batch = trial.batch()
        assert batch.counts["unreadable"] == 1
        assert_equal(batch, Trial("alone", each, shares=False, dataset=Counted(name)).batch())


def two() -> tuple[Trial, Trial, Batch]:
    trials = Trial("one", experiment()), Trial("other", experiment())
    trials[0].meet()
    return *trials, Trial("alone", experiment(), shares=False).batch()


def test_nobody_waits_for_a_trial_that_was_killed_at_its_work() -> None:
    one, other, expected = two()
    assert one.shared is not None
    for position in range(4):
        assert one.shared.claim(f"0/0/{position}")
    begun = time.monotonic()
    assert_equal(other.batch(), expected)
    assert time.monotonic() - begun < 5


def test_a_trial_goes_on_by_itself_where_the_memory_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, expected = two()
    assert one.shared is not None and one.shared.views is not None and other.shared is not None
    monkeypatch.setattr(SharedViews, "near", lambda *_: True)
    one.shared.views._lock._away_until = time.monotonic() + 60
    begun = time.monotonic()
    assert_equal(one.batch(), expected)
    other.shared.views = None  # the process that had it open has ended
    assert_equal(other.batch(), expected)
    assert time.monotonic() - begun < 10


def test_views_that_were_overwritten_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BYTES", 60_000)  # ten images' views
    monkeypatch.setattr(module.SharedViews, "near", lambda *_: True)
    one, slow, expected = two()
    fast = [one.batch(step) for step in range(3)]
    assert_equal(fast[0], expected)
    assert_equal(slow.batch(), expected)
    assert slow.made > BATCH
    assert np.array_equal(fast[2].views[0], slow.batch(2).views[0])
