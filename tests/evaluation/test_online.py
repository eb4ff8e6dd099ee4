"""A run's own evaluations: a shortcut shows as BG-Gap, features are computed once, and gaps are reported before."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from bgsweep.config import Data, Evaluate, Knn, Linear, SuiteConfig
from bgsweep.data import UNLABELLED, ImageDataset, Splits, open_splits
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.errors import UserError
from bgsweep.evaluation import check, variant_sheet
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.evaluation.evaluators.backgrounds import backgrounds
from bgsweep.evaluation.evaluators.knn import knn, knn_predict
from bgsweep.evaluation.evaluators.linear import linear
from bgsweep.evaluation.feature_cache import EvaluatedSplit
from bgsweep.evaluation.features import Encode
from bgsweep.evaluation.online import online
from tests.evaluation.conftest import colours
from tests.evaluation.subjects import judged, model_of

SIZE = 32


def test_colours_alone_show_a_wide_gap_where_the_background_gives_the_class_away(
    splits: Splits, shortcut: Splits
) -> None:
    settings = Evaluate(variant="mixed_rand", repeats=2)
    plain, biased = judged(model_of(), splits, settings, SIZE), judged(model_of(), shortcut, settings, SIZE)
    assert plain.backgrounds and biased.backgrounds and biased.backgrounds_linear
    assert biased.backgrounds["bg_gap"] > plain.backgrounds["bg_gap"] + 0.15
    assert biased.backgrounds_linear["bg_gap"] > 0.2
    assert biased.knn_top1 == biased.backgrounds["mixed_rand"]
    assert biased.backgrounds["bg_gap"] == pytest.approx(
        biased.backgrounds["mixed_same"] - biased.backgrounds["mixed_rand"]
    )
    assert biased.protocol["knn"] == "k 20, temperature 0.07, cosine"
    assert biased.protocol["linear_lr"] in settings.linear.lrs


def context(
    splits: Splits, settings: Evaluate, split: EvaluatedSplit = "test", encode: Encode = colours
) -> EvalContext:
    return EvalContext(model_of(encode), SuiteConfig(evaluate=settings, size=SIZE), splits, split=split)


def test_several_backgrounds_of_an_image_are_one_entry(splits: Splits) -> None:
    ctx = context(splits, Evaluate(repeats=3, variant="mixed_rand", linear=Linear(epochs=2)))
    cache = ctx.features
    (single, _), (top1, top5, _) = knn(ctx).measure(), linear(ctx).measure()
    found = {one.name: one for one in backgrounds(ctx).measure()}
    for one in (single, top1, top5, *found.values()):
        assert len(one.hits) == len(cache.variants().usable), one.name
    predicted = knn_predict(cache.train(), cache.variant("mixed_rand").values, Knn(), classes=10)
    rights = predicted == cache.variant("mixed_rand").labels
    assert found["knn/mixed_rand"].hits.tolist() == [int(part.sum()) for part in rights.split(3)]
    assert found["knn/mixed_rand"].value == pytest.approx(rights.double().mean().item())
    assert single.value == found["knn/mixed_rand"].value and top1.value == found["linear/mixed_rand"].value


def test_batches_do_not_matter(splits: Splits) -> None:
    small, large = (judged(model_of(), splits, Evaluate(batch_size=size), SIZE) for size in (16, 256))
    assert small.backgrounds == pytest.approx(large.backgrounds, abs=1e-6)
    assert small.linear_top1 == pytest.approx(large.linear_top1, abs=1e-6)


def test_each_image_is_encoded_once(splits: Splits) -> None:
    seen: Counter[bytes] = Counter()

    def counting(images: Tensor) -> Tensor:
        seen.update(image.numpy().tobytes() for image in images)
        return colours(images)

    ctx = context(splits, Evaluate(), encode=counting)
    first, total = [one.value for one in knn(ctx).measure()], sum(seen.values())
    assert [one.value for one in knn(ctx).measure()] == first
    assert sum(seen.values()) == total == len(splits.train) + len(splits.test)


def test_masks_change_neither_knn_nor_the_probe(splits: Splits) -> None:
    """Images whose masks show no foreground, or nothing else, count too; the variants say how many they leave out."""
    with_masks, without = (context(each, Evaluate(linear=Linear(epochs=2))) for each in (splits, maskless(splits)))
    assert 0 < with_masks.features.variants().left_out < 10
    for evaluator in (knn, linear):
        found, other = ({one.name: one for one in evaluator(ctx).measure()} for ctx in (with_masks, without))
        assert found.keys() == other.keys()
        for name, one in found.items():
            assert np.array_equal(one.hits, other[name].hits) and len(one.hits) == len(splits.test)
    protocol = backgrounds(with_masks)
    list(protocol.measure())
    assert protocol.protocol()["left_out"].startswith(f"{with_masks.features.variants().left_out} images")
    assert len(with_masks.features.variant("original")) == len(with_masks.features.variants().usable)


def test_online_looks_at_the_validation_split(splits: Splits) -> None:
    values = online(model_of(), splits, Evaluate(variant="only_fg"), SIZE)
    expected, _ = knn(context(splits, Evaluate(variant="only_fg"), "validation")).measure()
    assert values == {"knn_top1": expected.value}
    assert 0.1 < values["knn_top1"] < 1


def test_metrics_share_the_features_of_the_validation_images(splits: Splits) -> None:
    encoded = 0

    def counting(images: Tensor) -> Tensor:
        nonlocal encoded
        encoded += len(images)
        return colours(images)

    views = [{"name": "lidar", "images": 30, "views": 3}, {"name": "hypersphere", "images": 30}]
    settings = Evaluate.model_validate({"metrics": ["rankme", "alpha_req", *views]})
    values = online(model_of(counting), splits, settings, SIZE)
    assert encoded == len(splits.train) + len(splits.validation) + 90
    names = {"rankme/rank", "lidar/rank", "alpha_req/alpha", "alpha_req/distance"}
    names |= {f"hypersphere/{name}" for name in ("sum", "alignment", "uniformity")}
    assert values.keys() == {"knn_top1"} | {f"validation/{name}{end}" for name in names for end in ("", "_se")}
    nameless = Splits(unlabelled(splits.train), unlabelled(splits.validation), splits.test)
    alone = online(model_of(), nameless, settings, SIZE)
    assert alone == {name: value for name, value in values.items() if name != "knn_top1"}, (
        "without classes as with them"
    )


class Bare:
    """A dataset without its masks."""

    has_masks = False

    def __init__(self, source: ImageDataset) -> None:
        self.source = source
        self.name, self.classes, self.ids, self.labels = source.name, source.classes, source.ids, source.labels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> object:
        return self.source[index]


def maskless(splits: Splits) -> Splits:
    return Splits(*map(Bare, (splits.train, splits.validation, splits.test)))  # type: ignore[arg-type]


def unlabelled(dataset: ImageDataset) -> ImageDataset:
    """The same images and masks without classes."""
    bare = Subset(dataset, np.arange(len(dataset)), dataset.name)
    bare.classes, bare.labels = (), np.full(len(bare), UNLABELLED)
    return bare


def test_metrics_that_need_classes_are_refused_without(splits: Splits) -> None:
    nameless = Splits(unlabelled(splits.train), unlabelled(splits.validation), splits.test)
    check(nameless, Evaluate.model_validate({"metrics": ["bg_share"]}), ["validation"])
    with pytest.raises(UserError, match=r"knn needs classes; put the images into class folders, or name other metrics"):
        check(nameless, Evaluate.model_validate({"metrics": ["knn"]}), ["validation"])


def test_a_set_without_masks_is_judged_as_it_is(splits: Splits) -> None:
    bare = maskless(splits)
    report = judged(model_of(), bare, Evaluate(), SIZE)
    assert report.backgrounds is None
    assert 0.1 < report.knn_top1 < 1
    check(bare, Evaluate())
    with pytest.raises(UserError, match=r"evaluate\.variant: mixed_rand needs foreground masks"):
        check(bare, Evaluate(variant="mixed_rand"))


def test_images_without_classes_give_nothing_to_measure(splits: Splits) -> None:
    class Unnamed:
        name, classes, has_masks = "photographs", (), False

    nameless = Splits(Unnamed(), splits.validation, splits.test)  # type: ignore[arg-type]
    assert online(model_of(), nameless, Evaluate(), SIZE) == {}
    with pytest.raises(UserError, match="class folders"):
        judged(model_of(), nameless, Evaluate(), SIZE)


def test_what_a_split_lacks_is_said_before_training(splits: Splits) -> None:
    one_class = Subset(splits.test, np.flatnonzero(splits.test.labels == 0), "trousers")
    with pytest.raises(UserError, match=r"evaluate\.variant: trousers has one class"):
        check(Splits(splits.train, splits.validation, one_class), Evaluate(variant="mixed_rand"))
    assert judged(model_of(), Splits(splits.train, splits.validation, one_class), Evaluate(), SIZE).backgrounds is None
    nameless = Subset(splits.test, np.arange(len(splits.test)), "loose images")
    nameless.labels = np.full(len(nameless), UNLABELLED)
    with pytest.raises(UserError, match="loose images: put its images into class folders"):
        check(Splits(splits.train, nameless, splits.test), Evaluate())


def test_a_constant_encoder_is_at_chance(splits: Splits) -> None:
    report = judged(model_of(lambda images: torch.ones(len(images), 4)), splits, Evaluate(), SIZE)
    assert report.knn_top1 == pytest.approx(0.1, abs=0.02)


def test_the_sheet_has_a_column_for_each_variant() -> None:
    splits = open_splits(Data(images="sample", resize=64))
    variants = VariantSet(splits.test, None, Evaluate(), 64)
    sheet, wider = variant_sheet(variants, rows=2), variant_sheet(variants, rows=3)
    assert sheet.shape[1] >= 8 * 128 and wider.shape[0] - sheet.shape[0] >= 128 and sheet.shape[1] == wider.shape[1]
    told = variant_sheet(variants, rows=2, accuracy={"only_fg": 0.5})
    columns = np.flatnonzero((told != sheet).any(axis=(0, 2)))
    assert sheet.shape[1] / 8 < columns.min() and columns.max() < sheet.shape[1] / 4 + 20
