"""Inputs, final evaluation and images of an MLflow run."""

from collections.abc import Sequence
from typing import Any

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import SweepConfig
from bgsweep.config.metric_names import with_new_names
from bgsweep.data import ImageDataset, SplitName, open_splits
from bgsweep.evaluation import Report, VariantSet, variant_sheet
from bgsweep.evaluation.bank import online_bank
from bgsweep.report.pictures import views_picture
from bgsweep.tracking import Tracker

PICTURED_IMAGES = 6


def log_inputs(
    tracker: Tracker, run: str, config: SweepConfig, used: Sequence[SplitName] = ("train", "validation", "test")
) -> None:
    """Log the digests of the splits used, the augmentation policy in Albumentations' format, and a sheet of views.

    Where kNN during training compares with some of the training images only, these are logged as `knn_bank`.
    """
    experiment = config.experiment
    splits = open_splits(experiment.data)
    pipeline = ViewPipeline(experiment.views, experiment.background, experiment.training.epochs)
    for name in used:
        source: ImageDataset = getattr(splits, name)
        tracker.log_dataset(run, name, source.name, source.digests(), len(source))
    bank = online_bank(splits.train, config.evaluate)
    if bank is not splits.train:
        tracker.log_dataset(run, "knn_bank", bank.name, bank.digests(), len(bank))
    tracker.log_json(run, {"left_out_or_held_out": list(splits.said)}, "splits.json")
    tracker.log_json(run, pipeline.policy(), "augmentation.json")
    tracker.log_image(run, views_picture(config, splits, min(PICTURED_IMAGES, len(splits.train))), "views.png")


def log_report(tracker: Tracker, run: str, report: Report, epoch: int) -> None:
    """Log the final evaluation: its values as metrics, and values and protocol as a file."""
    values = {"test/knn_top1": report.knn_top1, "test/linear_top1": report.linear_top1}
    for probe, backgrounds in (("knn", report.backgrounds), ("linear", report.backgrounds_linear)):
        values |= {f"test/{probe}/{name}": value for name, value in (backgrounds or {}).items()}
    tracker.log_metrics(run, epoch, values)
    tracker.log_json(run, report.public(), "evaluation.json")


def log_variants(tracker: Tracker, run: str, config: SweepConfig) -> None:
    """Log a sheet of the background variants of the test split, if there are masks."""
    splits = open_splits(config.experiment.data)
    if splits.test.has_masks:
        variants = VariantSet(splits.test, splits.pools("test"), config.evaluate, config.experiment.views.size)
        tracker.log_image(run, variant_sheet(variants), "variants.png")


def registry_tags(config: SweepConfig, report: Report, lineage: dict[str, Any]) -> dict[str, Any]:
    """Tags of a registered version: lineage and main metrics, under their earlier and their present names."""
    numbers = {"test_knn_top1": report.knn_top1, "test_linear_top1": report.linear_top1}
    if report.backgrounds:
        numbers["test_bg_gap"] = report.backgrounds["bg_gap"]
    digests = open_splits(config.experiment.data).train.digests()
    return {
        **lineage,
        "digest": config.experiment.digest,
        **{f"{name}_digest": digest for name, digest in digests.items()},
        **{name: f"{value:.4f}" for name, value in with_new_names(numbers).items()},
    }
