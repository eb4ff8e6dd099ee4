"""Detection of images that two splits share: the same file, the same bytes, or near duplicates."""

import hashlib
from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.config import Data
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.folder import DIGESTED_WHOLE, Folder
from bgsweep.data.datasets.listed import Listed
from bgsweep.data.datasets.pack import Pack
from bgsweep.data.datasets.wrappers import Subset, derived_arrays, divided
from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.seeding import Draw, rng_key

Indices = npt.NDArray[np.int64]
Files = Folder | Listed | Pack | EmbeddedSample

# Of larger sets a sample is compared; these bound the bytes that a command reads before it starts.
_SAMPLED = 2_000
_SEEN_HELD_OUT, _SEEN_TRAIN = 500, 2_500
_SIDE = 16
# Correlation of thumbnails. Among 4,101 images, each unlike the others, the highest is .988; copies at 60 % of the
# size, by JPEG at quality 50, brightened or mirrored reach .9948.
_NEARLY = 0.993


def check_apart(data: Data) -> None:
    """Refuse splits that are the same folder, or of which one lies in the other.

    Raises:
        UserError: two splits overlap.
    """
    for name in ("validation", "test"):
        split = getattr(data, name)
        one, two = _parts(data.train), _parts(split or "")
        if split is not None and (one[: len(two)] == two or two[: len(one)] == one):
            raise UserError(
                f"data.{name}: {split!r} and data.train: {data.train!r} share images: accuracy would be measured on "
                f"images trained on; name folders apart, or `data.{name}=null`, which holds a share of train out"
            )


def _parts(split: str) -> tuple[str, ...]:
    return tuple(part for part in split.split("/") if part not in ("", "."))


def shared(dataset: ImageDataset, other: ImageDataset) -> Indices:
    """Indices of the images of `dataset` whose files `other` has too: the same path, or the same bytes.

    Bytes are compared where two files have the same size. Of sets of more than 20,000 images only files of the same
    name are compared, and at most 2,000 of those: sizes of a million files can take longer than an epoch.
    """
    ours, theirs = files_of(dataset), files_of(other)
    if ours is None or theirs is None:
        return np.array([], np.int64)
    found, _ = derived_arrays(dataset, ("shared", _mark(other, theirs[0])), lambda: {"shared": _shared(ours, theirs)})
    return found["shared"]


def _mark(dataset: ImageDataset, files: Files) -> str:
    """Something that tells a set of files from others."""
    whose: str | None = getattr(dataset, "identity", None)
    if whose is not None:
        return whose
    names = "\0".join([files.location_of(0), *dataset.ids])
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()


def _shared(ours: tuple[Files, Indices], theirs: tuple[Files, Indices]) -> Indices:
    same = _same_places(ours, theirs)
    # Sizes first: bytes are read only where two files have the same.
    key = _size_of if len(ours[1]) + len(theirs[1]) <= DIGESTED_WHOLE else _name_of
    known: dict[object, list[int]] = {}
    for index in theirs[1]:
        known.setdefault(key(theirs[0], int(index)), []).append(int(index))
    candidates = [
        (number, known[found])
        for number, index in enumerate(ours[1])
        if number not in same and (found := key(ours[0], int(index))) in known and found is not None
    ]
    if key is _name_of:
        candidates = [candidates[number] for number in _random_indices(len(candidates), _SAMPLED)]
    same |= {number for number, others in candidates if _is_among(ours[0], int(ours[1][number]), theirs[0], others)}
    return np.array(sorted(same), np.int64)


def _same_places(ours: tuple[Files, Indices], theirs: tuple[Files, Indices]) -> set[int]:
    if ours[0] is theirs[0]:  # parts of one folder
        return set(np.flatnonzero(np.isin(ours[1], theirs[1])).tolist())
    locations = {theirs[0].location_of(int(index)) for index in theirs[1]}
    return {number for number, index in enumerate(ours[1]) if ours[0].location_of(int(index)) in locations}


def without(dataset: ImageDataset, indices: Indices) -> ImageDataset:
    """The dataset without some of its images."""
    if not len(indices):
        return dataset

    def left_out() -> npt.NDArray[np.bool_]:
        chosen = np.zeros(len(dataset), np.bool_)
        chosen[indices] = True
        return chosen

    mark = hashlib.sha256(np.asarray(indices).tobytes()).hexdigest()
    return Subset(dataset, divided(dataset, ("without", mark), left_out)[0], dataset.name)


def nearly_shared(dataset: ImageDataset, train: ImageDataset) -> tuple[int, int, str]:
    """Count images that look like one of `train`: re-encoded, resized, brightened or mirrored copies.

    Gray thumbnails of 16 x 16 pixels are compared by their correlation. At most 500 images of `dataset` are looked at,
    and 2,500 of `train`: seconds for images of any size, and a lower bound for larger sets.

    Returns:
        The number found, the number compared, and the first pair in words.
    """
    held_out = _thumbnails(dataset, _random_indices(len(dataset), _SEEN_HELD_OUT))
    known = _thumbnails(train, _random_indices(len(train), _SEEN_TRAIN))
    if not len(held_out[0]) or not len(known[0]):
        return 0, len(held_out[0]), ""
    vectors = known[1]
    # Flips are part of the views, so a mirrored copy is as much a leak.
    mirrored = vectors.reshape(-1, _SIDE, _SIDE)[:, :, ::-1].reshape(len(vectors), -1)
    likeness = np.maximum(held_out[1] @ vectors.T, held_out[1] @ mirrored.T)
    found = np.flatnonzero(likeness.max(axis=1) >= _NEARLY)
    if not len(found):
        return 0, len(held_out[0]), ""
    first, match = int(found[0]), int(likeness[found[0]].argmax())
    return len(found), len(held_out[0]), f"{dataset.ids[held_out[0][first]]} and {train.ids[known[0][match]]}"


def files_of(dataset: ImageDataset) -> tuple[Files, Indices] | None:
    """The folder or pack that a dataset reads, and the indices of its files; None for a dataset of another kind."""
    indices = np.arange(len(dataset))
    while (inner := getattr(dataset, "dataset", None)) is not None:
        if isinstance(dataset, Subset):
            indices = dataset.indices[indices]
        dataset = cast(ImageDataset, inner)
    return (dataset, indices) if isinstance(dataset, Files) else None


def _size_of(files: Files, index: int) -> object:
    try:
        return files.size_of(index)
    except UnreadableImage:
        return None


def _name_of(files: Files, index: int) -> object:
    return files.ids[index].rpartition("/")[2]


def _is_among(ours: Files, index: int, theirs: Files, others: Sequence[int]) -> bool:
    try:
        content = ours.encoded(index)
        return any(theirs.encoded(other) == content for other in others)
    except UnreadableImage:
        return False


def _random_indices(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers below `count`, drawn at random, sorted."""
    if count <= wanted:
        return list(range(count))
    generator = np.random.default_rng(rng_key(0, 0, "", Draw.LEAK_SAMPLE))
    return sorted(generator.choice(count, wanted, replace=False).tolist())


def _thumbnails(dataset: ImageDataset, wanted: Sequence[int]) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Standardized gray thumbnails of the images that can be read and are not of one color, and their indices."""
    files = files_of(dataset)
    found: list[int] = []
    vectors = []
    for number in wanted:
        try:
            gray = _gray(dataset, files, number)
        except UnreadableImage:
            continue
        small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
        small -= small.mean()
        norm = float(np.linalg.norm(small))
        # Thumbnails of nearly one colour are left out: what remains of them is noise, which may correlate with
        # anything.
        if norm > _SIDE:
            found.append(number)
            vectors.append(small / norm)
    return found, np.array(vectors, np.float32)


def _gray(dataset: ImageDataset, files: tuple[Files, Indices] | None, number: int) -> npt.NDArray[np.uint8]:
    """An image in gray; of a large JPEG only every eighth row and column are computed, which is many times faster."""
    if files is not None:
        content = np.frombuffer(files[0].encoded(int(files[1][number])), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_REDUCED_GRAYSCALE_8) if len(content) > 100_000 else None
        if image is not None and min(image.shape) >= _SIDE:
            return cast(npt.NDArray[np.uint8], image)
    return cast(npt.NDArray[np.uint8], cv2.cvtColor(dataset[number].image, cv2.COLOR_RGB2GRAY))
