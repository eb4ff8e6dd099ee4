"""The registered encoder, as somebody without bgsweep meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from bgsweep.config import SweepConfig
from bgsweep.errors import UserError
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.client import as_global_uri
from bgsweep.tracking.models import fetch_encoder, log_encoder
from bgsweep.tracking.registry import add_version, give_alias, version_of

# A stranger's process: no bgsweep to import, no pickle to run, and (as far as MLflow can see) a GPU in the machine.
STRANGER = """
import sys

class NoBgsweep:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bgsweep":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoBgsweep())
import mlflow, numpy, torch
torch.cuda.is_available = lambda: True
model = mlflow.pyfunc.load_model("models:/probe@champion")
images = numpy.load(sys.argv[1])
numpy.savez(sys.argv[2], **{name: model.predict(images[name]) for name in images.files})
assert not [name for name in sys.modules if name.startswith("bgsweep")]
"""


class Normalized(nn.Module):
    """torchvision's ResNet-18 with its normalisation, and with statistics that training would have left."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18()
        self.backbone.fc = nn.Identity()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone((images - self.mean) / 0.225)
        return features


@pytest.fixture(scope="module")
def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Normalized().eval()


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, encoder: nn.Module) -> tuple[Tracker, str, str]:
    """Tracker, run and model of an encoder that was handed over in training mode, channels last."""
    store = tmp_path_factory.mktemp("store")
    given = Normalized().to(memory_format=torch.channels_last).train()
    given.load_state_dict(encoder.state_dict())
    with Tracker(f"sqlite:///{store / 'mlflow.db'}") as tracker:
        run = tracker.pretrain_run("one", SweepConfig())
        model = log_encoder(tracker, run, given, 64, {"encoder": {"name": "resnet18"}}, step=3)
        assert given.training
        assert add_version(tracker, run, model, "probe", {"knn_top1": 0.5}) == 1
        give_alias(tracker, "probe", 1, "champion")
    return tracker, run, model


def test_stranger_gets_the_same_embeddings_for_any_batch_and_size(
    registered: tuple[Tracker, str, str], encoder: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, _, _ = registered
    shapes = [(1, 3, 64, 64), (5, 3, 64, 64), (1, 3, 32, 32), (3, 3, 32, 32), (2, 3, 48, 64), (1, 3, 97, 33)]
    random = np.random.default_rng(0)
    images = {str(shape): random.random(shape, np.float32) for shape in shapes}
    np.savez(tmp_path / "images.npz", **images)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.address)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = [sys.executable, "-c", STRANGER, "images.npz", "features.npz"]
    stranger = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert stranger.returncode == 0, stranger.stderr
    features = np.load(tmp_path / "features.npz")
    for name, batch in images.items():
        with torch.inference_mode():
            expected = encoder(torch.from_numpy(batch)).numpy()
        assert features[name].dtype == np.float32
        np.testing.assert_allclose(features[name], expected, rtol=1e-4, atol=1e-5)


def test_weights_beside_the_program_are_the_encoders(
    registered: tuple[Tracker, str, str], encoder: nn.Module, tmp_path: Path
) -> None:
    import mlflow.artifacts

    tracker, _, model = registered
    with as_global_uri(tracker.address):
        place = mlflow.artifacts.download_artifacts(f"models:/{model}", dst_path=str(tmp_path))
    fresh = Normalized()
    fresh.load_state_dict(load_file(Path(place, "encoder.safetensors")))
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(fresh.eval()(images), encoder(images))
    description = json.loads(Path(place, "encoder.json").read_text(encoding="utf-8"))
    assert description == {"encoder": {"name": "resnet18"}}
    requirements = Path(place, "requirements.txt").read_text(encoding="utf-8").split()
    assert [line.partition("==")[0] for line in requirements] == ["mlflow", "torch", "numpy"]


def test_version_says_where_it_came_from_and_the_alias_moves(registered: tuple[Tracker, str, str]) -> None:
    tracker, run, model = registered
    version = tracker.client.get_model_version_by_alias("probe", "champion")
    assert (version.run_id, version.source, version.tags) == (run, f"models:/{model}", {"knn_top1": "0.5"})
    logged = tracker.client.get_logged_model(model)
    assert (str(logged.status), logged.source_run_id) == ("READY", run)
    assert [(output.model_id, output.step) for output in tracker.client.get_run(run).outputs.model_outputs] == [
        (model, 3)
    ]
    assert version_of(tracker, run, "probe") == 1 and version_of(tracker, run, "unheard_of") is None
    assert add_version(tracker, run, model, "probe", {}) == 2
    give_alias(tracker, "probe", 2, "champion")
    assert int(tracker.client.get_model_version_by_alias("probe", "champion").version) == 2


def test_encoder_that_cannot_be_exported_leaves_no_model_that_looks_ready(
    registered: tuple[Tracker, str, str],
) -> None:
    class Wordy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) if images.sum().item() > 1 else images.flatten(2).mean(2)

    tracker, run, _ = registered
    with pytest.raises(Exception, match=r"data-dependent|guard"):
        log_encoder(tracker, run, Wordy(), 32, {})
    models = tracker.client.search_logged_models([tracker.experiment_id])
    assert sorted(str(model.status) for model in models) == ["FAILED", "READY"]


@pytest.mark.parametrize("own", [None, "sqlite:///own.db"])
def test_neither_a_registration_nor_a_load_redirects_what_comes_after(
    registered: tuple[Tracker, str, str], own: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if own is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", own)
    tracker, run, model = registered
    before = mlflow.get_tracking_uri(), tracking_uri(tmp_path)
    add_version(tracker, run, model, "another", {})
    weights, _, found = fetch_encoder("models:/another/1", tracker.address)
    assert weights and found == model
    with pytest.raises(UserError, match="does not give it"):
        fetch_encoder("models:/none@champion", tracker.address)
    assert (mlflow.get_tracking_uri(), tracking_uri(tmp_path)) == before
    assert os.environ.get("MLFLOW_TRACKING_URI") == own


def test_a_load_leaves_the_address_that_a_program_has_given_mlflow(
    registered: tuple[Tracker, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///earlier.db")
    own = f"sqlite:///{tmp_path / 'own.db'}"
    mlflow.set_tracking_uri(own)
    try:
        tracker, _, model = registered
        assert fetch_encoder(f"models:/{model}", tracker.address)[2] == model
        assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == own
    finally:
        mlflow.set_tracking_uri(None)
