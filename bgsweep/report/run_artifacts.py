"""Inputs, final evaluation and images of an MLflow run."""

from collections.abc import Mapping, Sequence
from typing import Any

from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import SweepConfig
from bgsweep.config.metric_names import validated, with_new_names
from bgsweep.data import ImageDataset, SplitName, Splits, open_splits
from bgsweep.evaluation import Report, VariantSet, variant_sheet
from bgsweep.evaluation.bank import online_bank
from bgsweep.report.images import views_grid
from bgsweep.tracking import Tracker
from bgsweep.tracking.datasets import dataset_digest
from bgsweep.tracking.models import log_encoder, logged_encoder
from bgsweep.tracking.parameters import shown_parameters
from bgsweep.tracking.provenance import source
from bgsweep.training.checkpoint import load_trained
from bgsweep.training.initial_weights import origin_of

SHOWN_IMAGES = 6


def log_inputs(
    tracker: Tracker,
    run: str,
    config: SweepConfig,
    used: Sequence[SplitName] = ("train", "validation", "test"),
    splits: Splits | None = None,
) -> None:
    """Log the digests of the splits used, the augmentation policy in Albumentations' format, and a sheet of views.

    Where kNN during training compares with some of the training images only, these are logged as `knn_bank`.

    Args:
        splits: those of the config's data, where they are open already.
    """
    experiment = config.experiment
    splits = splits or open_splits(experiment.data)
    pipeline = ViewPipeline(experiment.views, experiment.background, experiment.training.epochs)
    for name in used:
        source: ImageDataset = getattr(splits, name)
        tracker.log_dataset(run, name, source.name, source.digests(), len(source))
    bank = online_bank(splits.train, config.evaluate)
    if bank is not splits.train:
        tracker.log_dataset(run, "knn_bank", bank.name, bank.digests(), len(bank))
    tracker.log_json(run, {"left_out_or_held_out": list(splits.said)}, "splits.json")
    tracker.log_json(run, pipeline.policy(), "augmentation.json")
    if (weights := experiment.encoder.weights) is not None:
        tracker.log_json(run, origin_of(weights), "initial_weights.json")
    tracker.log_image(run, views_grid(config, splits, min(SHOWN_IMAGES, len(splits.train))), "views.png")


def log_report(
    tracker: Tracker,
    run: str,
    report: Report,
    epoch: int,
    model: str | None = None,
    dataset: tuple[str, str] | None = None,
) -> None:
    """Log the final evaluation: its values as metrics, also of the model and dataset that are given (as in
    `Tracker.log_metrics`), and values and protocol as a file."""
    values = dict(report.unlabelled)
    for name, value in (("test/knn_top1", report.knn_top1), ("test/linear_top1", report.linear_top1)):
        values |= {} if value is None else {name: value}
    for probe, backgrounds in (("knn", report.backgrounds), ("linear", report.backgrounds_linear)):
        values |= {f"test/{probe}/{name}": value for name, value in (backgrounds or {}).items()}
    tracker.log_metrics(run, epoch, values, model, dataset)
    tracker.log_json(run, report.public(), "evaluation.json")


def log_checkpoint(tracker: Tracker, config: SweepConfig, record: Mapping[str, Any], splits: Splits) -> str:
    """Log the encoder of a trial's checkpoint as a model of the trial's run, with the metrics of its last epoch; give
    the model's id. The metrics are linked to the dataset that they were measured on.

    Args:
        config: with the trial's values.
        record: a `TrialRecord` as plain values.
    """
    run, epoch, searched = record["run_id"], record["epochs"], record["params"]
    if known := logged_encoder(tracker, run, epoch):
        return known
    experiment = config.experiment
    encoder = load_trained(record["checkpoint"]).encoder
    tags = {
        **source("sweep"),
        "bgsweep.trial": record["id"],
        "bgsweep.digest": experiment.digest,
        "bgsweep.status": record["status"],
    }
    model = log_encoder(
        *(tracker, run, encoder, experiment.views.size, experiment.model_dump(mode="json"), epoch),
        name=f"encoder-{record['id']}",
        params=shown_parameters(experiment, searched),
        tags=tags,
    )
    validation = {name: value for name, value in record["metrics"].items() if validated(name)}
    training = {name: value for name, value in record["metrics"].items() if name not in validation}
    at = tracker.times(run).get(epoch)
    for split, metrics in (("validation", validation), ("train", training)):
        tracker.log_metrics(run, epoch, metrics, model, dataset_of(getattr(splits, split)), at)
    return model


def dataset_of(dataset: ImageDataset) -> tuple[str, str]:
    """Name and digest by which MLflow knows a dataset that `log_inputs` has logged."""
    return dataset.name, dataset_digest(dataset.digests())


def log_variants(tracker: Tracker, run: str, config: SweepConfig) -> None:
    """Log a sheet of the background variants of the test split, if there are masks."""
    splits = open_splits(config.experiment.data)
    if splits.test.has_masks and len(set(splits.test.labels.tolist())) > 1:
        variants = VariantSet(splits.test, splits.pools("test"), config.evaluate, config.experiment.views.size)
        tracker.log_image(run, variant_sheet(variants), "variants.png")


def registry_tags(config: SweepConfig, report: Report, lineage: dict[str, Any]) -> dict[str, Any]:
    """Tags of a registered version: lineage and main metrics, under their earlier and their present names."""
    numbers = {name.replace("/", "_"): value for name, value in report.unlabelled.items() if not name.endswith("_se")}
    for name, number in (("test_knn_top1", report.knn_top1), ("test_linear_top1", report.linear_top1)):
        numbers |= {} if number is None else {name: number}
    if report.backgrounds:
        numbers["test_bg_gap"] = report.backgrounds["bg_gap"]
    digests = open_splits(config.experiment.data).train.digests()
    return {
        **lineage,
        "digest": config.experiment.digest,
        **{f"{name}_digest": digest for name, digest in digests.items()},
        **{name: f"{value:.4f}" for name, value in with_new_names(numbers).items()},
    }
