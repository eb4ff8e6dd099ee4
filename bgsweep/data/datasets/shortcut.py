"""Background shortcuts: a training set whose backgrounds predict the class, made from one whose backgrounds do not.

Each class gets a pool of similar backgrounds, and a share rho of its training images is put in front of them. An
encoder that follows the shortcut does well on Mixed-Same and badly on Mixed-Rand (Xiao et al. 2020).
"""

import random
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.config import Shortcut
from bgsweep.data.datasets.wrappers import Wrapper
from bgsweep.data.donors import BackgroundPools
from bgsweep.data.readable import readable
from bgsweep.data.sample import Image, ImageDataset, Mask, Sample
from bgsweep.errors import UserError
from bgsweep.images.compositing import foreground_area, inpaint_background, paste
from bgsweep.images.decoding import cover
from bgsweep.seeding import Draw, rng_key

Layouts = npt.NDArray[np.float32]

# A foreground that leaves less than this share of the image leaves too little to inpaint a background from.
_LEAST_BACKGROUND = 0.05
# Validation and test pools smaller than this fall back on the training pool of their class.
_LEAST_BACKGROUNDS = 3


class ClassPools:
    """One pool of look-alike backgrounds for each class of a training set, and their counterparts in other splits.

    Backgrounds are inpainted under the foregrounds and clustered by k-means on their colour layout, one cluster a
    class. All are held in memory at the dataset's resolution: meant for thousands of images, not millions.

    Args:
        train: labelled dataset with masks.
        seed: of the clustering.

    Raises:
        UserError: the dataset has no classes, or fewer backgrounds than classes.
    """

    def __init__(self, train: ImageDataset, seed: int) -> None:
        if not train.classes:
            raise UserError(f"data.shortcut: {train.name} has no class folders; put images into one folder a class")
        backgrounds, origins = _backgrounds(train)
        classes = len(train.classes)
        if len(backgrounds) < classes:
            found = f"{train.name} has only {len(backgrounds)} backgrounds for {classes} classes"
            raise UserError(f"data.shortcut: {found}; add images whose masks leave some background")
        nearest, self._centres = _cluster(_layouts(backgrounds), classes, seed)
        self.train = BackgroundPools(backgrounds, _members(nearest, classes), origins)

    def of(self, dataset: ImageDataset) -> BackgroundPools:
        """The pools of another split: its own backgrounds, each in the pool of the nearest training cluster.

        A class for which the split has fewer than three keeps the training pool.
        """
        backgrounds, origins = _backgrounds(dataset)
        distances = np.linalg.norm(_layouts(backgrounds)[:, None] - self._centres[None], axis=2)
        by_class = _members(distances.argmin(axis=1), len(self._centres))
        for label, own in enumerate(by_class):
            if len(own) < _LEAST_BACKGROUNDS:
                substitutes = self.train.by_class[label]
                by_class[label] = np.arange(len(backgrounds), len(backgrounds) + len(substitutes))
                backgrounds = backgrounds + [self.train.backgrounds[index] for index in substitutes]
        foreign = np.full(len(backgrounds) - len(origins), -1)
        return BackgroundPools(backgrounds, by_class, np.concatenate([origins, foreign]))


class Recomposed(Wrapper):
    """A labelled dataset whose foregrounds stand in front of other backgrounds, always the same one for each image.

    A background is drawn with probability `shortcut.rho` from the pool of the image's class, else from all pools; the
    draw is keyed by `shortcut.seed` and the image's id. The mask stays.
    """

    def __init__(self, dataset: ImageDataset, pools: BackgroundPools, shortcut: Shortcut) -> None:
        super().__init__(dataset, f"{dataset.name}, recomposed")
        self.pools = pools
        self.shortcut = shortcut

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        mask = cast(Mask, sample.mask)
        background = self.pools.backgrounds[self.background_of(index)]
        image = paste(sample.image, mask, cover(background, *sample.image.shape[:2]))
        return Sample(sample.id, image, sample.label, lambda: mask)

    def background_of(self, index: int) -> int:
        """Index into the pools' backgrounds of the one behind an image."""
        draws = random.Random(rng_key(self.shortcut.seed, 0, self.ids[index], Draw.SHORTCUT))
        if draws.random() < self.shortcut.rho:
            return int(draws.choice(self.pools.by_class[self.labels[index]]))
        return draws.randrange(len(self.pools.backgrounds))


def _backgrounds(dataset: ImageDataset) -> tuple[list[Image], npt.NDArray[np.int64]]:
    """The inpainted backgrounds of a dataset, and the index of the image that each is of."""
    backgrounds, origins = [], []
    for index, sample in readable(dataset):
        mask = cast(Mask, sample.mask)
        # Where a mask is empty, the foreground is in the picture still.
        if 0 < foreground_area(mask) <= 1 - _LEAST_BACKGROUND:
            backgrounds.append(inpaint_background(sample.image, mask))
            origins.append(index)
    return backgrounds, np.array(origins, np.int64)


def _layouts(backgrounds: list[Image]) -> Layouts:
    """Mean Lab colour of each quarter of each background, N x 12."""
    # The images' own backgrounds would not do: in clothing10 a classifier reaches 11.6 % on them alone, where the
    # largest class has 20 %.
    return np.stack(
        [cv2.resize(_lab(background), (2, 2), interpolation=cv2.INTER_AREA).ravel() for background in backgrounds]
    )


def _lab(image: Image) -> npt.NDArray[np.float32]:
    return cast(npt.NDArray[np.float32], cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB))


def _cluster(layouts: Layouts, count: int, seed: int) -> tuple[npt.NDArray[np.int64], Layouts]:
    """Each layout's cluster and the clusters' centres, the best of five runs of k-means++."""
    # k-means++ draws from OpenCV's global generator.
    cv2.setRNGSeed(seed)
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-3)
    _, nearest, centres = cv2.kmeans(layouts, count, None, until, 5, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    return nearest.ravel().astype(np.int64), centres


def _members(nearest: npt.NDArray[np.int64], count: int) -> list[npt.NDArray[np.int64]]:
    return [np.flatnonzero(nearest == cluster) for cluster in range(count)]
