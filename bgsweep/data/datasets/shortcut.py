"""A training set in which the background gives the class away, made of one in which it does not.

Ordinary photographs of garments say next to nothing about the garment by their background. Here each class gets a pool
of backgrounds that look alike, and a share rho of its training photographs is put in front of them: an encoder that
follows the shortcut does well on Mixed-Same and badly on Mixed-Rand (Xiao et al. 2020).
"""

import random
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.config import Shortcut
from bgsweep.data.donors import BackgroundPools
from bgsweep.data.readable import readable
from bgsweep.data.sample import Image, ImageDataset, Mask, Sample
from bgsweep.errors import UserError
from bgsweep.images.compositing import foreground_area, inpaint_background, paste
from bgsweep.images.decoding import cover
from bgsweep.seeding import Draw, rng_key

Layouts = npt.NDArray[np.float32]

# A foreground that leaves less than this share of the picture leaves too little to paint a background from.
_LEAST_BACKGROUND = 0.05
# Validation and test pools smaller than this fall back on the training pool of their class.
_LEAST_PLATES = 3


class ClassPools:
    """One pool of look-alike backgrounds for each class of a training set, and their counterparts in other splits.

    Backgrounds are inpainted under the foregrounds and clustered by k-means on their colour layout, one cluster a
    class. All are held in memory at the source's resolution: meant for thousands of photographs, not millions.

    Args:
        train: labelled source with masks.
        seed: of the clustering.

    Raises:
        UserError: the source has no classes, or fewer backgrounds than classes.
    """

    def __init__(self, train: ImageDataset, seed: int) -> None:
        if not train.classes:
            raise UserError(
                f"data.shortcut: {train.name} has no class folders, so no class can be given away; "
                "put images into one folder a class"
            )
        plates, origins = _plates(train)
        classes = len(train.classes)
        if len(plates) < classes:
            raise UserError(
                f"data.shortcut: {train.name} has only {len(plates)} backgrounds for {classes} classes; add images "
                "whose masks leave some background"
            )
        nearest, self._centres = _cluster(_layouts(plates), classes, seed)
        self.train = BackgroundPools(plates, _members(nearest, classes), origins)

    def of(self, source: ImageDataset) -> BackgroundPools:
        """The pools of another split: its own backgrounds, each in the pool of the nearest training cluster.

        A class for which the split has fewer than three keeps the training pool.
        """
        plates, origins = _plates(source)
        distances = np.linalg.norm(_layouts(plates)[:, None] - self._centres[None], axis=2)
        by_class = _members(distances.argmin(axis=1), len(self._centres))
        for label, own in enumerate(by_class):
            if len(own) < _LEAST_PLATES:
                substitutes = self.train.by_class[label]
                by_class[label] = np.arange(len(plates), len(plates) + len(substitutes))
                plates = plates + [self.train.plates[index] for index in substitutes]
        strangers = np.full(len(plates) - len(origins), -1)
        return BackgroundPools(plates, by_class, np.concatenate([origins, strangers]))


class Recomposed:
    """A labelled source whose photographs stand in front of other backgrounds, always the same one for each.

    A photograph's background is drawn with probability `shortcut.rho` from its class's own pool, else from all plates;
    the draw is addressed by `shortcut.seed` and the photograph's id. Its mask stays.
    """

    has_masks = True

    def __init__(self, source: ImageDataset, pools: BackgroundPools, shortcut: Shortcut) -> None:
        self.source = source
        self.pools = pools
        self.shortcut = shortcut
        self.name = f"{source.name}, recomposed"
        self.classes = source.classes
        self.ids = source.ids
        self.labels = source.labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        mask = cast(Mask, sample.mask)
        plate = self.pools.plates[self.plate_of(index)]
        image = paste(sample.image, mask, cover(plate, *sample.image.shape[:2]))
        return Sample(sample.id, image, sample.label, lambda: mask)

    def plate_of(self, index: int) -> int:
        """Which of the pools' plates stands behind a photograph."""
        draws = random.Random(rng_key(self.shortcut.seed, 0, self.ids[index], Draw.SHORTCUT))
        if draws.random() < self.shortcut.rho:
            return int(draws.choice(self.pools.by_class[self.labels[index]]))
        return draws.randrange(len(self.pools.plates))

    def digests(self) -> dict[str, str]:
        """Those of the source: what follows from the configuration is not digested."""
        return self.source.digests()


def _plates(source: ImageDataset) -> tuple[list[Image], npt.NDArray[np.int64]]:
    """The source's backgrounds, and which photograph each is of."""
    plates, origins = [], []
    for index, sample in readable(source):
        mask = cast(Mask, sample.mask)
        if foreground_area(mask) <= 1 - _LEAST_BACKGROUND:
            plates.append(inpaint_background(sample.image, mask))
            origins.append(index)
    return plates, np.array(origins, np.int64)


def _layouts(plates: list[Image]) -> Layouts:
    """Mean Lab colour of each quarter of each plate, N x 12."""
    return np.stack([cv2.resize(_lab(plate), (2, 2), interpolation=cv2.INTER_AREA).ravel() for plate in plates])


def _lab(image: Image) -> npt.NDArray[np.float32]:
    return cast(npt.NDArray[np.float32], cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))


def _cluster(layouts: Layouts, count: int, seed: int) -> tuple[npt.NDArray[np.int64], Layouts]:
    """Each layout's cluster and the clusters' centres, the best of five runs of k-means++."""
    cv2.setRNGSeed(seed)
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-3)
    _, nearest, centres = cv2.kmeans(layouts, count, None, until, 5, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    return nearest.ravel().astype(np.int64), centres


def _members(nearest: npt.NDArray[np.int64], count: int) -> list[npt.NDArray[np.int64]]:
    return [np.flatnonzero(nearest == cluster) for cluster in range(count)]
