"""Encoders as MLflow models: an exported program that runs without bgsweep, and weights for fine-tuning."""

import copy
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config

from bgsweep.errors import UserError, one_line, without_password
from bgsweep.tracking import Tracker
from bgsweep.tracking.client import as_global_uri, quiet_mlflow
from bgsweep.tracking.parameters import parameter_texts


def log_encoder(
    tracker: Tracker,
    run: str,
    encoder: nn.Module,
    size: int,
    description: Mapping[str, Any],
    step: int = 0,
    name: str = "encoder",
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log an encoder as an MLflow model of a run; returns the model's id.

    The model is a torch.export program without pickle: float32 images (N, 3, H, W) in [0, 1], any N, H and W, to
    float32 features (N, D). It always runs on the CPU, since an exported program cannot change its device. The
    weights are saved beside it as ``encoder.safetensors``, for fine-tuning on any device, with ``encoder.json``.

    Args:
        encoder: unchanged; it normalises its inputs itself.
        size: height and width in pixels of the example for the export; any that the network accepts.
        description: written to ``encoder.json``: the network's configuration and training data.
        step: epoch of the checkpoint.
        name: in MLflow's list of models.
        params: settings that the model is compared by in MLflow.
        tags: of the model.
    """
    from mlflow.entities import LoggedModelOutput

    encoder = copy.deepcopy(encoder).cpu().float().eval().to(memory_format=torch.contiguous_format)
    tracker.flush()
    client, ask = tracker.client, tracker.ask
    told: dict[str, Any] = {"params": parameter_texts(params or {}), "tags": dict(tags or {})}
    model = ask(
        lambda: client.create_logged_model(tracker.experiment_id, name, source_run_id=run, model_type="encoder", **told)
    )
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "model")
            _save_program(encoder, size, folder, run, model.model_id)
            _save_weights(encoder, description, folder)
            ask(lambda: client.log_model_artifacts(model.model_id, str(folder)))
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    ask(lambda: client.finalize_logged_model(model.model_id, "READY"))
    ask(lambda: client.log_outputs(run, [LoggedModelOutput(model.model_id, step)]))
    found: str = model.model_id
    return found


def logged_encoder(tracker: Tracker, run: str, step: int) -> str | None:
    """Id of the encoder that a run has already logged at an epoch, if any."""

    def find() -> str | None:
        outputs = tracker.client.get_run(run).outputs
        for output in outputs.model_outputs if outputs else ():
            if output.step == step and str(tracker.client.get_logged_model(output.model_id).status) == "READY":
                return str(output.model_id)
        return None

    return tracker.ask(find)


def check_exportable(encoder: nn.Module, size: int) -> None:
    """Raise UserError where `log_encoder` would fail to export an encoder; an untrained one shows it in a second."""
    shape = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    try:
        with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]  # made at import
            torch.export.export(encoder.cpu().eval(), (torch.zeros(2, 3, size, size),), dynamic_shapes=(shape,))
    except Exception as error:  # torch.export hands on whatever the network's own code raises
        reason = f"torch.export cannot make the program of it that is registered: {one_line(error)[:300]}"
        raise UserError(f"encoder.name: {reason}; choose another network") from error


def fetch_encoder(uri: str, address: str) -> tuple[dict[str, Tensor], dict[str, Any], str | None]:
    """Weights, description and model id of a logged or registered encoder, e.g. ``models:/NAME@ALIAS``.

    Args:
        address: MLflow tracking URI.

    Raises:
        UserError: MLflow has no such model, or it is not one of bgsweep's.
    """
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    quiet_mlflow()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with as_global_uri(address):  # MLflow resolves names and ids of models there, whatever it is given
                folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=temporary, tracking_uri=address))
        except (MlflowException, OSError) as error:
            raise UserError(
                f"{uri}: MLflow at {without_password(address)} does not give it ({one_line(error)}); check the name, "
                "or set MLFLOW_TRACKING_URI"
            ) from error
        if not (folder / "encoder.safetensors").exists():
            raise UserError(f"{uri}: a model without encoder.safetensors; only encoders that bgsweep logged are read")
        description = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        try:
            weights = load_file(folder / "encoder.safetensors")
        except SafetensorError as error:
            raise UserError(
                f"{uri}: its encoder.safetensors is damaged, or something else under that name; "
                "restore the store's artifacts"
            ) from error
        return weights, description, Model.load(str(folder)).model_id


def _save_program(encoder: nn.Module, size: int, folder: Path, run: str, model: str) -> None:
    import mlflow.pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Two images: torch.export treats a dimension of size one as a constant.
    example = np.zeros((2, 3, size, size), np.float32)
    with torch.inference_mode():
        features = encoder(torch.from_numpy(example)).shape[1]
    signature = ModelSignature(
        Schema([TensorSpec(example.dtype, (-1, 3, -1, -1))]), Schema([TensorSpec(example.dtype, (-1, features))])
    )
    # Without this option the program rejects images so small that a feature map is one pixel wide; with it, some
    # networks other than ResNets (ConvNeXt, ViT) reject a batch of one, which is worse.
    for any_size in (True, False):
        described = Model(run_id=run, model_uuid=model, model_id=model)
        with _config.patch(backed_size_oblivious=any_size):  # type: ignore[attr-defined]  # created at import
            mlflow.pytorch.save_model(
                encoder,
                str(folder),
                mlflow_model=described,
                signature=signature,
                input_example=example,
                serialization_format="pt2",
                pip_requirements=_requirements(),
            )
        if any_size and not _takes_one_image(folder, size):
            shutil.rmtree(folder)
        else:
            break
    # On a machine with a GPU, MLflow would expect the program there and reject it for being on the CPU.
    described.flavors["python_function"]["config"]["device"] = "cpu"
    described.save(str(folder / "MLmodel"))


def _requirements() -> list[str]:
    """The packages that the model needs; MLflow would load the model to find them (8 to 13 s instead of 2.5 s)."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", "torch", "numpy")]


def _takes_one_image(folder: Path, size: int) -> bool:
    program = torch.export.load(folder / "data" / "model.pt2").module()
    try:
        program(torch.zeros(1, 3, size, size))
    except AssertionError:  # one of the program's guards
        return False
    return True


def _save_weights(encoder: nn.Module, description: Mapping[str, Any], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(encoder.state_dict(), folder / "encoder.safetensors")
    (folder / "encoder.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
