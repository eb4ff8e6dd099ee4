"""Load encoders by name: bgsweep checkpoints, MLflow models, and published weights; keep those that runs start from."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bgsweep.config import Experiment, Preprocessing
from bgsweep.errors import UserError
from bgsweep.models import ImageEncoder, build_encoder
from bgsweep.models.exported import is_export, load_exported
from bgsweep.models.onnx_encoder import load_onnx
from bgsweep.models.pretrained import load_pretrained
from bgsweep.storage.layout import weights_folder
from bgsweep.storage.uri import Uri, is_remote, upload
from bgsweep.tracking.client import tracking_uri
from bgsweep.tracking.models import fetch_encoder
from bgsweep.training.checkpoint import load_trained
from bgsweep.training.initial_weights import (
    MLFLOW,
    TENSORS,
    fitted,
    has_weights,
    initial_weights,
    state_digest,
    write_weights,
)


@dataclass(frozen=True)
class Loaded:
    """An encoder, its ImageNet classifier if it has one, its origin, and its experiment if bgsweep trained it."""

    encoder: ImageEncoder
    head: nn.Linear | None
    origin: dict[str, Any]
    experiment: Experiment | None = None
    model_id: str | None = None
    """Id of the logged model in MLflow."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of a checkpoint: the last values that its training reported."""
    about: dict[str, Any] = field(default_factory=dict)
    """Of a folder that `bgsweep export` wrote: its description."""

    preprocessing: Preprocessing | None = None
    """Crop and interpolation that timm has for the model."""

    @property
    def size(self) -> int | None:
        """Side in pixels of the images that it was trained on; None where that is not known."""
        if self.experiment is not None:
            return self.experiment.views.size
        return int(self.about["preprocessing"]["size"]) if self.about else None


def load_model(model: str, size: int, store: Uri) -> Loaded:
    """Load a model by name, in eval mode on the CPU.

    Raises:
        UserError: there is no such model, or its weights do not fit the network.
    """
    if model.startswith(MLFLOW):
        return from_mlflow(model, tracking_uri(store))
    if is_export(Path(model)):
        onnx = Path(model) / "encoder.onnx"
        return _from_onnx(onnx, None) if onnx.is_file() else _from_export(model)
    if model.startswith(("onnx:", "onnx-unit:")):
        form, _, file = model.partition(":")
        return _from_onnx(Path(file), True if form == "onnx-unit" else None)
    in_a_store = is_remote(model) and "=" not in model.partition("://")[0]
    if in_a_store or Path(model).exists():
        trained = load_trained(model)
        origin = {"weights": model, **_origin(trained.experiment)}
        return Loaded(trained.encoder, None, origin, trained.experiment, metrics=trained.metrics)
    if "=" not in model and not model.startswith(("torchvision:", "timm:", "hf:")):
        raise UserError(
            f"{model}: no such checkpoint; give a checkpoint, an MLflow URI (models:/NAME@ALIAS), torchvision:NAME, "
            "timm:NAME, hf:ID, onnx:FILE, a folder of `bgsweep export`, or weights with their network (resnet50=FILE)"
        )
    found = load_pretrained(model, size)
    origin = {"network": model.partition("=")[0], "weights": found.weights}
    return Loaded(found.encoder, found.head, origin, preprocessing=found.preprocessing)


def _from_onnx(file: Path, unit: bool | None) -> Loaded:
    encoder, head, words, side = load_onnx(file, unit)
    about = {} if side is None else {"preprocessing": {"size": side}}
    return Loaded(encoder, head, {"network": "onnx", "weights": words}, about=about)


def _from_export(folder: str) -> Loaded:
    found = load_exported(Path(folder))
    trained = {"method": found.about.get("experiment", {}).get("method", {}).get("name")}
    trained["digest"] = found.about.get("lineage", {}).get("digest")
    known = {key: value for key, value in trained.items() if value}
    return Loaded(found.encoder, None, {"weights": folder, "network": found.config.name, **known}, about=found.about)


def from_mlflow(uri: str, address: str) -> Loaded:
    """Load an encoder that bgsweep logged or registered at an MLflow tracking URI; raises as `load_model`."""
    weights, description, model_id = fetch_encoder(uri, address)
    experiment = Experiment.model_validate(description)
    encoder = build_encoder(experiment.encoder, [experiment.views.size])
    encoder.load_state_dict(weights)
    encoder.eval().requires_grad_(False)
    return Loaded(encoder, None, {"weights": uri, **_origin(experiment)}, experiment, model_id)


def with_kept_weights(experiment: Experiment, store: Uri, address: str) -> Experiment:
    """The experiment with its `encoder.weights`, if any, read once and kept in the store, and with their digest.

    All workers and trials, and runs that are resumed, then start from the same weights, whatever becomes of their
    origin.

    Args:
        address: MLflow tracking URI.

    Raises:
        UserError: there are no such weights, they do not fit the encoder, or have another digest than was asked for.
    """
    source, pinned = experiment.encoder.weights, experiment.encoder.weights_digest
    if source is None:
        return experiment
    if pinned is None or not has_weights(weights_folder(store, pinned)):
        if source.startswith(MLFLOW):
            tensors, description, _ = fetch_encoder(source, address)
            state = fitted(tensors, experiment, Experiment.model_validate(description).encoder)
        else:
            state = initial_weights(experiment)
        digest = state_digest(state)
        if pinned not in (None, digest):
            raise UserError(
                f"encoder.weights: {source} has the digest {digest}, not encoder.weights_digest: {pinned}; "
                "leave the digest out, or name the weights that have it"
            )
        pinned = digest
        if not has_weights(folder := weights_folder(store, digest)):
            network = experiment.encoder.model_dump(include={"name", "width", "stem"})
            _keep(folder, state, {"source": source, "digest": digest, "encoder": network})
    return experiment.with_values(
        {"encoder.weights": str(weights_folder(store, pinned)), "encoder.weights_digest": pinned}
    )


def _keep(folder: Uri, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    if not is_remote(folder):
        write_weights(Path(folder), state, about)
        return
    with tempfile.TemporaryDirectory() as made:
        write_weights(Path(made), state, about)
        upload(Path(made), folder, last=TENSORS)


def _origin(experiment: Experiment) -> dict[str, Any]:
    return {"network": experiment.encoder.name, "method": experiment.method.name, "digest": experiment.digest}
