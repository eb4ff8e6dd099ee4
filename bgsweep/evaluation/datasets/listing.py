"""Published sets: files with labels, seen as their protocols say, decoded by several threads."""

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transform

from bgsweep.config import Preprocessing
from bgsweep.data import Image
from bgsweep.data.order import spread_evenly
from bgsweep.errors import UnreadableImage, UserError, one_line
from bgsweep.images.files import is_junk, read_file
from bgsweep.storage.hashing import digest, digest_of_states

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
See = Callable[[Path], Image]
"""From a file to an image, height x width x 3."""


@dataclass(frozen=True)
class Listing:
    """Files in the order of their names, with a label for each; the name is what results and errors call the set."""

    name: str
    paths: Sequence[Path]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, numbers: slice) -> "Listing":
        return Listing(self.name, self.paths[numbers], self.labels[numbers])

    def digest(self) -> str:
        """Of the files' names, each with its folder's, and their labels; the images themselves are not read."""
        names = (f"{path.parent.name}/{path.name}" for path in self.paths)
        return digest(names, (str(label).encode() for label in self.labels.tolist()))

    def state(self, see: See) -> str:
        """A name for the files as they are, by their sizes and times of change, and for how they are seen."""
        seen = getattr(see, "__qualname__", repr(see))
        return digest(("files", "state", "seen"), map(str.encode, (self.digest(), digest_of_states(self.paths), seen)))

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Listing":
        """The files where an array (N,) is true."""
        return Listing(self.name, [self.paths[index] for index in np.flatnonzero(chosen).tolist()], self.labels[chosen])

    def spread(self, count: int) -> "Listing":
        """At most so many of the files, spread evenly over all."""
        chosen = spread_evenly(len(self.paths), count)
        return Listing(self.name, [self.paths[index] for index in chosen], self.labels[chosen])

    def batches(self, see: See, batch_size: int, threads: int) -> Iterator[Image]:
        """Images (N, H, W, 3), the next batch decoded while the last one is in use."""
        with ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(see, path) for path in self.paths[:batch_size]]
            for first in range(0, len(self.paths), batch_size):
                following = self.paths[first + batch_size : first + 2 * batch_size]
                ready, waiting = waiting, [pool.submit(see, path) for path in following]
                images = [each.result() for each in ready]
                self._check_sizes(images, first)
                yield np.stack(images)

    def _check_sizes(self, images: Sequence[Image], first: int) -> None:
        for index, image in enumerate(images, start=first):
            if image.shape != images[0].shape:
                raise UserError(
                    f"{self.paths[index]}: {image.shape[1]}x{image.shape[0]} pixels, other images of the set "
                    f"{images[0].shape[1]}x{images[0].shape[0]}; this protocol takes images as they are"
                )


@dataclass(frozen=True)
class Squares:
    """The protocol of nearly all ImageNet sets: torchvision's Resize and CenterCrop on Pillow's images.

    Orientation tags are passed over, as in the published evaluations.

    Attributes:
        border: pixels that are cut off first on each side.
    """

    settings: Preprocessing
    border: int = 0

    def __call__(self, path: Path) -> Image:
        image = read_rgb(path)
        if self.border:
            image = image.crop((self.border, self.border, image.width - self.border, image.height - self.border))
        return square(image, self.settings)


def square(image: PIL.Image.Image, settings: Preprocessing) -> Image:
    """An image's central square: crop x crop x 3."""
    shorter = transform.resize(image, [settings.resize], InterpolationMode(settings.interpolation))
    return np.array(transform.center_crop(shorter, [settings.crop]))


def preprocessing_words(settings: Preprocessing) -> str:
    """Protocol of `square`, in words."""
    return f"shorter side {settings.resize} px ({settings.interpolation}), centre square {settings.crop} px"


def as_it_is(path: Path) -> Image:
    """The image without resizing or cropping."""
    return np.array(read_rgb(path))


def read_rgb(path: Path) -> PIL.Image.Image:
    """Raises UserError: the file is damaged or no image; a published set without some of its images is another set."""
    try:
        with PIL.Image.open(io.BytesIO(read_file(path))) as file:
            return file.convert("RGB")
    except UnreadableImage as error:
        raise UserError(f"{error}, or unpack the set again") from error
    except Exception as error:  # Pillow's plug-ins raise nearly anything on damaged files
        raise UserError(f"{path}: cannot be read ({one_line(error)}); unpack the set again") from error


def class_folders(root: Path, wanted: int, like: str, some: Collection[str] = ()) -> list[Path]:
    """The set's class folders, sorted by name.

    Args:
        some: names of folders of which there may be any number without the others.

    Raises:
        UserError: there are not as many as the set has.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not is_junk(path.name))
    if len(folders) != wanted and not (folders and {path.name for path in folders} <= set(some)):
        raise UserError(f"{root}: {len(folders)} folders in it, expected {wanted} like {like}; unpack the set whole")
    return folders


def in_folders(name: str, folders: Sequence[Path], labels: Sequence[int]) -> Listing:
    """All images of class folders.

    Raises:
        UserError: there are none.
    """
    found = [(path, label) for folder, label in zip(folders, labels, strict=True) for path in images_in(folder)]
    if not found:
        raise UserError(f"{folders[0].parent}: no images in its folders; put {' '.join(SUFFIXES)} there")
    return Listing(name, [path for path, _ in found], np.array([label for _, label in found], np.int64))


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, sorted by name."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not is_junk(path.name))
    return sorted(files)
