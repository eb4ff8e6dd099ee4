"""Images that are deleted while they are evaluated."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from bgsweep.config import Data, Evaluate, Knn, Linear
from bgsweep.data import Image, open_splits
from bgsweep.evaluation.datasets.background_variants import VariantSet
from tests.command import bgsweep
from tests.inputs import write_images

from .subjects import judged, model_of


def test_an_image_deleted_while_an_encoder_is_judged_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path)
    data = Data(images=str(tmp_path / "photos"), masks=str(tmp_path / "masks"), resize=32)
    doomed = [sorted((tmp_path / "photos" / split).rglob("*.*"))[2] for split in ("test", "validation")]
    image = VariantSet.image

    def deleting(*arguments: Any) -> Image:
        for path in doomed:
            path.unlink(missing_ok=True)
        return image(*arguments)

    monkeypatch.setattr(VariantSet, "image", deleting)
    settings = Evaluate(knn=Knn(k=5), linear=Linear(epochs=2, lrs=(0.1,)))
    report = judged(model_of(), open_splits(data), settings, 24)
    assert f"{doomed[0]}: cannot be read" in caplog.text
    assert "the evaluation begins again without it" in caplog.text
    again = open_splits(data.model_copy(update={"holdout": 0.3}))
    assert report.backgrounds == judged(model_of(), again, settings, 24).backgrounds


def test_an_image_deleted_while_a_suite_is_measured_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path)
    (tmp_path / "suite.yaml").write_text("data: {images: photos, masks: masks}\nsize: 24\ndevice: cpu\n")
    torch.save(models.resnet18().state_dict(), tmp_path / "w.pt")
    lost = sorted((tmp_path / "photos/test").rglob("*.*"))[2]
    image = VariantSet.image

    def deleting(*arguments: Any) -> Image:
        lost.unlink(missing_ok=True)
        return image(*arguments)

    monkeypatch.setattr(VariantSet, "image", deleting)
    words = ("evaluate", "resnet18=w.pt", "--suite", "knn,backgrounds", "--data", "suite.yaml", "--json")
    ended = bgsweep(*words, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "cannot be read" in caplog.text and "the evaluation begins again without it" in caplog.text
    again = bgsweep(*words, folder=tmp_path)
    assert json.loads(again.stdout)["results"] == json.loads(ended.stdout)["results"]
