"""`Sample`, an image with its foreground mask, and `ImageDataset`, the interface of all datasets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bgsweep.images.compositing import Rect, inpaint_background, largest_background_rectangle

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]

UNLABELLED = -1


@dataclass(frozen=True)
class Sample:
    """One image with its foreground mask, which is decoded on first use.

    Attributes:
        id: path below the split's folder, with forward slashes; part of the key of the image's random draws.
        image: RGB, height x width x 3.
        label: index into the dataset's classes, or ``UNLABELLED``.
        load_mask: gives a mask of the image's size, 0 (background) to 255 (foreground); None where there is no mask.
        load_rect: gives the mask's largest background rectangle, where that is cheaper than the search (0.3 ms).
        load_inpainted: gives the image with its foreground painted over, where it is kept.
    """

    # Not the index: draws stay the same when images are added or removed.
    id: str
    image: Image
    label: int
    load_mask: Callable[[], Mask] | None = None
    load_rect: Callable[[], Rect | None] | None = None
    load_inpainted: Callable[[], Image] | None = None

    @cached_property
    def mask(self) -> Mask | None:
        return self.load_mask() if self.load_mask is not None else None

    @cached_property
    def background_rect(self) -> Rect | None:
        """The largest rectangle without foreground, searched on first use: only tiled donors need it."""
        if self.load_rect is not None:
            return self.load_rect()
        return largest_background_rectangle(self.mask) if self.mask is not None else None

    @cached_property
    def inpainted_background(self) -> Image:
        """The image with its foreground painted over from its surroundings, made on first use."""
        if self.load_inpainted is not None:
            return self.load_inpainted()
        return self.image if self.mask is None else inpaint_background(self.image, self.mask)


class ImageDataset(Protocol):
    """An indexed set of images: a folder, a pack, the embedded sample, or a wrapper of another dataset."""

    name: str
    classes: Sequence[str]
    ids: Sequence[str]
    labels: npt.NDArray[np.int64]
    has_masks: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def digests(self) -> dict[str, str]:
        """``images`` and, where there are masks, ``masks``: SHA-256 over names and contents, first 16 hex digits."""
        ...
