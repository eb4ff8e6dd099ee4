"""From the configuration's `data` section to the sources that a run reads."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from bgsweep.config import Data
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.mask_noise import NoisyMasks
from bgsweep.data.datasets.pack import Pack
from bgsweep.data.datasets.shortcut import ClassPools, Recomposed
from bgsweep.data.datasets.wrappers import Cached, Subset, hold_out
from bgsweep.data.donors import BackgroundPools
from bgsweep.data.layout import recognized
from bgsweep.data.leaks import check_apart, nearly_shared, shared, without
from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UserError, warn_once
from bgsweep.seeding import Draw
from bgsweep.storage.uri import cached_split, is_remote

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Splits:
    """A run's photographs. With a shortcut `train` is recomposed, with mask noise its masks are spoilt.

    `validation` and `test` never are, nor are the masks that the shortcut's pools are made with.

    `said` has a line on each thing that is not as the configuration has it: splits held out, images left out.

    `last` is `test`, or opens it when it is first asked for: pretraining never does, and must not need it.

    `kept` is for what others make of the images and want again, such as pictures to evaluate on.
    """

    train: ImageDataset
    validation: ImageDataset
    last: ImageDataset | Callable[[], ImageDataset]
    class_pools: ClassPools | None = None
    said: tuple[str, ...] = ()
    kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _pools: dict[SplitName, BackgroundPools] = field(default_factory=dict, repr=False)

    @cached_property
    def test(self) -> ImageDataset:
        """The images of the final evaluation, which no search sees."""
        return self.last() if callable(self.last) else self.last

    def pools(self, split: SplitName) -> BackgroundPools | None:
        """The backgrounds that a shortcut ties to each class, seen in this split; None without a shortcut."""
        if self.class_pools is None:
            return None
        if split == "train":
            return self.class_pools.train
        if split not in self._pools:
            self._pools[split] = self.class_pools.of(getattr(self, split))
        return self._pools[split]


def notes(data: Data) -> list[str]:
    """What a command says of the splits before it starts: `Splits.said`, and images that nearly are in two splits.

    Raises:
        UserError: as `open_splits`.
    """
    parts, said = open_sources(data)
    lines = list(said)
    held_out = [source for name, source in parts.items() if name != "train"]
    for source in [] if data.images == "sample" and data.pack is None else held_out:
        count, looked_at, pair = nearly_shared(source, parts["train"])
        if count:
            sample = "" if looked_at == len(source) else f" ({looked_at} looked at)"
            found = f"{count} of {len(source)} images{sample}"
            lines.append(f"{source.name}: {found} look like one of train: {pair}")
    return lines


def open_splits(data: Data) -> Splits:
    """Open what a configuration names; all trials of a process that read the same share one.

    Raises:
        UserError: one line that names what is missing, and where.
    """
    return _open(data.model_copy(update={"loader": "local", "loader_workers": None}))


@lru_cache(maxsize=4)
def _open(data: Data) -> Splits:
    parts, said = open_sources(data)
    train, pools = parts["train"], None
    validation, test = _kept(parts["validation"], data), partial(_test, data, train.classes or None)
    if data.shortcut is not None:
        pools = ClassPools(train, data.shortcut.seed)
        train = Recomposed(train, pools.train, data.shortcut)
    held_out = isinstance(parts.get("test"), Subset)
    last = _kept(parts["test"], data) if held_out else test
    return Splits(_kept(_spoilt(train, data), data), validation, last, pools, said)


def _test(data: Data, classes: Sequence[str] | None) -> ImageDataset:
    """The test split with its masks."""
    return _kept(_source(data, data.test or "", classes), data)


def open_sources(data: Data) -> tuple[dict[SplitName, ImageDataset], tuple[str, ...]]:
    """The splits' images as they lie there, with a line on each thing that was not as the configuration has it.

    Images that two splits share are left out of `train`, or of `validation` where `test` has them. Only for that is a
    test split looked at here, without its masks; where it cannot be opened, it is missing and told.

    Raises:
        UserError: as `open_splits`.
    """
    data, said = recognized(data)
    check_apart(data)
    parts: dict[SplitName, ImageDataset] = {"train": _source(data, data.train, None)}
    classes = parts["train"].classes or None
    if classes is not None and len(classes) == 1:
        warn_once(
            f"{parts['train'].name}: {classes[0]} is the only class, so that kNN and linear accuracy are 100 % for any "
            "encoder; put images into one folder a class, or judge by other metrics"
        )
    held: tuple[tuple[SplitName, Draw], ...] = (("validation", Draw.VALIDATION), ("test", Draw.TEST))
    share = data.holdout
    for name, draw in held:
        split = getattr(data, name)
        if name == "test" and split is not None:
            try:
                parts[name] = _source(data.model_copy(update={"masks": None}), split, classes)
            except UserError as error:
                said += (f"trained without a look at the test split: {error}",)
        elif split is not None:
            parts[name] = _source(data, split, classes)
        else:
            parts["train"], parts[name] = hold_out(parts["train"], share, draw, data.holdout_seed, name)
            share /= 1 - share  # of what is left, for the same number of images
    pairs: list[tuple[SplitName, SplitName]] = [("train", "validation"), ("train", "test"), ("validation", "test")]
    if data.validation is not None and data.validation == data.test:
        pairs.pop()  # an evaluation suite, which reads no validation split
    for one, other in pairs if "test" in parts else pairs[:1]:
        parts[one], line = _apart(parts[one], parts[other])
        said += line
    return parts, said


def _apart(source: ImageDataset, other: ImageDataset) -> tuple[ImageDataset, tuple[str, ...]]:
    """The source without what the other has too, and a line that says so."""
    found = shared(source, other)
    if not len(found):
        return source, ()
    if len(found) == len(source):
        raise UserError(f"{source.name}: every image of it is in {other.name} too; name folders apart")
    left_out = f"{len(found)} of {len(source)} images left out"
    line = f"{source.name}: {left_out}, since {other.name} has them too: {source.ids[int(found[0])]}"
    return without(source, found), (line,)


def _source(data: Data, split: str, classes: Sequence[str] | None) -> ImageDataset:
    if data.pack is not None:
        return Pack(data.pack, split, data.resize, classes, data.fast_jpeg, data.pack_cache_gb)
    if data.images == "sample":
        return EmbeddedSample(split, data.resize, data.fast_jpeg)
    masks = None if data.masks is None else _here(data.masks, split, "data.masks")
    return Folder(_here(data.images, split, "data.images"), split, masks, data.resize, classes, data.fast_jpeg)


def _here(root: str, split: str, key: str) -> Path:
    return cached_split(root, split, key) if is_remote(root) else Path(root).expanduser()


def _spoilt(source: ImageDataset, data: Data) -> ImageDataset:
    return NoisyMasks(source, data.mask_noise) if data.mask_noise.active else source


def _kept(source: ImageDataset, data: Data) -> ImageDataset:
    return Cached(source) if data.cache else source
