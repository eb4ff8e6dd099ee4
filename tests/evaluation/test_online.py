"""The suite: a shortcut shows as BG-gap, features are computed once, and what cannot be measured is said before."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from bgsweep.config import Data, Evaluate, Knn
from bgsweep.data import UNLABELLED, Splits, open_splits
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.errors import UserError
from bgsweep.evaluation import check, final, online, variant_sheet
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.evaluation.evaluators.knn import knn_predict
from bgsweep.evaluation.feature_cache import FeatureCache
from bgsweep.evaluation.online import knn, measured_variants
from tests.evaluation.conftest import colours

SIZE = 32


def test_colours_alone_show_a_wide_gap_where_the_background_gives_the_class_away(
    splits: Splits, shortcut: Splits
) -> None:
    settings = Evaluate(variant="mixed_rand", repeats=2)
    plain, biased = final(colours, splits, settings, SIZE), final(colours, shortcut, settings, SIZE)
    assert plain.backgrounds and biased.backgrounds and biased.backgrounds_linear
    assert biased.backgrounds["bg_gap"] > plain.backgrounds["bg_gap"] + 0.15
    assert biased.backgrounds_linear["bg_gap"] > 0.2
    assert biased.knn_top1 == biased.backgrounds["mixed_rand"]
    assert biased.backgrounds["bg_gap"] == pytest.approx(
        biased.backgrounds["mixed_same"] - biased.backgrounds["mixed_rand"]
    )
    assert biased.protocol["knn"] == "k 20, temperature 0.07, cosine"
    assert biased.protocol["linear_lr"] in settings.linear.lrs


def test_several_backgrounds_of_a_photograph_are_one_entry(splits: Splits) -> None:
    bench = FeatureCache(colours, splits, Evaluate(repeats=3), SIZE, "test")
    predict = partial(knn_predict, bench.train(), settings=Knn(), classes=10)
    found = {one.name: one for one in measured_variants(bench, predict)}
    for one in found.values():
        assert len(one.hits) == len(bench.variants().usable), one.name
    rights = predict(bench.variant("mixed_rand").values) == bench.variant("mixed_rand").labels
    assert found["mixed_rand"].hits.tolist() == [int(part.sum()) for part in rights.split(3)]
    assert found["mixed_rand"].value == pytest.approx(rights.double().mean().item())


def test_batches_do_not_matter(splits: Splits) -> None:
    small, large = (final(colours, splits, Evaluate(batch_size=size), SIZE) for size in (16, 256))
    assert small.backgrounds == pytest.approx(large.backgrounds, abs=1e-6)
    assert small.linear_top1 == pytest.approx(large.linear_top1, abs=1e-6)


def test_each_picture_is_encoded_once(splits: Splits) -> None:
    seen: Counter[bytes] = Counter()

    def counting(images: Tensor) -> Tensor:
        seen.update(image.numpy().tobytes() for image in images)
        return colours(images)

    bench = FeatureCache(counting, splits, Evaluate(), SIZE, "test")
    first, total = dict(knn(bench)), sum(seen.values())
    assert dict(knn(bench)) == first
    assert sum(seen.values()) == total == len(splits.train) + len(bench.variants().usable)


def test_online_looks_at_the_validation_split(splits: Splits) -> None:
    values = online(colours, splits, Evaluate(variant="only_fg"), SIZE)
    bench = FeatureCache(colours, splits, Evaluate(variant="only_fg"), SIZE, "validation")
    assert values == dict(knn(bench))
    assert 0.1 < values["knn_top1"] < 1


def test_a_set_without_masks_is_judged_as_it_is(splits: Splits) -> None:
    class Bare:
        def __init__(self, source: object) -> None:
            self.source = source
            for name in ("name", "classes", "ids", "labels"):
                setattr(self, name, getattr(source, name))
            self.has_masks = False

        def __len__(self) -> int:
            return len(self.source)  # type: ignore[arg-type]

        def __getitem__(self, index: int) -> object:
            return self.source[index]  # type: ignore[index]

    bare = Splits(*(Bare(source) for source in (splits.train, splits.validation, splits.test)))  # type: ignore[arg-type]
    report = final(colours, bare, Evaluate(), SIZE)
    assert report.backgrounds is None
    assert 0.1 < report.knn_top1 < 1
    check(bare, Evaluate())
    with pytest.raises(UserError, match=r"evaluate\.variant: mixed_rand needs foreground masks"):
        check(bare, Evaluate(variant="mixed_rand"))


def test_photographs_without_classes_give_nothing_to_measure(splits: Splits) -> None:
    class Unnamed:
        name, classes, has_masks = "photographs", (), False

    nameless = Splits(Unnamed(), splits.validation, splits.test)  # type: ignore[arg-type]
    assert online(colours, nameless, Evaluate(), SIZE) == {}
    with pytest.raises(UserError, match="class folders"):
        final(colours, nameless, Evaluate(), SIZE)


def test_what_a_split_lacks_is_said_before_training(splits: Splits) -> None:
    one_class = Subset(splits.test, np.flatnonzero(splits.test.labels == 0), "trousers")
    with pytest.raises(UserError, match=r"evaluate\.variant: trousers has one class"):
        check(Splits(splits.train, splits.validation, one_class), Evaluate(variant="mixed_rand"))
    assert final(colours, Splits(splits.train, splits.validation, one_class), Evaluate(), SIZE).backgrounds is None
    nameless = Subset(splits.test, np.arange(len(splits.test)), "loose photographs")
    nameless.labels = np.full(len(nameless), UNLABELLED)
    with pytest.raises(UserError, match="loose photographs: put its images into class folders"):
        check(Splits(splits.train, nameless, splits.test), Evaluate())


def test_a_constant_encoder_is_at_chance(splits: Splits) -> None:
    report = final(lambda images: torch.ones(len(images), 4), splits, Evaluate(), SIZE)
    assert report.knn_top1 == pytest.approx(0.1, abs=0.02)


def test_the_sheet_has_a_column_for_each_variant() -> None:
    splits = open_splits(Data(images="sample", resize=64))
    sheet = variant_sheet(VariantSet(splits.test, None, Evaluate(), 64), rows=2, cell=100)
    assert sheet.shape == (24 + 2 * 106, 6 + 8 * 106, 3)
