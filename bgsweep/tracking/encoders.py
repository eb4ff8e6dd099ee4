"""Load encoders by name: bgsweep checkpoints, MLflow models, and published weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bgsweep.config import Experiment
from bgsweep.errors import UserError
from bgsweep.models import ImageEncoder, build_encoder
from bgsweep.models.pretrained import load_pretrained
from bgsweep.tracking.client import tracking_uri
from bgsweep.tracking.models import fetch_encoder
from bgsweep.training.checkpoint import load_trained

_MLFLOW = ("models:/", "runs:/", "mlflow-artifacts:/")


@dataclass(frozen=True)
class Loaded:
    """An encoder, its ImageNet classifier if it has one, its origin, and its experiment if bgsweep trained it."""

    encoder: ImageEncoder
    head: nn.Linear | None
    origin: dict[str, Any]
    experiment: Experiment | None = None
    model_id: str | None = None
    """Id of the logged model in MLflow."""


def load_model(model: str, size: int, store: Path) -> Loaded:
    """Load a model by name, in eval mode on the CPU.

    Raises:
        UserError: there is no such model, or its weights do not fit the network.
    """
    if model.startswith(_MLFLOW):
        return from_mlflow(model, tracking_uri(store))
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


def from_mlflow(uri: str, address: str) -> Loaded:
    """Load an encoder that bgsweep logged or registered at an MLflow tracking URI; raises as `load_model`."""
    weights, description, model_id = fetch_encoder(uri, address)
    experiment = Experiment.model_validate(description)
    encoder = build_encoder(experiment.encoder, [experiment.views.size])
    encoder.load_state_dict(weights)
    encoder.eval().requires_grad_(False)
    return Loaded(encoder, None, {"weights": uri, **_origin(experiment)}, experiment, model_id)


def _origin(experiment: Experiment) -> dict[str, Any]:
    return {"network": experiment.encoder.name, "method": experiment.method.name, "digest": experiment.digest}
