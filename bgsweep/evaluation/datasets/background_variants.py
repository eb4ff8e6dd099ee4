"""The background variants of a labelled set with masks, after ImageNet-9 (Xiao et al. 2020), made on the fly.

`original`; `only_fg` (Only-FG: black background); `no_fg` (No-FG: the foreground's shape is black); `only_bg_t`
(Only-BG-T: the foreground's bounding box is tiled over with background); `mixed_same` (Mixed-Same: the background of
another image of the same class), `mixed_rand` (Mixed-Rand: a background of a class drawn from all the others),
`only_bg_b` (Only-BG-B: the foreground's bounding box is black) and `mixed_next` (Mixed-Next: a background of the next
class, in the order of the classes; after the last comes the first).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from bgsweep.config import Evaluate
from bgsweep.config.evaluation import Variant
from bgsweep.data import BackgroundPools, Image, ImageDataset, Mask, Sample
from bgsweep.data.readable import in_order, seen
from bgsweep.errors import UserError
from bgsweep.evaluation.datasets.on_demand import MadeOnDemand
from bgsweep.images.compositing import (
    binarize,
    fill,
    foreground_area,
    largest_background_rectangle,
    tile,
    without_rim,
)
from bgsweep.images.decoding import centre_view, cover
from bgsweep.seeding import Draw, rng_key

if TYPE_CHECKING:  # it imports torch, which pages of results do without
    from bgsweep.evaluation.features import ImageBatches

_KEPT_PLATES = 1024
BLACK = (0.0, 0.0, 0.0)
MIN_AREA, MAX_AREA = 0.01, 0.95


class VariantSet:
    """One source's images in all variants, as squares of `size` pixels.

    Foreground and background are cut apart at the image's own resolution and only then brought to size, and the
    rim where both show is in neither, so that nothing of one is left in the other. Images that cannot be read, and
    those whose foreground covers less than 1 % or more than 95 % of the square, are in none of the variants; `left_out`
    counts the latter. Each foreground meets `repeats` backgrounds in the mixed variants. All draws are addressed by the
    seed and the image, so that a variant is the same every time.

    Args:
        looked: what `looked_at` says of the whole source, where it is known already.
        threads: threads that make images ahead; 0 makes them when they are asked for.

    Raises:
        UserError: no image is left.
    """

    def __init__(
        self,
        source: ImageDataset,
        pools: BackgroundPools | None,
        settings: Evaluate,
        size: int,
        looked: Mapping[int, bool] | None = None,
        threads: int = 0,
    ) -> None:
        self.source = source
        self.settings = settings
        self.size = size
        self.threads = threads
        shown = looked_at(source, size, threads=threads) if looked is None else looked
        self.usable = [index for index, shows_both in shown.items() if shows_both]
        self.left_out = len(shown) - len(self.usable)
        if not self.usable:
            raise UserError(
                f"{source.name}: no image has a foreground of {MIN_AREA:.0%} to {MAX_AREA:.0%} of its square; "
                "check the masks (white is foreground)"
            )
        self.pools = pools or label_pools(source, self.usable, size)

    def batches(self, variant: Variant, numbers: slice = slice(None)) -> "ImageBatches":
        """Batches of the variant's images (all, or those of some numbers) with their labels."""
        drawn = [(index, repeat) for index in self.usable for repeat in range(self.repeats(variant))][numbers]
        size = self.settings.batch_size
        made = in_order(lambda one: self.image(variant, *one), drawn, self.threads, size)
        for first in range(0, len(drawn), size):
            indices = [index for index, _ in drawn[first : first + size]]
            yield np.stack(list(islice(made, size))), self.source.labels[indices]

    def count(self, variant: Variant) -> int:
        """Number of the variant's images."""
        return len(self.usable) * self.repeats(variant)

    def image(self, variant: Variant, index: int, repeat: int = 0) -> Image:
        """One image in one variant: size x size x 3."""
        sample = self.source[index]
        image = sample.image
        if variant == "original":
            return centre_view(image, self.size)
        mask = _mask(sample)
        if variant == "only_fg":
            return centre_view(fill(image, _inner(mask), BLACK), self.size)
        if variant == "no_fg":
            return centre_view(fill(image, _inner(255 - mask), BLACK), self.size)
        if variant == "only_bg_t":
            return centre_view(_covered(image, mask), self.size)
        if variant == "only_bg_b":
            return centre_view(_boxed(image, mask), self.size)
        background = self.behind(variant, index, repeat)
        foreground, uncovered = self.cutout(index)
        shown = cv2.multiply(background, cv2.cvtColor(uncovered, cv2.COLOR_GRAY2RGB), scale=1 / 255)
        return cast(Image, cv2.add(foreground, shown))

    def cutout(self, index: int) -> tuple[Image, Mask]:
        """An image's foreground on black, and how much of another background shows at each pixel, 0 to 255.

        The foreground's blurred edge is blended with the new background alone: a halo of the old one would tell.
        """
        sample = self.source[index]
        mask = _inner(_mask(sample))
        return centre_view(fill(sample.image, mask, BLACK), self.size), 255 - centre_view(mask, self.size)

    def shape(self, index: int) -> Mask:
        """The mask of what `cutout` gives, 0 to 255."""
        return centre_view(_inner(_mask(self.source[index])), self.size)

    def regions(self, index: int) -> tuple[Mask, Mask]:
        """An image's foreground and its background, 255 inside; the rim where both show is in neither."""
        mask = _mask(self.source[index])
        return binarize(centre_view(_inner(mask), self.size)), binarize(centre_view(_inner(255 - mask), self.size))

    def behind(self, variant: Variant, index: int, repeat: int = 0) -> Image:
        """The background that an image has in a mixed variant, without its foreground."""
        return cover(self.pools.backgrounds[self.donor(variant, index, repeat)], self.size, self.size)

    def donor(self, variant: Variant, index: int, repeat: int) -> int:
        """Number of the background, among those of the pools, that an image has in a mixed variant."""
        label = int(self.source.labels[index])
        kind = Draw[variant.upper()]
        draw = np.random.default_rng(rng_key(self.settings.seed, repeat, self.source.ids[index], kind))
        if variant == "mixed_rand":
            others = [other for other, members in enumerate(self.pools.by_class) if other != label and len(members)]
            if not others:
                raise UserError(f"{self.source.name}: images of one class alone have foregrounds; check the masks")
            label = int(draw.choice(others))
        elif variant == "mixed_next":
            count = len(self.pools.by_class)
            later = ((label + step) % count for step in range(1, count + 1))
            label = next(other for other in later if len(self.pools.by_class[other]))
        members = self.pools.by_class[label]
        elsewhere = members[self.pools.origins[members] != index]
        return int(draw.choice(elsewhere if len(elsewhere) else members))

    def protocol(self) -> dict[str, Any]:
        """Protocol of the variants: how they were made."""
        return {
            "left_out": f"{self.left_out} images whose foreground covers less than {MIN_AREA:.0%} or more than "
            f"{MAX_AREA:.0%} of the square",
            "mixed_same": "background of the same class, another image's",
            "mixed_rand": "background of a class drawn from all the others",
            "mixed_next": "background of the next class in order",
            "composition": "cut apart at the image's resolution, then resized; the rim where both show (about 1 % of "
            "the shorter side, a pixel at least) is in neither",
            "backgrounds_per_foreground": self.settings.repeats,
        }

    def repeats(self, variant: Variant) -> int:
        """Number of versions of each image in the variant, one after another."""
        return self.settings.repeats if variant.startswith("mixed") else 1


def looked_at(
    source: ImageDataset, size: int, indices: Iterable[int] | None = None, threads: int = 0
) -> dict[int, bool]:
    """The images (all, or those named) that can be read; whether their squares show foreground and background."""

    def shows_both(sample: Sample) -> bool:
        return MIN_AREA <= foreground_area(centre_view(_mask(sample), size)) <= MAX_AREA

    return dict(seen(source, shows_both, indices, threads))


def label_pools(source: ImageDataset, indices: Sequence[int], size: int) -> BackgroundPools:
    """The background of each image named (Only-BG-T, as in ImageNet-9) counts as a background of the image's class."""
    labels = {index: int(source.labels[index]) for index in indices}
    by_class = [
        np.array([index for index, label in labels.items() if label == wanted], np.int64)
        for wanted in range(len(source.classes))
    ]

    def background(index: int) -> Image:
        sample = source[index]
        return cover(_covered(sample.image, _mask(sample)), size, size)

    return BackgroundPools(MadeOnDemand(len(source), background, _KEPT_PLATES), by_class, np.arange(len(source)))


def centre_crops(
    source: ImageDataset, size: int, batch_size: int, threads: int = 0
) -> Iterator[tuple[Image, npt.NDArray[np.int64]]]:
    """A source's readable images as they are, as squares, with their labels; masks are not read."""
    return batches_of(source, lambda image: centre_view(image, size), batch_size, threads)


def batches_of(
    source: ImageDataset, see: Callable[[Image], Image], batch_size: int, threads: int = 0
) -> Iterator[tuple[Image, npt.NDArray[np.int64]]]:
    """A source's readable images, brought to one size by ``see``, with their labels; masks are not read."""
    made = (
        found
        for _, found in seen(source, lambda each: (see(each.image), each.label), threads=threads, ahead=batch_size)
    )
    while part := list(islice(made, batch_size)):
        images, labels = zip(*part, strict=True)
        yield np.stack(images), np.array(labels, np.int64)


def _mask(sample: Sample) -> Mask:
    assert sample.mask is not None, "variants are made of sources with masks"
    return binarize(sample.mask)


def _inner(mask: Mask) -> Mask:
    """The mask without its rim; with it where less than half would be left."""
    inner = without_rim(mask)
    return inner if 2 * cv2.countNonZero(inner) >= cv2.countNonZero(mask) else mask


def _boxed(image: Image, mask: Mask) -> Image:
    """The foreground's bounding box in black."""
    left, top, width, height = cv2.boundingRect(255 - _inner(255 - mask))
    boxed = image.copy()
    boxed[top : top + height, left : left + width] = 0
    return boxed


def _covered(image: Image, mask: Mask) -> Image:
    """The foreground's bounding box tiled over with the largest background rectangle."""
    mask = 255 - _inner(255 - mask)
    rect = largest_background_rectangle(mask)
    if rect is None:  # no background to tile with anywhere: what little there is stays, the foreground goes
        return fill(image, 255 - mask, BLACK)
    left, top, width, height = cv2.boundingRect(mask)
    covered = image.copy()
    covered[top : top + height, left : left + width] = tile(
        image, rect, height, width, top - rect.top, left - rect.left
    )
    return covered
