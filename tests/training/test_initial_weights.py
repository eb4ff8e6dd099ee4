"""Runs that start from the weights of another encoder."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor
from torchvision import models

from bgsweep.config import Experiment, load, resolve
from bgsweep.config.methods import METHODS
from bgsweep.config.resuming import decisive
from bgsweep.errors import UserError
from bgsweep.storage.layout import CHECKPOINT_FILE
from bgsweep.storage.uri import filesystem, list_remote
from bgsweep.tracking.encoders import with_kept_weights
from bgsweep.training import load_checkpoint
from bgsweep.training.build import initial_method
from bgsweep.training.checkpoint import load_trained, untrained
from bgsweep.training.initial_weights import initial_weights, origin_of, state_digest
from bgsweep.training.run import Run
from tests.command import bgsweep
from tests.servers import model_hub

TINY = Path(__file__).parents[1] / "tiny.yaml"
RESNET18 = ["encoder={name: resnet18}", "views.size=32"]
State = dict[str, Tensor]


def resnet18() -> State:
    torch.manual_seed(7)
    network = models.resnet18()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return network.state_dict()


def body(state: State, prefix: str = "") -> State:
    return {prefix + key: value for key, value in state.items() if not key.startswith("fc.")}


def experiment(weights: object, *overrides: str) -> Experiment:
    return load(TINY, [*overrides, f"encoder.weights={weights}"]).experiment


def trained(folder: Path, *overrides: str) -> State:
    """The encoder of a checkpoint after an epoch, which is written into a folder."""
    run = Run(load(TINY, list(overrides)))
    run.training.step_epoch()
    run.save(folder)
    return run.training.method.encoder.state_dict()


def assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


FILES: dict[str, Callable[[State, Path], str]] = {
    "torchvision's state": lambda state, folder: _saved(state, folder / "weights.pth"),
    "MoCo's checkpoint": lambda state, folder: _saved(
        {"state_dict": body(state, "module.encoder_q.")}, folder / "weights.pth.tar"
    ),
    "safetensors": lambda state, folder: _safe(body(state), folder / "weights.safetensors"),
    "torchvision's download": lambda state, folder: _saved(state, folder / "hub/checkpoints/resnet18-f37072fd.pth"),
}


def _saved(content: Any, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return "torchvision:resnet18" if "hub" in path.parts else str(path)


def _safe(state: State, path: Path) -> str:
    save_file(state, path)
    return str(path)


@pytest.mark.parametrize("kind", FILES)
def test_weights_of_other_programs_are_what_training_starts_from(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where torchvision keeps what it has downloaded
    state = resnet18()
    found = initial_method(experiment(FILES[kind](state, tmp_path), *RESNET18), classes=10)
    assert_same(found.encoder.backbone.state_dict(), body(state))


@pytest.mark.parametrize("method", list(METHODS))
def test_each_method_and_its_second_network_start_from_a_checkpoint_of_any_method(method: str, tmp_path: Path) -> None:
    expected = trained(tmp_path)
    small = ["method={name: " + method + "}", "background={remove: 0, random: 0}"]
    if method == "moco_v2":
        small = []
    plain = initial_method(load(TINY, small).experiment, classes=10)
    for place in (tmp_path, tmp_path / CHECKPOINT_FILE):
        found = initial_method(experiment(place, *small), classes=10)
        assert_same(found.encoder.state_dict(), expected)
        second = {"moco_v2": "key_network.0", "byol": "target_network.0", "dino": "student_encoder"}.get(method)
        if second is not None:
            assert_same(found.get_submodule(second).state_dict(), expected)
        # All else is drawn from the seed as without weights.
        rest = {key for key in plain.state_dict() if "encoder." not in key and not key.startswith(f"{second}.")}
        assert rest or method == "supervised"
        assert_same({key: found.state_dict()[key] for key in rest}, {key: plain.state_dict()[key] for key in rest})


def test_position_embeddings_are_interpolated_to_the_views_size(tmp_path: Path) -> None:
    vit = ["encoder={name: vit_s_16}"]
    before = untrained(load(TINY, [*vit, "views.size=64"]).experiment).encoder
    save_file(before.backbone.state_dict(), tmp_path / "vit.safetensors")
    found = initial_method(experiment(tmp_path / "vit.safetensors", *vit, "views.size=64"), classes=1).encoder
    assert_same(found.state_dict(), before.state_dict())
    tree = load(TINY, [*vit, "views.size=64"]).experiment.model_dump()
    method = {f"encoder.{key}": value for key, value in before.state_dict().items()}
    torch.save({"experiment": tree, "method": method}, tmp_path / CHECKPOINT_FILE)
    larger = initial_method(experiment(tmp_path, *vit, "views.size=96"), classes=1).encoder.eval()
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(larger(images), before(images))  # which interpolates its own at each image


def test_weights_of_timm_are_downloaded_once_and_bring_their_normalisation_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a hub on this machine, and then, without a connection, from where timm keeps them."""
    import timm
    from huggingface_hub import constants

    made = timm.create_model("test_vit.r160_in1k")
    file = "timm/test_vit.r160_in1k/model.safetensors"
    vit = ["encoder={name: timm:test_vit}", "views.size=160"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with model_hub({file: save(made.state_dict())}) as (address, downloads):
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        for name in ("timm:test_vit.r160_in1k", "timm:test_vit"):
            encoder = initial_method(experiment(name, *vit), classes=1).encoder
        assert downloads == [file]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # else it is asked for again and again, for 15 s
    initial_method(experiment("timm:test_vit", *vit), classes=1)
    expected = {key: value for key, value in made.state_dict().items() if not key.startswith("head.")}
    assert_same(encoder.backbone.state_dict(), expected)
    assert encoder.mean.flatten().tolist() == pytest.approx(made.pretrained_cfg["mean"])
    with pytest.raises(UserError, match=r"backbone\.pos_embed has shape .*; change encoder or views\.size"):
        initial_weights(experiment("timm:test_vit", *vit, "views.size=64"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"timm:test_vit: its published weights cannot be downloaded \(.*name a file"):
        initial_weights(experiment("timm:test_vit", *vit))


def test_training_starts_from_a_checkpoint_in_a_bucket(tmp_path: Path, s3: Any) -> None:
    expected = trained(tmp_path)
    s3.upload_file(str(tmp_path / CHECKPOINT_FILE), "bucket", f"runs/pretrain/one/{CHECKPOINT_FILE}")
    kept = with_kept_weights(experiment("s3://bucket/runs/pretrain/one"), "s3://bucket/other", "")
    assert kept.encoder.weights == f"s3://bucket/other/weights/{state_digest(expected)}"
    s3.delete_object(Bucket="bucket", Key=f"runs/pretrain/one/{CHECKPOINT_FILE}")
    assert_same(initial_method(kept, classes=10).encoder.state_dict(), expected)
    assert origin_of(kept.encoder.weights or "")["source"] == "s3://bucket/runs/pretrain/one"
    with pytest.raises(UserError, match=r"^encoder\.weights: s3://bucket/runs/pretrain/one: no files found"):
        initial_weights(experiment("s3://bucket/runs/pretrain/one"))


def test_weights_of_which_a_bucket_got_a_part_are_uploaded_again(tmp_path: Path, policy: Callable[..., None]) -> None:
    expected = trained(tmp_path / "one")
    folder = f"weights/{state_digest(expected)}"

    def there() -> list[str]:
        uri = f"s3://bucket/{folder}"
        return [entry.name for entry in list_remote(uri, *filesystem(uri))]

    policy(f"{folder}/encoder.json")
    with pytest.raises(UserError, match=r"cannot be written"):
        with_kept_weights(experiment(tmp_path / "one"), "s3://bucket", "")
    assert there() == []  # the tensors, which say that all is there, are copied last
    policy(f"{folder}/encoder.safetensors")
    with pytest.raises(UserError, match=r"cannot be written"):
        with_kept_weights(experiment(tmp_path / "one"), "s3://bucket", "")
    assert there() == ["encoder.json"]
    policy()
    kept = with_kept_weights(experiment(tmp_path / "one"), "s3://bucket", "")
    assert_same(initial_method(kept, classes=10).encoder.state_dict(), expected)


REFUSED = {
    "no file": (lambda folder: "lost.pth", [], r"lost\.pth: no such file or folder; name a checkpoint"),
    "no checkpoint": (lambda folder: ".", [], r"\.: no checkpoint in this folder"),
    "a model of MLflow": (lambda folder: "models:/one@champion", [], "only `bgsweep pretrain` and `bgsweep sweep`"),
    "another network": (
        lambda folder: "torchvision:resnet18",
        [],
        r"torchvision:resnet18 is of \{name: resnet18\}, encoder is \{name: resnet10, width: 4, stem: small\}; set "
        r"encoder\.name=resnet18 encoder\.width=64 encoder\.stem=imagenet",
    ),
    "the small stem": (
        lambda folder: "torchvision:resnet18",
        ["encoder={name: resnet18, stem: small}"],
        r"encoder is \{name: resnet18, stem: small\}; set encoder\.stem=imagenet",
    ),
    "another width": (
        lambda folder: trained(folder) and "state.pt",
        ["encoder.width=8"],
        r"is of \{name: resnet10, width: 4, stem: small\}, .*; set encoder\.width=4$",
    ),
    "a file of another stem": (
        lambda folder: _saved(resnet18(), folder / "weights.pth"),
        ["encoder={name: resnet18, stem: small}"],
        r"conv1\.weight has shape \(64, 3, 7, 7\), .*; set encoder, which is \{name: resnet18, stem: small\}, to",
    ),
    "a file of another network": (
        lambda folder: _saved(resnet18(), folder / "weights.pth"),
        ["encoder={name: vit_s_16}"],
        r"none of its weights is called",
    ),
    "no weights": (lambda folder: _saved({"a": 1}, folder / "a.pth"), [], "it has no tensors"),
    "a damaged file": (
        lambda folder: str((folder / "a.pth").write_bytes(b"x") and folder / "a.pth"),
        [],
        r"encoder\.weights: .*not weights that can be read safely",
    ),
    "a damaged checkpoint": (
        lambda folder: _saved({"experiment": {}, "method": {}}, folder / "a.pth"),
        [],
        "not a checkpoint of this bgsweep",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_a_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, overrides, reason = REFUSED[case]
    with pytest.raises(UserError, match=reason) as refused:
        initial_weights(experiment(make(tmp_path), *overrides))
    assert str(refused.value).startswith("encoder.weights: ") and "\n" not in str(refused.value)


def test_weights_count_by_their_content_wherever_they_lie(tmp_path: Path) -> None:
    state = trained(tmp_path / "one")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "one" / CHECKPOINT_FILE).rename(tmp_path / "elsewhere" / "encoder.pt")
    plain = experiment(tmp_path / "elsewhere" / "encoder.pt")
    kept = with_kept_weights(plain, tmp_path / "store", "")
    assert kept.encoder.weights_digest == state_digest(state)
    assert_same(dict(initial_weights(kept)), state)
    assert origin_of(kept.encoder.weights or "")["source"] == str(tmp_path / "elsewhere" / "encoder.pt")
    # From another store, without the file: the digest alone counts, and other weights are refused.
    moved = kept.with_values({"encoder.weights": str(tmp_path / "old" / "store")})
    assert with_kept_weights(moved, tmp_path / "store", "") == kept and moved.digest == kept.digest
    assert not decisive(kept, moved) and decisive(kept, load(TINY).experiment)
    trained(tmp_path / "two", "seed=3")
    others = with_kept_weights(experiment(tmp_path / "two"), tmp_path / "store", "")
    assert others.digest != kept.digest and "encoder.weights_digest" in decisive(kept, others)
    pinned = experiment(tmp_path / "two").with_values({"encoder.weights_digest": "0" * 16})
    with pytest.raises(UserError, match=r"has the digest \w{16}, not encoder\.weights_digest: 0{16}"):
        with_kept_weights(pinned, tmp_path / "store", "")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["encoder.weights_digest=0123456789abcdef"], "there are no weights; set encoder.weights"),
        (["encoder={weights: a.pth, weights_digest: 12}"], "weights_digest"),
        (["encoder.weights=s3://key:secret@bucket/a"], "encoder.weights"),
        (["encoder.weights=a.pth", "space.encoder.name={choice: [resnet18, resnet50]}"], "space.encoder.name: enc"),
        (["space.encoder.weights={choice: [a, b]}"], "space.encoder.weights: encoder.weights are the same"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        resolve({}, settings)


def test_pretrain_starts_from_an_earlier_run_and_resumes_without_it(tmp_path: Path) -> None:
    import mlflow

    first = bgsweep("pretrain", TINY, "training.epochs=1", "--json", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    checkpoint = Path(json.loads(first.stdout)["checkpoint"])
    words = ["pretrain", TINY, "optimizer.lr=0.01", "--json", "--from"]
    for length, origin in ((1, checkpoint.rename(checkpoint.with_name("old"))), (2, tmp_path / "lost")):
        if length == 2:
            done = bgsweep(*words, origin, "training.epochs=2", folder=tmp_path)
            assert done.returncode == 2 and "lost: no such file or folder" in done.stderr
            (origin,) = (tmp_path / "bgsweep_runs" / "weights").iterdir()
        done = bgsweep(*words, origin, f"training.epochs={length}", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"starts from {origin}, kept in" in done.stderr
        assert ("goes on after 1 epoch" in done.stderr) == (length == 2)
    result = json.loads(done.stdout)
    kept = Experiment.model_validate(load_checkpoint(Path(result["checkpoint"]) / CHECKPOINT_FILE)["experiment"])
    assert kept.encoder.weights_digest == state_digest(load_trained(checkpoint.with_name("old")).encoder.state_dict())
    client = mlflow.MlflowClient(tracking_uri=result["tracking_uri"])
    assert client.get_run(result["run_id"]).data.params["encoder.weights_digest"] == kept.encoder.weights_digest
    there = client.download_artifacts(result["run_id"], "initial_weights.json", str(tmp_path))
    assert json.loads(Path(there).read_text())["source"] == str(checkpoint.with_name("old"))
    # A checkpoint holds all of its encoder: what it began with is not needed any more.
    for file in (tmp_path / "bgsweep_runs" / "weights").rglob("*.safetensors"):
        file.unlink()
    assert load_trained(result["checkpoint"]).experiment == kept


def test_a_model_of_mlflow_is_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bgsweep.tracking import Tracker, tracking_uri
    from bgsweep.tracking.models import log_encoder
    from bgsweep.tracking.registry import add_version

    monkeypatch.chdir(tmp_path)
    config = load(TINY)
    encoder = untrained(config.experiment.with_values({"seed": 5})).encoder
    with Tracker(tracking_uri(Path("runs")), "tiny") as tracker:
        run = tracker.pretrain_run("one", config)
        model = log_encoder(tracker, run, encoder, 16, config.experiment.model_dump(mode="json"))
        version = add_version(tracker, run, model, "mine", {})
        address = tracker.address
    found = with_kept_weights(experiment(f"models:/mine/{version}"), tmp_path / "runs", address)
    assert_same(dict(initial_weights(found)), encoder.state_dict())
    with pytest.raises(UserError, match=r"models:/mine/1 is of .*; set encoder\.width=4"):
        with_kept_weights(experiment(f"models:/mine/{version}", "encoder.width=8"), tmp_path / "runs", address)


@pytest.mark.faults
def test_all_trials_of_a_sweep_start_from_the_same_weights(tmp_path: Path) -> None:
    """With a rate near zero every trial ends with the encoder that it began with."""
    expected = trained(tmp_path / "start")
    words = ["space.seed={choice: [1, 2]}", "optimizer={lr: 1.0e-12, weight_decay: 0}", "search.baseline=false"]
    search = ["search.trials=2", "search.scheduler=none", "training.epochs=1", "register.name=tiny", "--name", "one"]
    done = bgsweep("sweep", TINY, *words, *search, "--from", "start", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "bgsweep_runs" / "weights").iterdir()
    assert kept.name == state_digest(expected)
    states = list((tmp_path / "bgsweep_runs" / "sweeps" / "one").rglob(CHECKPOINT_FILE))
    assert len(states) == 2
    for state in map(load_checkpoint, states):
        found = {name: state["method"][f"encoder.{name}"] for name in expected}
        for name in expected:
            if "running" not in name and "batches" not in name:  # statistics follow the images
                torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)
    refused = bgsweep("sweep", "--resume", "one", "--from", "start", folder=tmp_path)
    assert refused.returncode == 2 and "--from is for a new sweep" in refused.stderr
    lost = bgsweep("sweep", TINY, *words, *search[:-1], "two", "--from", "lost.pth", folder=tmp_path)
    assert lost.returncode == 2 and "lost.pth: no such file or folder" in lost.stderr
