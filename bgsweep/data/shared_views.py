"""Views that the trials of a sweep on one machine make for one another.

Random draws are those of (seed, epoch, image, view), whatever the probabilities, so that trials of one seed see the
same order, crops and colors: with BG_Random at 0.1 and 0.2, nine views of ten are the same. A view's key is all that
decides its pixels: images and settings of the views, seed, epoch, image, its position, which view it is, and what was
drawn for its background (the outcome, not the probability) with the settings of that.

There is no process that serves views. Finished ones lie in a ring in memory (`SharedMemory`), where the oldest make
room. A trial that needs an image's views takes them from there; those that are missing it makes itself, and leaves
there for the others, unless another has claimed the image: then it goes on with the next one, and comes back. A claim
is void after a moment, so that nobody waits for a trial that was stopped or killed. Trials that are not near each other
in their epochs leave the ring alone.
"""

import contextlib
import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bgsweep import __version__
from bgsweep.augment.color import ColorDraw
from bgsweep.augment.pipeline import ViewPipeline, ViewResult
from bgsweep.augment.training_crop import Applied
from bgsweep.config import Experiment
from bgsweep.data.cores import memory_limit
from bgsweep.data.order import spread_evenly
from bgsweep.data.sample import Image, ImageDataset, Sample
from bgsweep.data.sharing import sharing
from bgsweep.errors import UnreadableImage
from bgsweep.images.compositing import Rect
from bgsweep.storage.named_memory import shared_memory
from bgsweep.storage.shared_memory import Found, SharedMemory, memory_key

_MOST_BYTES, _MEMORY_SHARE, _MOST_ROWS = 512 << 20, 1 / 32, 8192  # of the ring of views; that of images has half
_SEEN = 60.0  # seconds after which a trial that was not heard of is gone
_ROWS_OF_PATIENCE, _LEAST, _MOST = 8, 0.05, 2.0
PAUSE, LONGEST_WAIT = 0.001, 4.0
"""Seconds between looks at what other trials are making, and until a trial makes it itself whatever they do."""
_META = struct.Struct("<B?4B4d?d?")
_IMAGE = struct.Struct("<2Iq3?4I")
_NONE = (0, 0, 0, 0)
_APPLIED: tuple[Applied, ...] = ("none", "removed", "replaced", "kept_small", "kept_large")
_NEUTRAL = ColorDraw((0, 1, 2, 3), (1.0, 1.0, 1.0, 0.0), False, 0.0, False)
_NAMES = 1_000
_OF_PROBABILITY = {"remove", "random", "swap", "apply_to", "most_kept", "swap_form", "swap_negative"}
# Settings of the data that change how images are read, not what they are.
_OF_READING = {"cache", "loader", "loader_workers", "loader_memory_gb", "pack_cache_gb"}


@dataclass
class SharedViews:
    """The views that this process makes for trials beside it, and takes from them.

    Attributes:
        views: the ring of finished views.
        images: the ring of decoded images, for trials whose backgrounds differ; None where all images are kept.
        plain: digest of all that decides a view with its own background.
        composed: the same with the settings of background augmentations.
        probabilities: digest of the probabilities, in which trials may differ.
        seed: of the views' draws.
        peer: digest of the trial, seed and worker.
        row_bytes: of an image's views.
    """

    views: SharedMemory | None
    images: SharedMemory | None
    plain: str
    composed: str
    probabilities: int
    seed: int
    peer: int
    row_bytes: int

    def __post_init__(self) -> None:
        self._mark = _number(f"{self.plain}/{self.seed}") << 32 | self.probabilities
        self._mixed = False
        self._row_seconds = 0.0

    @property
    def _owner(self) -> int:
        return self.peer << 32 & (1 << 64) - 1 | os.getpid()

    def near(self, progress: int) -> bool:
        """Say how many images this trial has asked for; True if another trial may want the same views as this one."""
        if self.views is None:
            return False
        window = self.views.capacity // self.row_bytes
        others = self.views.meet(self.peer, self._mark, progress, _SEEN)
        marks = {mark for mark, at in others if mark >> 32 == self._mark >> 32 and abs(at - progress) < window}
        self._mixed = self.images is not None and bool(marks - {self._mark})
        return bool(marks)

    def key(self, seed: int, epoch: int, index: int, position: int, view: int, outcome: Applied) -> bytes:
        """The key of a view: that of all that decides its pixels."""
        family = self.plain if outcome == "none" else self.composed
        return memory_key(f"{family}/{seed}/{epoch}/{index}/{position}/{view}/{outcome}")

    def read(self, key: bytes, slot: Image) -> ViewResult | None:
        """The finished view of a key, written to a slot; None if there is none, and the slot may then hold anything."""
        meta = None if self.views is None else self.views.read_into(key, slot)
        if meta is None:
            return None
        applied, drawn, *rest = _META.unpack_from(meta)
        draw = ColorDraw((*rest[:4],), (*rest[4:8],), *rest[8:]) if drawn else None
        return ViewResult(slot, _APPLIED[applied], draw)

    def write(self, key: bytes, made: ViewResult) -> None:
        """Leave a finished view for other trials."""
        draw = made.photometry or _NEUTRAL
        numbers = (*draw.order, *draw.factors, draw.gray, draw.sigma, draw.solarize)
        meta = _META.pack(_APPLIED.index(made.applied), made.photometry is not None, *numbers)
        if self.views is not None:
            self.views.put(key, [made.image], meta)

    def claim(self, row: str) -> bool:
        """Take the work of an image's views; False while another process is at it."""
        patience = min(_MOST, max(_LEAST, _ROWS_OF_PATIENCE * self._row_seconds))
        return self.views is None or self.views.claim(memory_key(f"{self.plain}/{row}"), self._owner, patience)

    def release(self, row: str, seconds: float) -> None:
        """Give the work back, which took so many seconds."""
        self._row_seconds = 0.9 * self._row_seconds + 0.1 * seconds if self._row_seconds else seconds
        if self.views is not None:
            self.views.release(memory_key(f"{self.plain}/{row}"), self._owner)

    def sample(self, dataset: ImageDataset, index: int, rect: bool) -> Sample:
        """An image of the dataset; where trials' backgrounds differ, decoded by one of them.

        Args:
            rect: look for the background rectangle, so that others need not, if this trial decodes it.
        """
        if not self._mixed or self.images is None:
            return dataset[index]
        key = memory_key(f"{self.plain}/image/{index}")
        found = self.images.get(key)
        if found is not None:
            return _sample(dataset, index, found)
        sample = dataset[index]
        with contextlib.suppress(UnreadableImage):  # its mask, which matters only to views that need it
            mask, edges = sample.mask, sample.background_rect if rect else None
            height, width, _ = sample.image.shape
            meta = _IMAGE.pack(
                height, width, sample.label, mask is not None, rect, edges is not None, *(edges or _NONE)
            )
            self.images.put(key, [sample.image] if mask is None else [sample.image, mask], meta)
        return sample


def _sample(dataset: ImageDataset, index: int, found: Found) -> Sample:
    """The image of an entry in the ring of images."""
    height, width, label, masked, searched, there, *edges = _IMAGE.unpack_from(found.meta)
    image = found.data[: 3 * height * width].reshape(height, width, 3)
    if not masked:
        return Sample(dataset.ids[index], image, label)
    mask = found.data[3 * height * width :].reshape(height, width)

    def load_rect() -> Rect | None:
        if searched:
            return Rect(*edges) if there else None
        return dataset[index].background_rect  # not of the mask: a pack may have another one in its index

    return Sample(dataset.ids[index], image, label, lambda: mask, load_rect)


def shared_views(
    experiment: Experiment, dataset: ImageDataset, pipeline: ViewPipeline, rank: int = 0
) -> SharedViews | None:
    """The views that a trial shares; None outside of a sweep, or where it shares none.

    Views are known by their images' numbers. So trials that have opened a folder before and after a change of its files
    share nothing: some names, evenly spread, are part of what they must have in common.
    """
    within = sharing()
    if within is None or not within.views:
        return None
    row_bytes = sum(3 * size * size for size in pipeline.sizes)
    size = int(min(_MOST_BYTES, memory_limit() * _MEMORY_SHARE, _MOST_ROWS * row_bytes))
    # Of each image its views and a claim.
    views, images = _rings(within.sweep, size, size // row_bytes * (len(pipeline.sizes) + 1))
    if views is None:
        return None
    tree = experiment.model_dump(mode="json")
    data = {name: value for name, value in tree["data"].items() if name not in _OF_READING}
    names = [dataset.ids[index] for index in spread_evenly(len(dataset), _NAMES)]
    plain = f"{__version__}\0{Path.cwd()}\0{data}\0{tree['views']}\0{len(dataset)}\0{names}"
    background = tree["background"]
    settings = {name: value for name, value in background.items() if name not in _OF_PROBABILITY}
    drawn = {name: value for name, value in background.items() if name in _OF_PROBABILITY}
    return SharedViews(
        views,
        None if experiment.data.cache else images,
        memory_key(plain).hex(),
        memory_key(f"{plain}\0{settings}").hex(),
        _number(f"{drawn}/{settings}"),
        experiment.seed,
        _number(f"{within.trial}/{experiment.seed}/{rank}/{os.getpid()}"),
        row_bytes,
    )


@lru_cache(maxsize=2)
def _rings(sweep: str, size: int, entries: int) -> tuple[SharedMemory | None, SharedMemory | None]:
    views = shared_memory(f"{sweep}\0views", size, max(1024, entries), evicts=True)
    return views, shared_memory(f"{sweep}\0images", size // 2, max(1024, size // 30_000), evicts=True)


def _number(text: str) -> int:
    return int.from_bytes(memory_key(text)[:4], "little")
