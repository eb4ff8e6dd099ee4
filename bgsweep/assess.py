"""From a model's name and a suite's name to numbers with their protocols: what `bgsweep evaluate --suite` does."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bgsweep.config import Experiment, SuiteFile, load_suite
from bgsweep.data import open_splits
from bgsweep.errors import UserError
from bgsweep.evaluation.catalogue import Result, examine, names_of
from bgsweep.evaluation.examination import Examination
from bgsweep.evaluation.interval import paired
from bgsweep.evaluation.subject import Subject
from bgsweep.models import ImageEncoder, build_encoder
from bgsweep.models.pretrained import load_pretrained
from bgsweep.run import load_trained
from bgsweep.tracking import tracking_uri
from bgsweep.training.encode import encode_with

_MLFLOW = ("models:/", "runs:/", "mlflow-artifacts:/")


@dataclass(frozen=True)
class Loaded:
    """An encoder, its own classifier of ImageNet's classes, its origin, and the experiment that it came from."""

    encoder: ImageEncoder
    head: nn.Linear | None
    origin: dict[str, Any]
    experiment: Experiment | None = None


def assess(model: str, suite: str, data: Path | None, store: Path) -> dict[str, Any]:
    """Run a suite on a model.

    Args:
        model: a bgsweep checkpoint, an MLflow model URI, or what `load_pretrained` takes.
        suite: `quick`, `paper`, or names of evaluators with commas.
        data: a suite's YAML file; None takes the photographs that the model was trained on.
        store: folder of the local MLflow store.

    Returns:
        ``model``, ``origin`` and ``results``: for each evaluator its ``values`` and its ``protocol``.

    Raises:
        UserError: the model cannot be loaded, or a set that the suite needs is missing.
    """
    origin, results = measure(model, names_of(suite), None if data is None else load_suite(data), store)
    return {"model": model, "origin": origin, "results": {one.evaluator: public(one) for one in results}}


def compare(models: Sequence[str], suite: str, data: Path | None, store: Path) -> dict[str, Any]:
    """Run a suite on several models and compare each with the first, picture by picture.

    Returns:
        ``models`` with their origins, ``protocols`` of the first, and ``rows``: evaluator, name, the models' values,
        and for each model but the first the difference with its 95 % interval and whether that leaves zero out.

    Raises:
        UserError: as `assess`; fewer than two models; models that were not measured on the same pictures.
    """
    if len(models) < 2:
        raise UserError("compare: name at least two models")
    names, file = names_of(suite), None if data is None else load_suite(data)
    if file is None:
        # Each model's own photographs would be no common ground.
        file = _completed(None, load_model(models[0], 224, store))
    measured = [measure(model, names, file, store) for model in models]
    (_, first), *others = measured
    return {
        "models": [{"model": model, "origin": origin} for model, (origin, _) in zip(models, measured, strict=True)],
        "rows": _rows(first, [results for _, results in others], file),
        "bootstrap": f"{file.bootstrap} paired resamplings of the pictures, 95 % percentile intervals",
        "protocols": {one.evaluator: one.protocol for one in first},
    }


def _rows(first: list[Result], others: list[list[Result]], file: SuiteFile) -> list[dict[str, Any]]:
    rows = []
    for place, result in enumerate(first):
        for number, value in enumerate(result.values):
            rest = [results[place].values[number] for results in others]
            if any(len(one.hits) != len(value.hits) for one in rest):
                raise UserError(f"{result.evaluator}: the models were measured on different pictures; give --data")
            differences = [paired(value, one, file.bootstrap, file.evaluate.seed) for one in rest]
            rows.append(
                {
                    "evaluator": result.evaluator,
                    "name": value.name,
                    "values": [value.value, *(one.value for one in rest)],
                    "differences": [asdict(one) | {"significant": one.significant} for one in differences],
                }
            )
    return rows


def measure(
    model: str, names: Sequence[str], file: SuiteFile | None, store: Path
) -> tuple[dict[str, Any], list[Result]]:
    """Load a model and measure it; its origin, and what each evaluator found."""
    wanted = file.pictures.crop if file else 224
    loaded = load_model(model, wanted, store)
    file = _completed(file, loaded)
    subject = subject_of(loaded, file.device)
    splits = None if file.data is None else open_splits(file.data)
    results = examine(Examination(subject, file, splits), names, lambda line: print(line, file=sys.stderr, flush=True))
    return loaded.origin, results


def public(result: Result) -> dict[str, Any]:
    """A result as JSON."""
    return {"values": {one.name: one.value for one in result.values}, "protocol": result.protocol}


def load_model(model: str, size: int, store: Path) -> Loaded:
    """Load what a model's name stands for, in eval mode on the CPU.

    Raises:
        UserError: there is no such model, or its weights do not fit.
    """
    if model.startswith(_MLFLOW):
        return _from_mlflow(model, tracking_uri(store))
    if Path(model).exists():
        trained = load_trained(Path(model))
        return Loaded(trained.encoder, None, {"weights": model, **_origin(trained.experiment)}, trained.experiment)
    if "=" not in model and not model.startswith(("torchvision:", "timm:")):
        raise UserError(
            f"{model}: no such checkpoint; give a checkpoint, an MLflow URI (models:/NAME@ALIAS), torchvision:NAME, "
            "timm:NAME, or weights with their network (resnet50=FILE)"
        )
    found = load_pretrained(model, size)
    return Loaded(found.encoder, found.head, {"network": model.partition("=")[0], "weights": found.weights})


def subject_of(loaded: Loaded, device: str) -> Subject:
    """The encoder on its device, as evaluators take it.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda was asked for, but torch sees no GPU here; use cpu or auto")
    place = torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")
    encoder = loaded.encoder.to(place)
    return Subject(encode_with(encoder, place), encoder, place, loaded.head, loaded.origin)


def _from_mlflow(uri: str, address: str) -> Loaded:
    from bgsweep.export import fetch_encoder

    weights, description = fetch_encoder(uri, address)
    experiment = Experiment.model_validate(description)
    encoder = build_encoder(experiment.encoder, [experiment.views.size])
    encoder.load_state_dict(weights)
    encoder.eval().requires_grad_(False)
    return Loaded(encoder, None, {"weights": uri, **_origin(experiment)}, experiment)


def _origin(experiment: Experiment) -> dict[str, Any]:
    return {"network": experiment.encoder.name, "method": experiment.method.name, "digest": experiment.digest}


def _completed(file: SuiteFile | None, loaded: Loaded) -> SuiteFile:
    """The suite's file; what it does not say of photographs is as in the model's own experiment."""
    if file is not None and (file.data is not None or loaded.experiment is None):
        return file
    if loaded.experiment is None:
        raise UserError("--data: name a YAML file that says which photographs to evaluate on")
    own = {"data": loaded.experiment.data, "size": loaded.experiment.views.size}
    return (file or SuiteFile()).model_copy(update=own)
