"""`bgsweep masks train` from images to a network that makes masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import Encoder, Experiment, MaskTraining
from bgsweep.config import mask_training as settings_of
from bgsweep.errors import UserError
from bgsweep.training import checkpoint
from bgsweep.training.build import initial_method
from bgsweep.workflows import train_masks as mask_training
from bgsweep.workflows.make_masks import make_masks
from bgsweep.workflows.train_masks import train_masks
from tests.command import bgsweep
from tests.masks.conftest import Extract, extract_images

__all__ = ["extract_images"]

CONFIG = MaskTraining(
    side=32,
    rounds=1,
    epochs=1,
    student_epochs=1,
    batch_size=4,
    encoder=Encoder(name="resnet10", width=8),
    device="cpu",
)


def train(images: Path, out: Path, encoder: Path | None = None, **values: Any) -> dict[str, Any]:
    pytest.importorskip("onnxscript")
    return train_masks(str(images), out, encoder, CONFIG.model_copy(update=values), workers=1)


def write_checkpoint(path: Path, method: str, network: str = "resnet10") -> Path:
    experiment = Experiment.model_validate(
        {"method": {"name": method}, "encoder": {"name": network, **({"width": 8} if network == "resnet10" else {})}}
    )
    state = {"experiment": experiment.model_dump(mode="json"), "classes": 3, "metrics": {}}
    checkpoint.save_checkpoint(path, {**state, "method": initial_method(experiment, 3).state_dict()})
    return path


def test_interrupted_and_continued_gives_the_same_network(
    extract_images: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    images = extract_images(12)
    (images / "train/broken.jpg").write_bytes(b"")
    whole = train(images, tmp_path / "whole.onnx")
    assert (whole["images"], [item["image"] for item in whole["unreadable"]]) == (12, ["train/broken.jpg"])
    assert len(whole["losses"]) == 4
    _interrupt(monkeypatch, after=2)
    with pytest.raises(KeyboardInterrupt):
        train(images, tmp_path / "model.onnx")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"model\.onnx\.training: holds unfinished training with other settings"):
        train(images, tmp_path / "model.onnx", seed=1)
    continued = train(images, tmp_path / "model.onnx")
    assert continued["losses"] == whole["losses"]
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert not (tmp_path / "model.onnx.training").exists()
    assert train(images, tmp_path / "model.onnx") == {**continued, "seconds": 0.0}
    with pytest.raises(UserError, match=r"model\.onnx: exists, and was made with other settings"):
        train(images, tmp_path / "model.onnx", seed=1)
    (images / "train/broken.jpg").unlink()
    said = make_masks(str(images), str(tmp_path / "masks"), "usps", str(tmp_path / "model.onnx"), workers=1)
    assert said["masks"] == 12
    settings = {"network": None, "input": [32, 32], "stretched_from": None, "grabcut": {"iterations": 2, "side": 256}}
    assert said["parameters"].items() >= settings.items()


def _interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C in the middle of an epoch, when so many have been finished."""
    step = mask_training.SelfTraining.step_epoch
    done = []

    def stepped(training: Any) -> float:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(step(training))
        return done[-1]

    monkeypatch.setattr(mask_training.SelfTraining, "step_epoch", stepped)


def test_starts_from_the_encoder_of_a_self_supervised_run(tmp_path: Path) -> None:
    import torch

    from bgsweep.training.checkpoint import load_trained

    path = write_checkpoint(tmp_path / "state.pt", "moco_v2")
    backbone = mask_training.start_of(path, CONFIG)
    wanted = load_trained(path).encoder.backbone.state_dict()
    assert all(torch.equal(weight, wanted[name]) for name, weight in backbone.state_dict().items())


def _no_images(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "images").rename(tmp_path / "pictures")
    return {}


def _one_readable(tmp_path: Path) -> dict[str, Any]:
    for path in sorted((tmp_path / "images").rglob("*.jpg"))[1:]:
        path.write_bytes(b"")
    return {}


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "no images": (_no_images, r"images: no such folder, or no images in it"),
    "nothing to learn from": (_one_readable, r"images: fewer than two of 4 images can be read"),
    "no checkpoint": (lambda t: {"encoder": t / "x.pt"}, r"--encoder .*x\.pt: No such file.*state\.pt"),
    "labels": (
        lambda t: {"encoder": write_checkpoint(t / "state.pt", "supervised")},
        r"--encoder .*state\.pt: trained with labels",
    ),
    "no ResNet": (
        lambda t: {"encoder": write_checkpoint(t / "state.pt", "moco_v2", "vit_s_16")},
        r"encoder: an? \w+ cannot learn masks; name a ResNet",
    ),
    "too few": (lambda t: {"batch_size": 5}, r"batch_size: 5 is more than the 4 images"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(extract_images: Extract, tmp_path: Path, case: str) -> None:
    spoil, message = BAD[case]
    images = extract_images(4)
    options = spoil(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        train(images, tmp_path / "model.onnx", **options)
    assert "\n" not in str(error.value)


def test_images_of_a_table_with_columns_of_other_names(extract_images: Extract, tmp_path: Path) -> None:
    """Seen by the error that counts them."""
    pytest.importorskip("onnxscript")
    images = extract_images(3)
    names = [path.relative_to(images).as_posix() for path in sorted(images.rglob("*.jpg"))]
    (images / "images.csv").write_text("\n".join(["file", *names]))
    command = ["train", "images/images.csv", "batch_size=4", "--out", "model.onnx", "--columns", "image=file"]
    done = bgsweep("masks", *command, "label=none", folder=tmp_path)
    assert "batch_size: 4 is more than the 3 images; lower it" in done.stderr


def test_settings_are_validated() -> None:
    assert settings_of(["side=64", "encoder.width=16"]).encoder.width == 16
    for override, message in (
        ("sides=64", r"sides: unknown key; did you mean `side`\?"),
        ("side=8", r"side: .*32.*given: 8"),
        ("encoder.width=0", r"encoder\.width: "),
    ):
        with pytest.raises(UserError, match=message):
            settings_of([override])
