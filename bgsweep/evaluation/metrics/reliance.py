"""Reliance on backgrounds without labels: how much of the features' variance foregrounds and backgrounds explain."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bgsweep.data import Image
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluators.backgrounds_challenge import composites
from bgsweep.evaluation.metrics.base import Array, Measured, OnlineMetric, jackknife_error, unit
from bgsweep.evaluation.metrics.inputs import by_key
from bgsweep.evaluation.metrics.lidar import discriminant_rank
from bgsweep.images.decoding import cover
from bgsweep.seeding import Draw, rng_key


class Shares(NamedTuple):
    """Shares of the variance of features that foregrounds, backgrounds and their interaction explain; sum 1."""

    foreground: float
    background: float
    interaction: float


def shares(features: Array) -> Shares:
    """The variance components of features (F, B, D) of F foregrounds on B backgrounds, as shares of their sum.

    The model is z_fb = m + a_f + b_b + c_fb, with crossed random effects and one image a cell. From the mean squares of
    its two-way analysis of variance, summed over the dimensions,

        V_f = (MS_f - MS_c) / B,  V_b = (MS_b - MS_c) / F,  V_c = MS_c,

    each 0 at least. These, unlike shares of the sums of squares, do not depend on F and B: MS_f also has a part of the
    interaction, which is the larger the fewer the backgrounds. Rotating or scaling all features does not change them.
    An encoder that gives all images the same has the shares of one that sees the background alone, so that it is not
    the best of a search.
    """
    fronts, behind, _ = features.shape
    mean = features.mean(axis=(0, 1))
    of_front, of_behind = features.mean(axis=1) - mean, features.mean(axis=0) - mean
    rest = features - mean - of_front[:, None] - of_behind[None]
    square_rest = (rest**2).sum() / ((fronts - 1) * (behind - 1))
    square_front = behind * (of_front**2).sum() / (fronts - 1)
    square_behind = fronts * (of_behind**2).sum() / (behind - 1)
    parts = np.array([(square_front - square_rest) / behind, (square_behind - square_rest) / fronts, square_rest])
    parts = parts.clip(min=0)
    # Rounding errors of the features of a collapsed encoder are no variance.
    if parts.sum() <= np.finfo(np.float32).eps ** 2 * (features**2).mean() * features.shape[2]:
        return Shares(0.0, 1.0, 0.0)
    return Shares(*(float(part) for part in parts / parts.sum()))


def share_errors(features: Array, resamplings: int, seed: int = 0) -> Shares:
    """Standard errors of `shares` by the bootstrap over foregrounds and backgrounds together (Owen 2007).

    Both are drawn with replacement, independently of each other. Shares of a draw are a little small for what was drawn
    several times, which differs from draw to draw by far less than the shares do.
    """
    generator = np.random.default_rng(rng_key(seed, 0, "", Draw.REGROUPING))
    reduced = _rotated(features)
    drawn = []
    for _ in range(resamplings):
        fronts, behind = (_drawn(count, generator) for count in features.shape[:2])
        drawn.append(shares(reduced[np.ix_(fronts, behind)]))
    return Shares(*(float(error) for error in np.std(np.array(drawn), axis=0, ddof=1)))


def _drawn(count: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Numbers drawn with replacement, not all of them the same."""
    while True:
        numbers = generator.integers(count, size=count)
        if (numbers != numbers[0]).any():
            return numbers


def _rotated(features: Array) -> Array:
    """The same features in as few dimensions as they need: a rotation changes no share, and makes draws cheaper."""
    flat = features.reshape(-1, features.shape[2])
    if len(flat) >= flat.shape[1]:
        return features
    triangle = np.asarray(np.linalg.qr((flat - flat.mean(axis=0)).T, mode="r"))
    return np.ascontiguousarray(triangle.T).reshape(*features.shape[:2], -1)


class Reliance(OnlineMetric):
    """`bg_share`, `fg_share`, `interaction_share` and `swap_lidar`, of the encoder's features scaled to length 1.

    Foregrounds and backgrounds are cut from different images of the split, and every foreground is put before every
    background. Scaled to length 1 since that is what kNN compares.

    `swap_lidar` is LiDAR with the foregrounds as classes, of which the backgrounds give the members: how many
    directions tell foregrounds apart whatever is behind them.

    Limits: the shares say what moves features, not that it is of use: an encoder of random weights has shares, too. A
    small foreground moves few pixels, so that shares compare on the same images and masks only. Composites have edges
    that real images have not.
    """

    def __init__(self, settings: object, context: EvalContext) -> None:
        super().__init__(settings, context)
        if not context.images.source.has_masks:
            raise UserError(f"{context.images.source.name}: reliance needs foreground masks; set data.masks")

    def measure(self) -> Iterator[Measured]:
        settings, seed = self.settings, self.context.config.evaluate.seed
        fronts, behind = self._parts()
        features = unit(self._features(fronts, behind))
        found, errors = shares(features), share_errors(features, settings.resamplings, seed)
        yield Measured("fg_share", found.foreground, errors.foreground)
        yield Measured("bg_share", found.background, errors.background)
        yield Measured("interaction_share", found.interaction, errors.interaction)
        rank_error = jackknife_error(lambda rows: discriminant_rank(features[rows]), len(features))
        yield Measured("swap_lidar", discriminant_rank(features), rank_error)

    def _parts(self) -> tuple[list[int], list[int]]:
        """The images that give foregrounds, and others that give backgrounds."""
        usable = by_key(self.context, self.context.images.variants().usable)
        if len(usable) < 4:
            raise UserError(
                f"{self.context.images.source.name}: reliance needs 4 images with foreground and background, and "
                f"{len(usable)} are; add images"
            )
        half = len(usable) // 2
        fronts = usable[: min(self.settings.foregrounds, half)]
        return fronts, usable[len(fronts) : len(fronts) + self.settings.backgrounds]

    def _features(self, fronts: list[int], behind: list[int]) -> Array:
        """Features (F, B, D), float64, of every foreground before every background."""
        variants, size = self.context.images.variants(), self.context.config.size
        kept = self.context.images.kept

        def cutout(number: int) -> tuple[Image, Image]:
            found: tuple[Image, Image] = kept(
                ("cutout", self.context.split, size, number), lambda: variants.cutout(number)
            )
            return found

        def background(number: int) -> Image:
            found: Image = kept(
                ("behind", self.context.split, size, number),
                lambda: cover(variants.image("only_bg_t", number), size, size),
            )
            return found

        def image(number: int) -> Image:
            front, uncovered = cutout(fronts[number // len(behind)])
            shown = background(behind[number % len(behind)])
            made: Image = composites(front[None], uncovered[None], shown[None])[0, 0]
            return made

        key = ("reliance", len(fronts), len(behind))
        found = self.context.made(key, len(fronts) * len(behind), image)
        return found.double().numpy().reshape(len(fronts), len(behind), -1)
