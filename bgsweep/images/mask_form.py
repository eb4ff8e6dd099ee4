"""`MaskForm`: what the pixels of a mask file mean."""

from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.images.compositing import Mask

Ids = npt.NDArray[Any]


class MaskForm(NamedTuple):
    """The meaning of a mask file's pixels. By default they are levels, from 0 (background) to 255 (foreground).

    Attributes:
        channel: ``alpha``: foreground is where the file is opaque; ``rgb_id``: ids are R + 256 G + 65536 B; ``auto``:
            alpha where there is any transparency, else the levels or, with `foreground`, the ids.
        foreground: ids that are foreground, or ``nonzero``: all but 0 and `void`; None: the file has levels, no ids.
        void: ids that are neither; they count as background.
    """

    channel: Literal["auto", "alpha", "rgb_id"] = "auto"
    foreground: tuple[int, ...] | Literal["nonzero"] | None = None
    void: tuple[int, ...] = ()

    def mask_of(self, ids: Ids) -> Mask:
        """255 where an id is foreground, else 0."""
        if ids.dtype == np.uint8:
            return cast(Mask, cv2.LUT(np.ascontiguousarray(ids), _table(self)))
        return self._is_foreground(ids).astype(np.uint8) * np.uint8(255)

    def foreground_ids(self, ids: Ids) -> list[int]:
        """The ids among these that are foreground."""
        found = np.unique(ids)
        return [int(each) for each in found[self._is_foreground(found)]]

    def _is_foreground(self, ids: Ids) -> npt.NDArray[np.bool_]:
        wanted = ids != 0 if self.foreground == "nonzero" else np.isin(ids, self.foreground or ())
        return wanted & ~np.isin(ids, self.void) if self.void else wanted


PLAIN = MaskForm()


@lru_cache(maxsize=64)
def _table(form: MaskForm) -> Mask:
    return form._is_foreground(np.arange(256)).astype(np.uint8) * np.uint8(255)
