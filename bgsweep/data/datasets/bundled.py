"""The embedded sample: images of ten kinds of garment, CC0 (credits in ``clothing10/CREDITS.md``)."""

import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bgsweep.data.sample import Mask, Sample
from bgsweep.errors import UserError
from bgsweep.images.decoding import Size, decode_image, decode_mask
from bgsweep.storage.hashing import digest

ARCHIVE = Path(__file__).with_name("clothing10") / "clothing10.zip"


class EmbeddedSample:
    """A split of the embedded images with their masks, the encoded files (5 MB in all) held in memory.

    Args:
        split: train (96 images a class), validation or test (20 each).
        resize: shorter side in pixels; the files have 48 to 106, most of them 80.
        fast_jpeg, least_side: as in `decode_image`.

    Raises:
        UserError: there is no such split.
    """

    has_masks = True

    def __init__(
        self, split: str, resize: int | None = None, fast_jpeg: bool = False, least_side: int | None = None
    ) -> None:
        with zipfile.ZipFile(ARCHIVE) as archive:
            prefix = f"images/{split}/"
            names = sorted(name for name in archive.namelist() if name.startswith(prefix))
            if not names:
                raise UserError(f"data: the embedded sample has no split {split!r}; it has train, validation and test")
            # Bytes, not the archive: processes that share an open file would move one another's position in it.
            self._images = [archive.read(name) for name in names]
            self._masks = [archive.read(f"masks{name[6:-4]}.png") for name in names]
        self.name = f"sample/{split}"
        self.resize, self._fast, self._least_side = resize, fast_jpeg, least_side
        self.ids: Sequence[str] = [name.removeprefix(prefix) for name in names]
        folders = [name.partition("/")[0] for name in self.ids]
        self.classes: Sequence[str] = sorted(set(folders))
        self.labels = np.array([self.classes.index(folder) for folder in folders], np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        name = self.ids[index]
        image, size = decode_image(self._images[index], name, self.resize, self._fast, self._least_side)
        return Sample(name, image, int(self.labels[index]), partial(self._load_mask, index, size))

    def digests(self) -> dict[str, str]:
        return {"images": digest(self.ids, self._images), "masks": digest(self.ids, self._masks)}

    def location_of(self, index: int) -> str:
        """Location of an image: the same in all splits that hold it."""
        return f"{self.name}/{self.ids[index]}"

    def size_of(self, index: int) -> int:
        """Size of an image's file in bytes."""
        return len(self._images[index])

    def encoded(self, index: int) -> bytes:
        """Content of an image's file."""
        return self._images[index]

    def _load_mask(self, index: int, image_size: Size) -> Mask:
        name = self.ids[index]
        return decode_mask(
            self._masks[index], f"mask of {name}", image_size, name, self.resize, least_side=self._least_side
        )
