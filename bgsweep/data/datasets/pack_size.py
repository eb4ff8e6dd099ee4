"""Sizes of packed images: `bgsweep pack --short-side 256`."""

from typing import NamedTuple

import numpy as np
import simplejpeg  # type: ignore[import-untyped]

from bgsweep.data.sample import Mask
from bgsweep.errors import UserError
from bgsweep.images.decoding import Size, decode_image, upright_size
from bgsweep.images.resizing import resize_antialiased

QUALITY = 90
_LEAST_SIDE, _LEAST_QUALITY = 32, 30


class PackSize(NamedTuple):
    """The size that larger images are shrunk to, and the quality of their JPEGs.

    Attributes:
        short_side: of an image, at most; pixels.
        max_side: its longer side, at most; pixels. With both, both hold.
        quality: of the JPEGs; None: `QUALITY`.
    """

    short_side: int | None = None
    max_side: int | None = None
    quality: int | None = None

    def checked(self) -> "PackSize | None":
        """These values with all defaults; None where they ask for nothing; raises UserError if they make no sense."""
        sides = {"--short-side": self.short_side, "--max-side": self.max_side}
        given = {name: side for name, side in sides.items() if side is not None}
        if not given:
            if self.quality is not None:
                raise UserError("--quality: images are packed unchanged; add --short-side or --max-side")
            return None
        for name, side in given.items():
            if side < _LEAST_SIDE:
                raise UserError(f"{name} {side}: too small to train on; at least {_LEAST_SIDE} pixels")
        if self.short_side is not None and self.max_side is not None and self.max_side < self.short_side:
            raise UserError(f"--max-side {self.max_side}: less than --short-side {self.short_side}; leave out one")
        quality = QUALITY if self.quality is None else self.quality
        if not _LEAST_QUALITY <= quality <= 100:
            raise UserError(f"--quality {quality}: too low, or no quality of a JPEG; give {_LEAST_QUALITY} to 100")
        return self._replace(quality=quality)

    def of(self, size: Size) -> Size:
        """The size of an image in the pack, never larger than its own."""
        limits = (self.short_side, min(size)), (self.max_side, max(size))
        scale = min(1.0, *(limit / side for limit, side in limits if limit is not None))
        height, width = (max(1, round(side * scale)) for side in size)
        return height, width

    def shrink(self, image: bytes, mask: Mask | None, name: str) -> tuple[bytes, Mask | None] | None:
        """An image as an upright JPEG of this size, and its mask; None where the image is not larger.

        A mask of 0 and 255 keeps these two levels; `blend: hard` has the same threshold.

        Raises:
            UnreadableImage: the image is damaged.
        """
        own = upright_size(image)
        wanted = self.of(own)
        if wanted == own:
            return None
        pixels = resize_antialiased(decode_image(image, name)[0], wanted, "bicubic")
        assert self.quality is not None  # as `checked` gives it
        encoded = bytes(simplejpeg.encode_jpeg(pixels, self.quality, "RGB", "420"))
        if mask is not None:
            soft = bool(np.any((mask > 0) & (mask < 255)))
            mask = resize_antialiased(mask[:, :, None], wanted, "bilinear")[:, :, 0]
            if not soft:
                mask = np.where(mask > 127, 255, 0).astype(np.uint8)
        return encoded, mask
