"""The rows of a block against the slow way: every image decoded for each view that shows any of it."""

from collections import Counter

import numpy as np
import pytest

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config.views import Background, Views
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.order import DONOR_BLOCK, donor_position, epoch_order
from bgsweep.data.sample import Sample
from bgsweep.data.view_builder import ViewBuilder
from bgsweep.seeding import view_key

SEED, EPOCH = 3, 1


class Counted(EmbeddedSample):
    def __init__(self) -> None:
        super().__init__("train")
        self.decoded = Counter[int]()

    def __getitem__(self, index: int) -> Sample:
        self.decoded[index] += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("donor", ["tiled", "plain", "inpainted"])
def test_rows_are_what_each_view_alone_would_be(donor: str) -> None:
    views = Views(size=64, small_crops=1, small_size=32)
    pipeline = ViewPipeline(views, Background(remove=0.2, random=0.6, donor=donor))
    source, plain = Counted(), EmbeddedSample("train")
    order = epoch_order(SEED, EPOCH, len(source))
    positions = range(DONOR_BLOCK // 2, 2 * DONOR_BLOCK)
    pictures = [np.empty((len(positions), size, size, 3), np.uint8) for size in pipeline.sizes]
    rows = ViewBuilder(source, pipeline, SEED, EPOCH, order).of(positions, pictures)

    replaced = 0
    for place, position in enumerate(positions):
        sample = plain[int(order[position])]
        assert rows[place].index == order[position]
        for view in range(pipeline.n_views):
            key = view_key(SEED, EPOCH, sample.id, view)
            other = plain[int(order[donor_position(key, position, len(order))])]
            made = pipeline.make(sample, lambda other=other: other, key, view)
            assert rows[place].views[view].applied == made.applied
            assert np.array_equal(pictures[view][place], made.image)
            replaced += made.applied == "replaced"
    assert replaced > 20
    # Half of the first block is not wanted here, but some of it gives backgrounds.
    assert max(source.decoded.values()) == 1 and len(source.decoded) < 2 * DONOR_BLOCK


def test_no_more_is_kept_than_others_ask_for() -> None:
    pipeline = ViewPipeline(Views(size=64), Background(random=0.3))
    source = EmbeddedSample("train")
    rows = ViewBuilder(source, pipeline, SEED, EPOCH, epoch_order(SEED, EPOCH, len(source)))
    rows.of(range(DONOR_BLOCK), [np.empty((DONOR_BLOCK, 64, 64, 3), np.uint8) for _ in range(2)])
    assert not rows._samples and 0 < len(rows._donors) < DONOR_BLOCK / 2
    for index, kept in rows._donors.items():
        rect = source[index].background_rect
        assert rect is not None and np.array_equal(kept.image, rect.of(source[index].image))
        assert kept.image.base is None
