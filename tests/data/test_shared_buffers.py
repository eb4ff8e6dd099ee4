import gc

import numpy as np
import torch

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Background, Views
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.loader import Batches
from bgsweep.data.shared_buffers import SharedBuffers, claim_slot, map_slot

SIZES, COUNT = [8, 4], 3


def test_what_is_written_to_a_place_arrives() -> None:
    ring = SharedBuffers(SIZES, COUNT)
    address = ring.take()
    there = map_slot(address, SIZES, COUNT)
    for number, view in enumerate(there):
        view[:] = np.arange(view.size, dtype=np.uint8).reshape(view.shape) + number
    here = claim_slot(address)
    assert [view.shape for view in here] == [(3, 8, 8, 3), (3, 4, 4, 3)]
    assert all(np.array_equal(one, other) for one, other in zip(here, there, strict=True))


def test_a_place_is_given_again_only_when_nothing_uses_it() -> None:
    ring = SharedBuffers(SIZES, COUNT)
    first = ring.take()
    second = ring.take()
    assert second != first  # promised, though nothing has arrived yet
    part = torch.from_numpy(claim_slot(first)[1])[1:].permute(0, 3, 1, 2)
    assert ring.take() not in (first, second)
    del part
    assert ring.take() == first


def test_batches_kept_by_whoever_trains_stay_as_they_are_and_others_share_few_places() -> None:
    source = EmbeddedSample("train")
    pipeline = ViewPipeline(Views(size=16), Background(remove=0.3, random=0.5))
    here = Batches(source, pipeline, 32, seed=1)
    there = Batches(source, pipeline, 32, seed=1, workers=2)
    kept = []
    for number, batch in enumerate(there.epoch(0)):
        if number % 8 == 0:
            kept.append(batch)
    assert len(kept) == 4
    for number, batch in enumerate(here.epoch(0)):
        if number % 8 == 0:
            assert all(map(torch.equal, batch.views, kept[number // 8].views))
    ring = there._tasks._ring
    assert ring is not None and len(ring._slots) <= 8 + 2 + len(kept)


def test_an_epoch_left_in_its_middle_leaves_its_places_to_the_next() -> None:
    source = EmbeddedSample("train")
    pipeline = ViewPipeline(Views(size=16), Background(remove=0.3, random=0.5))
    here = Batches(source, pipeline, 32, seed=1)
    there = Batches(source, pipeline, 32, seed=1, workers=2)
    for epoch in range(4):
        begun = there.epoch(epoch)
        next(begun)
        del begun
        gc.collect()
    assert all(
        torch.equal(one.views[0], other.views[0]) for one, other in zip(here.epoch(4), there.epoch(4), strict=True)
    )
    ring = there._tasks._ring
    assert ring is not None and len(ring._slots) <= 8 + 3
