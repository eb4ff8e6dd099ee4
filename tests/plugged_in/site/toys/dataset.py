"""Images that are drawn when they are asked for."""

import zlib
from functools import partial

import numpy as np

from bgsweep.data.sample import Mask, Sample
from toys.config import DiscsConfig

COLORS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


class Discs:
    """Discs of a class's colour on noise, with their masks."""

    has_masks = True

    def __init__(self, config: DiscsConfig, split: str) -> None:
        self.name, self.classes, self._side = f"discs/{split}", list(COLORS), config.side
        self.ids = [f"{self.classes[index % 3]}/{split}-{index}.png" for index in range(config.count)]
        self.labels = np.arange(config.count) % 3

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(zlib.crc32(self.ids[index].encode()))
        image = random.integers(0, 256, (self._side, self._side, 3), np.uint8)
        image[disc(self._side) > 0] = COLORS[self.classes[self.labels[index]]]
        return Sample(self.ids[index], image, int(self.labels[index]), partial(disc, self._side))

    def digests(self) -> dict[str, str]:
        drawn = f"{zlib.crc32(repr((self.ids, self._side)).encode()):016x}"
        return {"images": drawn, "masks": drawn}


def disc(side: int) -> Mask:
    """The mask of all images."""
    rows, columns = np.ogrid[:side, :side]
    inside = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 3) ** 2
    return inside.astype(np.uint8) * 255
