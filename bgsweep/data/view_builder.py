"""The views of a batch, made in an order that decodes each image once and keeps few of them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from bgsweep.augment.pipeline import LARGE_VIEWS, ViewPipeline, ViewResult
from bgsweep.augment.training_crop import Applied
from bgsweep.data.order import DONOR_BLOCK, OrderWindow, donor_position, swap_position
from bgsweep.data.sample import Image, ImageDataset, Sample
from bgsweep.data.shared_views import LONGEST_WAIT, PAUSE, SharedViews
from bgsweep.errors import UnreadableImage, UserError, warn_once
from bgsweep.images.compositing import Rect
from bgsweep.seeding import Draw, rng_key, swap_keys, view_key

# This many unreadable images in a row are a broken dataset, not single damaged files.
_PATIENCE = 20


@dataclass
class ImageViews:
    """The views of one image.

    Attributes:
        index: of the image in the dataset.
        views: large ones first.
        swap: BG_Swaps' negative, if one was drawn.
        swap_kept: BG_Swaps was drawn, but a view's foreground is out of bounds, so that it was not applied.
    """

    index: int
    views: list[ViewResult]
    swap: ViewResult | None = None
    swap_kept: bool = False


@dataclass(frozen=True)
class _Swap:
    """BG_Swaps as drawn for one image: positions of the images that give something.

    Attributes:
        donor: position of the image that gives the query its background, if BG_Random was drawn for that.
        other: position of the image that the negative shows.
        keys_donor: position of the image that gives the key its background; another one than the query's.
    """

    donor: int
    other: int
    keys_donor: int


class ViewBuilder:
    """Makes the views of the images at some positions of an epoch's order, block by block.

    Donors are drawn before any image is decoded: they come first in their block, and no more of each is kept than the
    part that it gives. A released image leaves its memory to the next one while it is in the CPU's cache; keeping all
    images of a block would cost 3 % of the time.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        pipeline: ViewPipeline,
        seed: int,
        epoch: int,
        order: OrderWindow,
        shared: SharedViews | None = None,
    ) -> None:
        self.dataset, self.pipeline, self.seed, self.epoch, self.order = dataset, pipeline, seed, epoch, order
        self._samples: dict[int, Sample] = {}
        self._donors: dict[int, Sample] = {}
        self._keys: dict[tuple[int, int], int] = {}
        self._backgrounds: dict[tuple[int, int], Applied] = {}
        self._offered, self._shared = shared, shared

    def of(self, positions: range, buffers: Sequence[Image]) -> list[ImageViews]:
        """The views of each position; they are also written to `buffers`, one array for each view."""
        self.pipeline.set_epoch(self.epoch)
        rows = {}
        for number, block in groupby(positions, lambda position: position // DONOR_BLOCK):
            self._samples.clear()
            self._donors.clear()
            self._keys.clear()
            self._backgrounds.clear()
            wanted = self._donor_positions(number * DONOR_BLOCK)
            # Donors first: when another image asks for one, it has been decoded for its own views already.
            ordered = sorted(block, key=lambda position: position not in wanted)
            slots = {position: [view[position - positions.start] for view in buffers] for position in ordered}
            made = self._made_with_others(slots) if self._others_are_near(number) else self._made_alone(slots)
            for position, row in made:
                rows[position] = row
                self._release(row.index, position in wanted)
        return [rows[position] for position in positions]

    def _others_are_near(self, block: int) -> bool:
        here = self.epoch * len(self.order) + block * DONOR_BLOCK
        self._shared = self._offered if self._offered is not None and self._offered.near(here) else None
        return self._shared is not None

    def _made_alone(self, slots: Mapping[int, list[Image]]) -> Iterator[tuple[int, ImageViews]]:
        """Each position with its views."""
        for position, views in slots.items():
            yield position, self._views_or_next(position, views)

    def _made_with_others(self, slots: Mapping[int, list[Image]]) -> Iterator[tuple[int, ImageViews]]:
        """The same in another order: at first what no other trial is at."""
        assert self._shared is not None
        waiting = {}
        for position, views in slots.items():
            if (row := self._taken_or_made(position, views)) is None:
                waiting[position] = views
            else:
                yield position, row
        # One by one, since each look costs as much as a hundredth of a view.
        until = time.monotonic() + LONGEST_WAIT
        for position, views in waiting.items():
            while (row := self._taken_or_made(position, views)) is None and time.monotonic() < until:
                time.sleep(PAUSE)
            yield position, row or self._views_or_next(position, views)

    def _taken_or_made(self, position: int, slots: list[Image]) -> ImageViews | None:
        """An image's views; None while another trial is at them, which it is for a moment at most."""
        assert self._shared is not None
        index = int(self.order[position])
        # With a negative behind them, views need the image in any case.
        swapped = self._draw_swap(index, position) is not None
        found = [None] * len(slots) if swapped else self._finished(index, position, slots)
        if (whole := [each for each in found if each is not None]) and len(whole) == len(slots):
            return ImageViews(index, whole)
        work = f"{self.seed}/{self.epoch}/{position}"
        if not self._shared.claim(work):
            return None
        begun = time.monotonic()
        row = self._views_or_next(position, slots)
        self._shared.release(work, time.monotonic() - begun)
        return row

    def _finished(self, index: int, position: int, slots: list[Image]) -> list[ViewResult | None]:
        assert self._shared is not None
        found: list[ViewResult | None] = []
        for view, slot in enumerate(slots):
            found.append(self._shared.read(self._shared_key(index, position, view), slot))
            if found[-1] is None:
                break  # the image is needed for this one
        return found

    def _shared_key(self, index: int, position: int, view: int) -> bytes:
        assert self._shared is not None
        return self._shared.key(self.seed, self.epoch, index, position, view, self._background(index, view))

    def _background(self, index: int, view: int) -> Applied:
        """The background augmentation that is drawn for a view."""
        if (index, view) not in self._backgrounds:  # seeding a generator for it takes 6 us
            self._backgrounds[index, view] = self.pipeline.background_of(self._view_key(index, view), view)
        return self._backgrounds[index, view]

    def _donor_positions(self, first: int) -> set[int]:
        """The positions of a block whose images BG_Random and BG_Swaps use for others."""
        pipeline, length = self.pipeline, len(self.order)
        if not (pipeline.swap_share or pipeline.donor_views):
            return set()
        wanted = set()
        for position in range(first, min(first + DONOR_BLOCK, length)):
            index = int(self.order[position])
            for view in pipeline.donor_views:
                # Known before anything is decoded, so that donors (0.9 ms each) are read only for views that need one.
                if self._background(index, view) == "replaced":
                    wanted.add(donor_position(self._view_key(index, view), position, length))
            if (swap := self._draw_swap(index, position)) is not None:
                wanted |= {swap.donor, swap.other, *([swap.keys_donor] if pipeline.swaps_keys else [])}
        return wanted

    def _release(self, index: int, wanted: bool) -> None:
        sample = self._samples.pop(index, None)
        if wanted and sample is not None:  # None: another trial has made its views
            self._donors[index] = _background_part(sample) if self.pipeline.gives_rect else sample

    def _views_or_next(self, position: int, slots: list[Image]) -> ImageViews:
        wanted = int(self.order[position])
        # The next image takes the place of an unreadable one, so that all batches have the same size; `unreadable`
        # counts it.
        for further in range(_PATIENCE):
            index = (wanted + further) % len(self.order)
            try:
                return self._image_views(index, position, slots)
            except UnreadableImage as error:
                warn_once(f"{error}; the next image stands in for it")
        raise UserError(f"{self.dataset.name}: {_PATIENCE} images in a row cannot be read; see the warnings above")

    def _image_views(self, index: int, position: int, slots: list[Image]) -> ImageViews:
        """The views of an image, and BG_Swaps' negative if it was drawn and its views are within the bounds."""
        pipeline, sample = self.pipeline, self._sample(index)
        # The paper's full form needs another background behind the key as well, so both views must be able to get one.
        swap = self._draw_swap(index, position)
        keys = [self._view_key(index, view) for view in range(LARGE_VIEWS)]
        needed = keys[: pipeline.swap_needs]
        kept = swap is not None and bool(needed) and not pipeline.swap_fits(sample, needed)
        donor_at = swap.keys_donor if swap is not None and pipeline.swaps_keys and not kept else None
        views = [
            self._view(sample, index, position, view, slot, donor_at if view == 1 else None)
            for view, slot in enumerate(slots)
        ]
        if swap is None or kept:
            return ImageViews(index, views, swap_kept=kept)
        other, donor, drawn = self._donor_at(swap.other), swap.donor, swap_keys(self.seed, self.epoch, sample.id)
        negative = pipeline.make_swap(sample, lambda: self._donor_at(donor), other, keys[0], drawn)
        return ImageViews(index, views, negative)

    def _view(
        self, sample: Sample, index: int, position: int, view: int, slot: Image, donor_at: int | None
    ) -> ViewResult:
        """One view; with `donor_at`, on the background of the image at that position."""
        key = self._view_key(index, view)

        def donor() -> Sample:
            return self._donor_at(donor_position(key, position, len(self.order)) if donor_at is None else donor_at)

        shared = self._shared if donor_at is None else None
        if shared is not None:
            mark = self._shared_key(index, position, view)
            if (found := shared.read(mark, slot)) is not None:
                return found
        made = self.pipeline.make(sample, donor, key, view, replace=donor_at is not None)
        slot[:] = made.image  # now, while it is in the CPU's cache
        if shared is not None:
            shared.write(mark, made)
        return made._replace(image=slot)

    def _draw_swap(self, index: int, position: int) -> _Swap | None:
        """The draws of BG_Swaps for an image; None where it was not drawn."""
        if not self.pipeline.swap_share:
            return None
        key, length = rng_key(self.seed, self.epoch, self.dataset.ids[index], Draw.SWAP), len(self.order)
        # The key itself is the uniform draw; seeding a generator would take 6 us for each image.
        if key / 2**64 >= self.pipeline.swap_share:
            return None
        donor = donor_position(self._view_key(index, 0), position, length)
        other = swap_position(key, position, donor, length)
        return _Swap(donor, other, swap_position(self._view_key(index, 1), position, donor, length))

    def _view_key(self, index: int, view: int) -> int:
        if (index, view) not in self._keys:
            self._keys[index, view] = view_key(self.seed, self.epoch, self.dataset.ids[index], view)
        return self._keys[index, view]

    def _donor_at(self, position: int) -> Sample:
        """The image at a position, or the part of it that was kept for others."""
        index = int(self.order[position])
        return self._donors[index] if index in self._donors else self._sample(index)

    def _sample(self, index: int) -> Sample:
        if index not in self._samples:
            self._samples[index] = (
                self.dataset[index]
                if self._shared is None
                else self._shared.sample(
                    self.dataset, index, self.pipeline.gives_rect and bool(self.pipeline.donor_views)
                )
            )
        return self._samples[index]


def _background_part(sample: Sample) -> Sample:
    """The rectangle of an image that is shown tiled; all of it where there is none, or its mask cannot be read."""
    try:
        rect = sample.background_rect
    except UnreadableImage:  # raised again where a view uses this donor
        return sample
    if rect is None:
        return sample
    # A copy, because a slice would keep the whole image in memory.
    whole = Rect(0, 0, rect.height, rect.width)
    part = rect.of(sample.image).copy()
    return replace(sample, image=part, load_mask=None, load_rect=lambda: whole, load_inpainted=None)
