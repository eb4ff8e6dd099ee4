"""The views of a batch's photographs, made in the order in which the least has to be decoded and kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from bgsweep.augment.pipeline import LARGE_VIEWS, ViewPipeline, ViewResult
from bgsweep.data.order import DONOR_BLOCK, donor_position, swap_position
from bgsweep.data.sample import Image, ImageDataset, Sample
from bgsweep.errors import UnreadableImage, UserError, warn_once
from bgsweep.images.compositing import Rect
from bgsweep.seeding import Draw, rng_key, swap_keys, view_key

# So many unreadable photographs in a row are no accident.
_PATIENCE = 20


@dataclass
class ImageViews:
    """The views of one photograph and where it stands in the source; with BG_Swaps, its negative if one was drawn.

    `swap_kept`: BG_Swaps was drawn, but a view's foreground is out of bounds, so that nothing was done.
    """

    index: int
    views: list[ViewResult]
    swap: ViewResult | None = None
    swap_kept: bool = False


@dataclass(frozen=True)
class _Swap:
    """BG_Swaps as drawn for one image: positions of the images that give something.

    Attributes:
        donor: gives the query its background, if BG_Random was drawn for that.
        other: is shown by the negative.
        keys_donor: gives the key its background; another one than the query's.
    """

    donor: int
    other: int
    keys_donor: int


class ViewBuilder:
    """Makes the views of the photographs at some positions of an epoch's order, block by block.

    Which photographs give others their backgrounds is drawn before any is decoded: these come first in their block, and
    of each no more is kept than what it gives. A photograph that is let go leaves its memory to the next one while it
    is in cache; keeping all of a block's costs three hundredths of the time.
    """

    def __init__(
        self, source: ImageDataset, pipeline: ViewPipeline, seed: int, epoch: int, order: npt.NDArray[np.int64]
    ) -> None:
        self.source, self.pipeline, self.seed, self.epoch, self.order = source, pipeline, seed, epoch, order
        self._samples: dict[int, Sample] = {}
        self._given: dict[int, Sample] = {}

    def of(self, positions: range, pictures: Sequence[Image]) -> list[ImageViews]:
        """One row for each position; views are also written to their places in `pictures`, one array for each view."""
        self.pipeline.set_epoch(self.epoch)
        rows = {}
        for number, block in groupby(positions, lambda position: position // DONOR_BLOCK):
            self._samples.clear()
            self._given.clear()
            wanted = self._asked_for(number * DONOR_BLOCK)
            for position in sorted(block, key=lambda position: position not in wanted):
                places = [view[position - positions.start] for view in pictures]
                rows[position] = self._row(position, places)
                self._let_go(rows[position].index, position in wanted)
        return [rows[position] for position in positions]

    def _asked_for(self, first: int) -> set[int]:
        """The positions of a block that its draws for BG_Random and BG_Swaps name."""
        pipeline, length = self.pipeline, len(self.order)
        if not (pipeline.swap_share or pipeline.donor_views):
            return set()
        wanted = set()
        for position in range(first, min(first + DONOR_BLOCK, length)):
            name = self.source.ids[int(self.order[position])]
            for view in pipeline.donor_views:
                key = self._view_key(name, view)
                if pipeline.asks_donor(key, view):
                    wanted.add(donor_position(key, position, length))
            if (swap := self._drawn_swap(name, position)) is not None:
                wanted |= {swap.donor, swap.other, *([swap.keys_donor] if pipeline.swaps_keys else [])}
        return wanted

    def _let_go(self, index: int, wanted: bool) -> None:
        sample = self._samples.pop(index)
        if wanted:
            self._given[index] = _rect_of(sample) if self.pipeline.gives_rect else sample

    def _row(self, position: int, places: list[Image]) -> ImageViews:
        wanted = int(self.order[position])
        for further in range(_PATIENCE):
            index = (wanted + further) % len(self.order)
            try:
                return self._swapping(index, position, places)
            except UnreadableImage as error:
                warn_once(f"{error}; the next image stands in for it")
        raise UserError(f"{self.source.name}: {_PATIENCE} images in a row cannot be read; see the warnings above")

    def _swapping(self, index: int, position: int, places: list[Image]) -> ImageViews:
        """The views of a photograph, and BG_Swaps' negative if its draw says so and both large views admit it."""
        pipeline, sample = self.pipeline, self._sample(index)
        swap = self._drawn_swap(sample.id, position)
        keys = [self._view_key(sample.id, view) for view in range(LARGE_VIEWS)]
        kept = swap is not None and pipeline.swaps_keys and not pipeline.swap_fits(sample, keys)
        replacing = swap.keys_donor if swap is not None and pipeline.swaps_keys and not kept else None
        views = [
            self._view(sample, position, view, place, replacing if view == 1 else None)
            for view, place in enumerate(places)
        ]
        if swap is None or kept:
            return ImageViews(index, views, swap_kept=kept)
        other, donor, drawn = self._at(swap.other), swap.donor, swap_keys(self.seed, self.epoch, sample.id)
        return ImageViews(index, views, pipeline.make_swap(sample, lambda: self._at(donor), other, keys[0], drawn))

    def _view(self, sample: Sample, position: int, view: int, place: Image, replacing: int | None) -> ViewResult:
        """One view; with `replacing`, on the background of the photograph at that position."""
        key = self._view_key(sample.id, view)

        def donor() -> Sample:
            return self._at(donor_position(key, position, len(self.order)) if replacing is None else replacing)

        made = self.pipeline.make(sample, donor, key, view, replace=replacing is not None)
        place[:] = made.image  # while it is in cache
        return made._replace(image=place)

    def _drawn_swap(self, name: str, position: int) -> _Swap | None:
        """What is drawn for a photograph by BG_Swaps; None where nothing is."""
        if not self.pipeline.swap_share:
            return None
        key, length = rng_key(self.seed, self.epoch, name, Draw.SWAP), len(self.order)
        if key / 2**64 >= self.pipeline.swap_share:
            return None
        donor = donor_position(self._view_key(name, 0), position, length)
        other = swap_position(key, position, donor, length)
        return _Swap(donor, other, swap_position(self._view_key(name, 1), position, donor, length))

    def _view_key(self, name: str, view: int) -> int:
        return view_key(self.seed, self.epoch, name, view)

    def _at(self, position: int) -> Sample:
        """What the photograph at a position gives to others."""
        index = int(self.order[position])
        return self._given[index] if index in self._given else self._sample(index)

    def _sample(self, index: int) -> Sample:
        if index not in self._samples:
            self._samples[index] = self.source[index]
        return self._samples[index]


def _rect_of(sample: Sample) -> Sample:
    """What of a photograph is shown tiled; all of it where there is no such part, or none that can be read."""
    try:
        rect = sample.background_rect
    except UnreadableImage:  # whoever asks for it is told
        return sample
    if rect is None:
        return sample
    whole = Rect(0, 0, rect.height, rect.width)
    return replace(sample, image=rect.of(sample.image).copy(), load_mask=None, load_rect=lambda: whole)
