"""A transform of views."""

from random import Random

from bgsweep.images.compositing import Image
from toys.config import PosterizeConfig


class Posterize:
    """Keeps the highest bits of each colour, in half of the views."""

    def __init__(self, config: PosterizeConfig) -> None:
        self._kept = 256 - (1 << (8 - config.bits))

    def __call__(self, view: Image, random: Random) -> Image:
        return view & self._kept if random.random() < 0.5 else view
