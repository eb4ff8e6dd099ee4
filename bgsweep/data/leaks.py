"""Images that two splits share: the same file, the same content, or nearly the same picture."""

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.config import Data
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.folder import DIGESTED_WHOLE, Folder
from bgsweep.data.datasets.pack import Pack
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.data.sample import ImageDataset
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.seeding import Draw, rng_key

Indices = npt.NDArray[np.int64]
Files = Folder | Pack | EmbeddedSample

# Of larger sets a sample is compared; these bound what a command reads before it starts.
_SAMPLED = 2_000
_SEEN_HELD_OUT, _SEEN_TRAIN = 500, 2_500
_SIDE = 16
# Correlation of thumbnails. Among 4,101 photographs, each unlike the others, the highest is .988; copies at 60 % of the
# size, by JPEG at quality 50, brightened or mirrored reach .9948.
_NEARLY = 0.993


def check_apart(data: Data) -> None:
    """Refuse splits that are one folder, or of which one lies in the other.

    Raises:
        UserError: it names both keys and the way out.
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


def shared(source: ImageDataset, other: ImageDataset) -> Indices:
    """Indices of the images of `source` whose files `other` has too: the same place, or the same bytes.

    Bytes are compared where two files have the same size. Of sets of more than 20,000 images only files of the same
    name are compared, and at most 2,000 of those: sizes of a million files can take longer than an epoch.
    """
    ours, theirs = _files(source), _files(other)
    if ours is None or theirs is None:
        return np.array([], np.int64)
    places = {theirs[0].place_of(int(index)) for index in theirs[1]}
    same = {number for number, index in enumerate(ours[1]) if ours[0].place_of(int(index)) in places}
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
        candidates = [candidates[place] for place in _spread(len(candidates), _SAMPLED)]
    same |= {number for number, others in candidates if _is_among(ours[0], int(ours[1][number]), theirs[0], others)}
    return np.array(sorted(same), np.int64)


def without(source: ImageDataset, indices: Indices) -> ImageDataset:
    """The source without some of its images."""
    if not len(indices):
        return source
    return Subset(source, np.setdiff1d(np.arange(len(source)), indices), source.name)


def nearly_shared(source: ImageDataset, train: ImageDataset) -> tuple[int, int, str]:
    """Count images that look like one of `train`: re-encoded, resized, brightened or mirrored copies.

    Gray thumbnails of 16 x 16 pixels are compared by their correlation. At most 500 images of `source` are looked at,
    and 2,500 of `train`: seconds for photographs of any size, and a lower bound for larger sets.

    Returns:
        How many were found, how many were looked at, and the first pair in words.
    """
    sought = _thumbnails(source, _spread(len(source), _SEEN_HELD_OUT))
    known = _thumbnails(train, _spread(len(train), _SEEN_TRAIN))
    if not len(sought[0]) or not len(known[0]):
        return 0, len(sought[0]), ""
    vectors = known[1]
    mirrored = vectors.reshape(-1, _SIDE, _SIDE)[:, :, ::-1].reshape(len(vectors), -1)
    likeness = np.maximum(sought[1] @ vectors.T, sought[1] @ mirrored.T)
    found = np.flatnonzero(likeness.max(axis=1) >= _NEARLY)
    if not len(found):
        return 0, len(sought[0]), ""
    first, twin = int(found[0]), int(likeness[found[0]].argmax())
    return len(found), len(sought[0]), f"{source.ids[sought[0][first]]} and {train.ids[known[0][twin]]}"


def _files(source: ImageDataset) -> tuple[Files, Indices] | None:
    """The folder or pack that a source reads, and which of its files; None for a source of another kind."""
    indices = np.arange(len(source))
    while (inner := getattr(source, "source", None)) is not None:
        if isinstance(source, Subset):
            indices = source.indices[indices]
        source = cast(ImageDataset, inner)
    return (source, indices) if isinstance(source, Files) else None


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


def _spread(count: int, wanted: int) -> list[int]:
    """So many of the numbers below `count`, drawn without regard to their order; all where there are no more."""
    if count <= wanted:
        return list(range(count))
    generator = np.random.default_rng(rng_key(0, 0, "", Draw.LEAK_SAMPLE))
    return sorted(generator.choice(count, wanted, replace=False).tolist())


def _thumbnails(source: ImageDataset, wanted: Sequence[int]) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Standardized gray thumbnails of the images that can be read and are not of one color, and their indices."""
    files = _files(source)
    found: list[int] = []
    vectors = []
    for number in wanted:
        try:
            gray = _gray(source, files, number)
        except UnreadableImage:
            continue
        small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
        small -= small.mean()
        norm = float(np.linalg.norm(small))
        if norm > _SIDE:
            found.append(number)
            vectors.append(small / norm)
    return found, np.array(vectors, np.float32)


def _gray(source: ImageDataset, files: tuple[Files, Indices] | None, number: int) -> npt.NDArray[np.uint8]:
    """An image in gray; of a large JPEG only an eighth of the pixels are computed."""
    if files is not None:
        content = np.frombuffer(files[0].encoded(int(files[1][number])), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_REDUCED_GRAYSCALE_8) if len(content) > 100_000 else None
        if image is not None and min(image.shape) >= _SIDE:
            return cast(npt.NDArray[np.uint8], image)
    return cast(npt.NDArray[np.uint8], cv2.cvtColor(source[number].image, cv2.COLOR_RGB2GRAY))
