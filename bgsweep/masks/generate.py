"""Mask generation in one process."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from bgsweep.data.memory import keep_freed_memory
from bgsweep.data.missing_masks import mask_name
from bgsweep.errors import UnreadableImage, one_line
from bgsweep.images.compositing import Mask, binarize, foreground_area
from bgsweep.images.decoding import decode_image, read_gray
from bgsweep.masks.registry import MaskMethod
from bgsweep.storage.tree import Tree


class Outcome(NamedTuple):
    """The result for one image.

    Attributes:
        image: its name.
        area: share of the image that is foreground, 0 to 1.
        sha256: digest of the mask's file.
        reason: why there is no mask; None if there is one.
    """

    image: str
    area: float
    sha256: str
    reason: str | None = None


class Worker:
    """Makes masks in groups, on one thread, so that the bytes do not depend on the number of workers.

    Args:
        soft: keep all 256 levels. Without, a mask takes a fifth of the bytes, and training, which by default sees no
            more than foreground and background, gets the same from it.
    """

    def __init__(self, images: Tree, masks: Tree, method: MaskMethod, soft: bool) -> None:
        self._images, self._masks, self._method, self._soft = images, masks, method, soft
        cv2.setNumThreads(1)
        keep_freed_memory()  # page faults were a seventh of a network's time

    def make(self, names: Sequence[str]) -> list[Outcome]:
        """Write the masks of these images, and return their results.

        Raises:
            UserError: a mask cannot be written.
        """
        outcomes: list[Outcome] = []
        readable: list[str] = []
        with threadpool_limits(1):
            prepared = list(self._prepared(names, readable, outcomes))
            for name, mask in zip(readable, self._method.masks(prepared), strict=True):
                mask = mask if self._soft else binarize(mask)
                data = cv2.imencode(".png", mask)[1].tobytes()
                self._masks.write(mask_name(name), data)
                outcomes.append(_outcome(name, mask, data))
        return outcomes

    def inspect(self, names: Sequence[str]) -> list[Outcome]:
        """Results of existing masks; if one is damaged, the group is made again."""
        outcomes: list[Outcome] = []
        for name in names:
            data = self._masks.read(mask_name(name))
            try:
                mask = read_gray(data, name)
            except UnreadableImage:
                return self.make(names)
            outcomes.append(_outcome(name, mask, data))
        return outcomes

    def _prepared(self, names: Sequence[str], readable: list[str], outcomes: list[Outcome]) -> Iterator[Any]:
        for name in names:
            try:
                image, _ = decode_image(self._images.read(name), name)
                yield self._method.prepare(image)
                readable.append(name)
            except UnreadableImage as error:
                outcomes.append(Outcome(name, 0.0, "", str(error).removeprefix(f"{name}: ")))
            except (cv2.error, np.linalg.LinAlgError, MemoryError) as error:
                # One image must not stop millions of others; it is named in the manifest.
                outcomes.append(Outcome(name, 0.0, "", f"no mask can be made ({one_line(error)})"))


def _outcome(name: str, mask: Mask, data: bytes) -> Outcome:
    return Outcome(name, foreground_area(mask), hashlib.sha256(data).hexdigest())
