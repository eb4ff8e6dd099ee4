"""The training, validation and test datasets that a configuration's `data` section names."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from bgsweep.config import Data
from bgsweep.config.columns import INCLUDED
from bgsweep.config.mask_format import mask_source
from bgsweep.config.plugins import DatasetSection, imported
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.cached import Cached
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.formats import open_listing
from bgsweep.data.datasets.listed import Listed
from bgsweep.data.datasets.mask_noise import NoisyMasks
from bgsweep.data.datasets.pack import Pack
from bgsweep.data.datasets.shortcut import ClassPools, Recomposed
from bgsweep.data.datasets.wrappers import Subset, hold_out
from bgsweep.data.donors import BackgroundPools
from bgsweep.data.layout import recognized
from bgsweep.data.leaks import check_apart, nearly_shared, shared, without
from bgsweep.data.mask_notes import mask_notes
from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UserError, warn_once
from bgsweep.seeding import Draw
from bgsweep.storage.uri import cached_split, is_remote

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Splits:
    """The datasets of a run. With a shortcut `train` is recomposed, with mask noise its masks are degraded.

    `validation` and `test` never are, nor are the masks that the shortcut's pools are made with.

    `said` has a line on each thing that is not as configured: splits held out, images left out, masks missing.

    `last` is `test`, or opens it on first use: pretraining never uses it, and must not need it.

    `kept` is a cache for values computed from the images, such as evaluation images.
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
        """The backgrounds that a shortcut ties to each class, of this split; None without a shortcut."""
        if self.class_pools is None:
            return None
        if split == "train":
            return self.class_pools.train
        if split not in self._pools:
            self._pools[split] = self.class_pools.of(getattr(self, split))
        return self._pools[split]


def notes(data: Data) -> list[str]:
    """Lines on the splits for the start of a command: `Splits.said`, and near duplicates between splits.

    Raises:
        UserError: as `open_splits`.
    """
    parts, said = open_sources(data)
    lines = list(said)
    held_out = [each for name, each in parts.items() if name != "train"]
    bundled = data.images == "sample" and data.pack is None and data.dataset is None
    for dataset in [] if bundled else held_out:
        count, looked_at, pair = nearly_shared(dataset, parts["train"])
        if count:
            sample = "" if looked_at == len(dataset) else f" ({looked_at} looked at)"
            found = f"{count} of {len(dataset)} images{sample}"
            lines.append(f"{dataset.name}: {found} look like one of train: {pair}")
    return lines


def open_splits(data: Data) -> Splits:
    """Open the datasets of a configuration; trials of one process with the same `data` section share them.

    Raises:
        UserError: a folder, split, mask or class is missing or cannot be used.
    """
    # Relative paths mean other files after a change of the working directory.
    # Loader settings do not change the images: trials that differ in them share one opened set.
    same = {"loader": "local", "loader_workers": None, "loader_memory_gb": None}
    return _open(data.model_copy(update=same), Path.cwd())


@lru_cache(maxsize=4)
def _open(data: Data, working_directory: Path) -> Splits:
    parts, said = open_sources(data)
    train, pools = parts["train"], None
    validation, test = _cached(parts["validation"], data), partial(_test, data, train.classes or None)
    if data.shortcut is not None:
        pools = ClassPools(train, data.shortcut.seed)
        train = Recomposed(train, pools.train, data.shortcut)
    # A held-out test split is a part of the training files, which are open already.
    held_out = isinstance(parts.get("test"), Subset)
    last = _cached(parts["test"], data) if held_out else test
    return Splits(_cached(_with_mask_noise(train, data), data), validation, last, pools, said)


def _test(data: Data, classes: Sequence[str] | None) -> ImageDataset:
    """The test split with its masks."""
    return _cached(open_split(data, data.test or "", classes), data)


def open_sources(data: Data) -> tuple[dict[SplitName, ImageDataset], tuple[str, ...]]:
    """The splits without shortcut, mask noise or cache, with a line on each thing that is not as configured.

    Images that two splits share are left out of `train`, or of `validation` where `test` has them. Only for that is a
    test split looked at here, without its masks; where it cannot be opened, it is missing and told.

    Raises:
        UserError: as `open_splits`.
    """
    data, said = recognized(data)
    check_apart(data)
    parts: dict[SplitName, ImageDataset] = {"train": open_split(data, data.train, None)}
    said += _masks_unused(data, parts["train"])
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
                # Without masks, which only the final evaluation needs.
                parts[name] = open_split(data.model_copy(update={"masks": None}), split, classes)
            except UserError as error:
                said += (f"trained without a look at the test split: {error}",)
        elif split is not None:
            parts[name] = open_split(data, split, classes)
        else:
            parts["train"], parts[name] = hold_out(parts["train"], share, draw, data.holdout_seed, name)
            share /= 1 - share  # of what is left, for the same number of images
    said += tuple(dict.fromkeys(line for part in parts.values() for line in mask_notes(part)))
    pairs: list[tuple[SplitName, SplitName]] = [("train", "validation"), ("train", "test"), ("validation", "test")]
    if data.validation is not None and data.validation == data.test:
        pairs.pop()  # an evaluation suite, which reads no validation split
    for one, other in pairs if "test" in parts else pairs[:1]:
        parts[one], line = _apart(parts[one], parts[other])
        said += line
    return parts, said


def _apart(dataset: ImageDataset, other: ImageDataset) -> tuple[ImageDataset, tuple[str, ...]]:
    """The dataset without the images that the other has too, and a line that says so."""
    found = shared(dataset, other)
    if not len(found):
        return dataset, ()
    if len(found) == len(dataset):
        raise UserError(f"{dataset.name}: every image of it is in {other.name} too; name folders apart")
    left_out = f"{len(found)} of {len(dataset)} images left out"
    line = f"{dataset.name}: {left_out}, since {other.name} has them too: {dataset.ids[int(found[0])]}"
    return without(dataset, found), (line,)


def open_split(data: Data, split: str, classes: Sequence[str] | None) -> ImageDataset:
    """One split as its files are: with images that other splits have too, without a cache, a shortcut or mask noise.

    Args:
        classes: the names that labels index into; None: those of this split.

    Raises:
        UserError: as `open_splits`.
    """
    if data.dataset is not None:
        return _of_another_package(data.dataset, split, classes)
    if data.pack is not None:
        return Pack(data.pack, split, data.resize, classes, data.fast_jpeg, data.pack_cache_gb, data.decode_side)
    if data.images == "sample":
        return EmbeddedSample(split, data.resize, data.fast_jpeg, data.decode_side)
    root, mask_format = mask_source(data.images, data.masks, data.mask_format)
    if (listing := open_listing(data.images, data.columns)) is not None:
        given = str(cached_split(root, split, "data.masks")) if root is not None and is_remote(root) else root
        return Listed(listing, split, given, data.resize, classes, data.fast_jpeg, mask_format, data.decode_side)
    if root == INCLUDED:
        raise UserError(f"data.masks: {data.images} is a folder of images, which includes no masks; name their folder")
    masks = None if root is None else _local_folder(root, split, "data.masks")
    images = _local_folder(data.images, split, "data.images")
    return Folder(images, split, masks, data.resize, classes, data.fast_jpeg, mask_format, data.decode_side)


def _masks_unused(data: Data, train: ImageDataset) -> tuple[str, ...]:
    if data.masks is None and isinstance(train, Listed) and train.listing.has_masks:
        return (f"{data.images}: the masks in it are not used; data.masks={INCLUDED} takes them",)
    return ()


def _of_another_package(section: DatasetSection, split: str, classes: Sequence[str] | None) -> ImageDataset:
    opened: ImageDataset = imported(section.implementation, section.name)(section, split)
    if classes and list(opened.classes) != list(classes):
        raise UserError(
            f"data.dataset: the classes of {opened.name} are not those of the training images, in their order; labels "
            "are their numbers"
        )
    if bool(opened.has_masks) != section.has_masks:
        raise UserError(
            f"data.dataset: {opened.name} and its section {section.name} disagree in has_masks; correct one of them"
        )
    return opened


def _local_folder(root: str, split: str, key: str) -> Path:
    return cached_split(root, split, key) if is_remote(root) else Path(root).expanduser()


def _with_mask_noise(dataset: ImageDataset, data: Data) -> ImageDataset:
    return NoisyMasks(dataset, data.mask_noise) if data.mask_noise.active else dataset


def _cached(dataset: ImageDataset, data: Data) -> ImageDataset:
    if not data.cache:
        return dataset
    # What decides the pixels beside the files, which a sweep's trials all read from the same place.
    return Cached(dataset, f"{Path.cwd()}\0{data.model_dump_json()}")
