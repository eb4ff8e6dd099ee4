"""What an MLflow run says of its inputs and of its encoder, besides parameters and curves."""

from typing import Any

from bgsweep.augment.views import ViewPipeline
from bgsweep.config import SweepFile
from bgsweep.data import open_splits
from bgsweep.evaluation import Report, variant_sheet
from bgsweep.preview import views_picture
from bgsweep.tracking import Tracker

PICTURED_IMAGES = 6


def log_inputs(tracker: Tracker, run: str, file: SweepFile) -> None:
    """Data and mask digests, the augmentation policy as Albumentations writes it, and a picture of the first views."""
    experiment = file.experiment
    splits = open_splits(experiment.data)
    for context, source in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        tracker.log_dataset(run, context, source.name, source.digests(), len(source))
    tracker.log_json(run, ViewPipeline(experiment.views, experiment.background).policy(), "augmentation.json")
    tracker.log_image(run, views_picture(file, splits, min(PICTURED_IMAGES, len(splits.train))), "views.png")


def log_report(tracker: Tracker, run: str, report: Report, epoch: int) -> None:
    """The final evaluation: its values as metrics under ``test/``, and all of it with its protocol as a file."""
    values = {"test/knn_top1": report.knn_top1, "test/linear_top1": report.linear_top1}
    values |= {f"test/knn/{name}": value for name, value in report.backgrounds.items()}
    values |= {f"test/linear/{name}": value for name, value in report.backgrounds_linear.items()}
    tracker.log_metrics(run, epoch, values)
    tracker.log_json(run, report.public(), "evaluation.json")


def log_variants(tracker: Tracker, run: str, file: SweepFile) -> None:
    """A picture of the background variants that the report's numbers are of."""
    from bgsweep.evaluation import Bench

    splits = open_splits(file.experiment.data)
    bench = Bench(lambda images: images, splits, file.evaluate, file.experiment.views.size, "test")
    tracker.log_image(run, variant_sheet(bench.variants()), "variants.png")


def registry_tags(file: SweepFile, report: Report, lineage: dict[str, Any]) -> dict[str, Any]:
    """What a registered version says of itself: where it came from, and its key numbers."""
    return {
        **lineage,
        "digest": file.experiment.digest,
        "test_knn_top1": f"{report.knn_top1:.4f}",
        "test_linear_top1": f"{report.linear_top1:.4f}",
        "test_bg_gap": f"{report.backgrounds['bg_gap']:.4f}",
    }
