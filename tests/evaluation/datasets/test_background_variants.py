"""Background variants: what each shows of the image, and what it must not."""

import cv2
import numpy as np
import pytest

from bgsweep.config import Evaluate
from bgsweep.config.evaluation import VARIANTS
from bgsweep.data import BackgroundPools, Sample, Splits
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.evaluation.datasets.background_variants import VariantSet, label_pools
from bgsweep.images.compositing import binarize, without_rim
from bgsweep.images.decoding import centre_view

SIZE = 32


class Repainted:
    """A source whose foregrounds or backgrounds are painted over with noise, masks and all else the same."""

    def __init__(self, source: object, part: str) -> None:
        self.source, self.part = source, part
        for name in ("name", "classes", "ids", "labels", "has_masks"):
            setattr(self, name, getattr(source, name))

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = self.source[index]  # type: ignore[index]
        assert sample.mask is not None
        painted = binarize(sample.mask) > 0
        noise = np.random.default_rng(index).integers(0, 256, sample.image.shape, np.uint8)
        image = np.where((painted if self.part == "foreground" else ~painted)[:, :, None], noise, sample.image)
        return Sample(sample.id, image, sample.label, lambda: sample.mask)  # type: ignore[arg-type, return-value]


@pytest.fixture(scope="module")
def variants(splits: Splits) -> VariantSet:
    return VariantSet(splits.test, None, Evaluate(), SIZE)


@pytest.mark.parametrize(
    ("variant", "hidden"),
    [("no_fg", "foreground"), ("only_bg_t", "foreground"), ("only_bg_b", "foreground"), ("only_fg", "background")],
)
def test_what_is_hidden_leaves_no_trace(splits: Splits, variants: VariantSet, variant: str, hidden: str) -> None:
    repainted = VariantSet(Repainted(splits.test, hidden), None, Evaluate(), SIZE)  # type: ignore[arg-type]
    for index in variants.usable[::7]:
        np.testing.assert_array_equal(variants.image(variant, index), repainted.image(variant, index))  # type: ignore[arg-type]


def test_a_mixed_image_keeps_nothing_of_its_own_background(splits: Splits, variants: VariantSet) -> None:
    other = VariantSet(Repainted(splits.test, "background"), variants.pools, Evaluate(), SIZE)  # type: ignore[arg-type]
    for index in variants.usable[::7]:
        np.testing.assert_array_equal(variants.image("mixed_rand", index), other.image("mixed_rand", index))


def test_foreground_is_the_images_own(splits: Splits, variants: VariantSet) -> None:
    for index in variants.usable[::17]:
        sample = splits.test[index]
        assert sample.mask is not None
        inside = centre_view(without_rim(sample.mask), SIZE) == 255
        outside = centre_view(without_rim(255 - sample.mask), SIZE) == 255
        original, only_fg = variants.image("original", index), variants.image("only_fg", index)
        mixed, no_fg = variants.image("mixed_same", index), variants.image("no_fg", index)
        np.testing.assert_array_equal(only_fg[inside], original[inside])
        np.testing.assert_array_equal(mixed[inside], original[inside])
        np.testing.assert_array_equal(no_fg[outside], original[outside])
        assert not only_fg[outside].any() and not no_fg[inside].any()


class TwoColoured(Repainted):
    """A source whose foregrounds are red and backgrounds green, mixed along their edges as a camera mixes them."""

    def __init__(self, source: object) -> None:
        super().__init__(source, "")

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = self.source[index]  # type: ignore[index]
        assert sample.mask is not None
        height, width = sample.mask.shape
        large = cv2.resize(sample.mask, (4 * width, 4 * height), interpolation=cv2.INTER_LINEAR) > 127
        painted = np.where(large[:, :, None], [255, 0, 0], [0, 255, 0]).astype(np.uint8)
        image = np.asarray(cv2.resize(painted, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        mask = np.asarray(cv2.resize(large.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA))
        return Sample(sample.id, image, sample.label, lambda: mask)


def test_there_is_no_halo_of_what_is_hidden(splits: Splits) -> None:
    variants = VariantSet(TwoColoured(splits.test), None, Evaluate(), SIZE)  # type: ignore[arg-type]
    mixed_edges = 0
    for index in variants.usable[::7]:
        original = variants.image("original", index)
        mixed_edges += int(((original[..., 0] > 40) & (original[..., 1] > 40)).sum())
        for name, colour in (("only_fg", 1), ("no_fg", 0), ("only_bg_b", 0), ("only_bg_t", 0)):
            assert not variants.image(name, index)[..., colour].any(), name  # type: ignore[arg-type]
        front, _ = variants.cutout(index)
        assert front.any() and not front[..., 1].any()
    assert mixed_edges > 500


def test_what_is_all_rim_is_shown_whole(splits: Splits) -> None:
    """A foreground of a pixel's width would vanish, and an image of nothing would bear its label."""

    class Thin(Repainted):
        def __getitem__(self, index: int) -> Sample:
            sample: Sample = self.source[index]  # type: ignore[index]
            mask = np.zeros(sample.image.shape[:2], np.uint8)
            mask[:, mask.shape[1] // 2] = 255
            return Sample(sample.id, sample.image, sample.label, lambda: mask)

    variants = VariantSet(Thin(splits.test, ""), None, Evaluate(), SIZE)  # type: ignore[arg-type]
    assert all(variants.shape(index).any() for index in variants.usable[::9])


@pytest.mark.parametrize("kind", ["splits", "shortcut"])
def test_donors_are_of_the_stated_class_and_never_the_image_itself(kind: str, request: pytest.FixtureRequest) -> None:
    opened: Splits = request.getfixturevalue(kind)
    pools: BackgroundPools = opened.pools("test") or label_pools(opened.test, range(len(opened.test)), SIZE)
    variants = VariantSet(opened.test, pools, Evaluate(repeats=3), SIZE)
    owner = {int(background): label for label, members in enumerate(pools.by_class) for background in members}
    for index in variants.usable:
        for repeat in range(3):
            same, other = (variants.donor(name, index, repeat) for name in ("mixed_same", "mixed_rand"))
            assert owner[same] == opened.test.labels[index] != owner[other]
            assert pools.origins[same] != index != pools.origins[other]
            following = variants.donor("mixed_next", index, repeat)
            assert owner[following] == (opened.test.labels[index] + 1) % len(opened.test.classes)


def test_the_seed_decides_the_backgrounds(splits: Splits, variants: VariantSet) -> None:
    again = VariantSet(splits.test, None, Evaluate(), SIZE)
    other = VariantSet(splits.test, None, Evaluate(seed=1), SIZE)
    drawn = [[one.donor("mixed_rand", index, 0) for index in one.usable] for one in (variants, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_images_do_not_depend_on_the_batch(splits: Splits) -> None:
    small, large = (VariantSet(splits.test, None, Evaluate(batch_size=size, repeats=2), SIZE) for size in (16, 256))
    for name in VARIANTS:
        images, labels = [], []
        for one in (small, large):
            batches = list(one.batches(name))
            images.append(np.concatenate([batch for batch, _ in batches]))
            labels.append(np.concatenate([batch for _, batch in batches]))
        np.testing.assert_array_equal(*images)
        np.testing.assert_array_equal(*labels)
        assert len(images[0]) == small.count(name)


def test_a_donor_images_foreground_leaves_no_trace_in_its_plate(splits: Splits) -> None:
    readable = range(len(splits.test))
    backgrounds = label_pools(splits.test, readable, SIZE).backgrounds
    repainted = label_pools(Repainted(splits.test, "foreground"), readable, SIZE).backgrounds  # type: ignore[arg-type]
    for index in readable[::7]:
        np.testing.assert_array_equal(backgrounds[index], repainted[index])


class Spoilt(Repainted):
    """A source of which every fifth image cannot be read, and whose masks may be empty."""

    def __init__(self, source: object, empty: bool = False) -> None:
        super().__init__(source, "")
        self.empty = empty

    def __getitem__(self, index: int) -> Sample:
        if index % 5 == 0:
            raise UnreadableImage(f"{index}.jpg: cannot be read")
        sample: Sample = self.source[index]  # type: ignore[index]
        assert sample.mask is not None
        mask = np.zeros_like(sample.mask) if self.empty else sample.mask
        return Sample(sample.id, sample.image, sample.label, lambda: mask)


def test_unreadable_images_are_left_out_and_named(splits: Splits, caplog: pytest.LogCaptureFixture) -> None:
    variants = VariantSet(Spoilt(splits.test), None, Evaluate(), SIZE)  # type: ignore[arg-type]
    assert variants.usable and all(index % 5 for index in variants.usable)
    donors = {variants.donor("mixed_rand", index, 0) for index in variants.usable}
    assert all(donor % 5 for donor in donors)
    assert "5.jpg: cannot be read; it is left out" in caplog.text


def bare(sample: Sample) -> Sample:
    return Sample(sample.id, sample.image, sample.label, lambda: np.zeros(sample.image.shape[:2], np.uint8))


class Bare(Repainted):
    """A source of which every fifth image has an empty mask."""

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = self.source[index]  # type: ignore[index]
        return (
            sample if index % 5 else Sample(sample.id, sample.image, sample.label, lambda: np.zeros_like(sample.mask))
        )


def test_an_image_with_an_empty_mask_gives_nobody_its_background_which_shows_its_foreground(splits: Splits) -> None:
    variants = VariantSet(Bare(splits.test, ""), None, Evaluate(), SIZE)  # type: ignore[arg-type]
    assert variants.usable and all(index % 5 for index in variants.usable)
    for kind in ("mixed_same", "mixed_rand", "mixed_next"):
        drawn = {variants.donor(kind, index, repeat) for index in variants.usable for repeat in range(3)}  # type: ignore[arg-type]
        assert all(donor % 5 for donor in drawn)


def test_foregrounds_of_one_class_alone_are_one_clear_error(splits: Splits) -> None:
    class OneClass(Bare):
        def __getitem__(self, index: int) -> Sample:
            sample: Sample = self.source[index]  # type: ignore[index]
            return (
                sample if sample.label == 0 else Sample(sample.id, sample.image, sample.label, lambda: 0 * sample.mask)
            )

    variants = VariantSet(OneClass(splits.test, ""), None, Evaluate(), SIZE)  # type: ignore[arg-type]
    assert variants.image("mixed_same", variants.usable[0]).any()
    with pytest.raises(UserError, match="images of one class alone have foregrounds; check the masks"):
        variants.image("mixed_rand", variants.usable[0])


def test_empty_masks_are_one_clear_error(splits: Splits) -> None:
    with pytest.raises(UserError, match="no image has a foreground of 1% to 95%"):
        VariantSet(Spoilt(splits.test, empty=True), None, Evaluate(), SIZE)  # type: ignore[arg-type]


def test_a_class_without_images_is_never_drawn_from(splits: Splits) -> None:
    present = np.flatnonzero(splits.test.labels != 3)
    part = Subset(splits.test, present, "nine classes")
    variants = VariantSet(part, None, Evaluate(), SIZE)
    assert all(variants.image("mixed_rand", index).any() for index in variants.usable[::9])
