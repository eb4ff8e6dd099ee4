"""Metric names of now and before."""

import pytest

from bgsweep.config.metric_names import metric_name, with_new_names
from bgsweep.config.search import Search


@pytest.mark.parametrize(
    ("evaluator", "value", "name"),
    [
        ("knn", "knn_top1", "test/knn/top1"),
        ("knn_lightly", "knn_top1", "test/knn_lightly/top1"),
        ("linear", "linear_top5", "test/linear/top5"),
        ("few_1", "few_1_top1", "test/few_1/top1"),
        ("backgrounds", "linear/bg_gap", "test/linear/bg_gap"),
        ("imagenet_c", "imagenet_c/fog_top1", "test/imagenet_c/fog_top1"),
        ("imagenet_c", "imagenet_c_mce", "test/imagenet_c/mce"),
        ("imagenet_a", "imagenet_a_val_top1", "test/imagenet_a/val_top1"),
        ("imagenet9", "mixed_rand", "test/imagenet9/mixed_rand"),
        ("attacks", "pgd_0.5_top1", "test/attacks/pgd_0.5_top1"),
        ("shape_bias", "shape_bias", "test/shape_bias/shape_bias"),
    ],
)
def test_a_suites_value_is_named_by_split_evaluator_and_value(evaluator: str, value: str, name: str) -> None:
    assert metric_name(evaluator, value) == name


def test_a_runs_metrics_have_both_names_for_one_release() -> None:
    metrics = {"epoch": 3, "loss": 1.0, "knn_top1": 0.5, "knn_top1_se": 0.1, "bg_gap/seed_2": 0.2, "test/linear/x": 0.3}
    assert with_new_names(metrics) == metrics | {
        "validation/knn/top1": 0.5,
        "validation/knn/top1_se": 0.1,
        "validation/knn/bg_gap/seed_2": 0.2,
    }
    assert with_new_names({"test/knn_top1": 0.5}) == {"test/knn_top1": 0.5, "test/knn/top1": 0.5}


def test_a_search_takes_either_name() -> None:
    assert Search(metric="validation/knn/top1") == Search(metric="knn_top1")
    both = Search(metric=("validation/knn/top1", "bg_gap"), mode=("max", "min"), scheduler="none")
    assert both.metrics == ("knn_top1", "bg_gap")
    with pytest.raises(ValueError, match="test/knn/top1 is not measured during training"):
        Search(metric="test/knn/top1")
