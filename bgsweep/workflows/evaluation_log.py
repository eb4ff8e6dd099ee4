"""The MLflow run of a suite: opened before anything is measured, it gets each result as it comes."""

from pathlib import Path
from typing import Any

from bgsweep.config.metric_names import metric_name
from bgsweep.data import Image
from bgsweep.evaluation.contact_sheet import variant_sheet
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import Result
from bgsweep.evaluation.evaluators.imagenet9 import release_sheet
from bgsweep.evaluation.kept import key_of
from bgsweep.storage.hashing import digest
from bgsweep.tracking import Tracker
from bgsweep.tracking.datasets import dataset_digest
from bgsweep.tracking.encoders import Loaded
from bgsweep.tracking.kept_run import kept_run


class EvaluationLog:
    """One model's run; a later call with the same weights, images and settings goes on with it."""

    def __init__(self, tracker: Tracker, model: str, loaded: Loaded) -> None:
        self._tracker, self._model, self._loaded = tracker, model, loaded
        self.run = ""
        self._sets: set[tuple[str, str]] = set()
        self._files: set[str] = set()

    def open_run(self, folder: Path | None) -> None:
        """Open the run, or reopen that of an earlier call, which the folder of its results names, if there is one."""
        if self.run:
            return
        tracker, params = self._tracker, {"model": self._model, **self._loaded.origin}

        def begin() -> str:
            return tracker.evaluation_run(f"evaluate {Path(self._model).name}", params)

        file = None if folder is None else folder / f"mlflow-{key_of(**params)}.json"
        self.run = kept_run(tracker, file, begin)
        self._files = {one.path for one in tracker.ask(lambda: tracker.client.list_artifacts(self.run))}
        inputs = tracker.ask(lambda: tracker.client.get_run(self.run)).inputs
        self._sets = {(one.dataset.name, one.dataset.digest) for one in inputs.dataset_inputs}

    def log(self, context: EvalContext, result: Result) -> None:
        """Queue an evaluator's values, tied to its images; by their time, what the run has is not added again."""
        name, digests, count = _set_of(context, result)
        of = (name, dataset_digest(digests))
        if of not in self._sets:
            self._sets.add(of)
            self._tracker.log_dataset(self.run, "test", name, digests, count)
        values = {metric_name(result.evaluator, value.name): value.value for value in result.values}
        values |= {f"{result.evaluator}/{value.name}": value.value for value in result.values}  # the names of before
        self._tracker.log_metrics(self.run, 0, values, self._loaded.model_id, of, at=result.at)
        file = _SHEETS.get(result.evaluator)
        if file is not None and file not in self._files:
            self._tracker.log_image(self.run, _sheet(context, result), file)

    def finish(self, record: dict[str, Any], failed: bool) -> None:
        """Queue all results, and the run's end."""
        self._tracker.log_json(self.run, record, "evaluation.json")
        self._tracker.finish(self.run, "FAILED" if failed else "FINISHED")


_SHEETS = {"imagenet9": "imagenet9.png", "backgrounds": "variants.png"}


def _sheet(context: EvalContext, result: Result) -> Image:
    values = {value.name: value.value for value in result.values}
    if result.evaluator == "imagenet9":
        return release_sheet(result.listings, values)
    accuracy = {name.removeprefix("linear/"): value for name, value in values.items() if "linear/" in name}
    return variant_sheet(context.features.variants(), accuracy=accuracy)


def _set_of(context: EvalContext, result: Result) -> tuple[str, dict[str, str], int]:
    """Name, digests and size of the images: published ones under their evaluator's name, the user's under its own."""
    if result.listings:
        parts = result.listings
        whole = digest([part.name for part in parts], [part.digest().encode() for part in parts])
        return result.evaluator, {"images": whole}, sum(map(len, parts))
    assert context.splits is not None, "values without published images are of the user's"
    source = context.splits.test
    return source.name, source.digests(), len(source)
