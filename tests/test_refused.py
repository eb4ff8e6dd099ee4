"""Files that somebody made to do harm are refused where they come in, and do nothing."""

import os
import pickle
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from bgsweep.cli.main import main
from bgsweep.config import load, load_suite, resolve
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.decoding import decode_image, decode_mask, read_gray
from bgsweep.training.checkpoint import load_checkpoint


class Payload:
    """Pickled, it makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "the-payload-ran"


def test_checkpoint_that_holds_code(tmp_path: Path, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.pt"
    torch.save({"experiment": {}, "method": Payload(mark)}, path)
    with pytest.raises(UserError, match=r"holds objects of|damaged"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(UserError, match=r"holds objects of|damaged"):
        load_checkpoint(path)
    assert main(["evaluate", str(path), str(Path(__file__).parent / "tiny.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["evaluate", f"resnet50={path}", "--suite", "knn", "--store", str(tmp_path / "store")]) == 2
    assert not mark.exists()


def test_model_of_the_registry_that_is_a_pickle(tmp_path: Path, mark: Path) -> None:
    from bgsweep.tracking import Tracker, tracking_uri
    from bgsweep.tracking.models import fetch_encoder

    address = tracking_uri(tmp_path / "store")
    model = tmp_path / "model"
    (model / "data").mkdir(parents=True)
    (model / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: mlflow.pytorch\n    data: data\n")
    for name in ("data/model.pth", "python_model.pkl", "encoder.safetensors"):
        (model / name).write_bytes(pickle.dumps(Payload(mark)))
    (model / "encoder.json").write_text("{}")
    with Tracker(address) as tracker:
        logged = tracker.client.create_logged_model(tracker.experiment_id, "encoder")
        tracker.client.log_model_artifacts(logged.model_id, str(model))
        tracker.client.finalize_logged_model(logged.model_id, "READY")
    with pytest.raises(UserError, match=r"encoder\.safetensors.*damaged"):
        fetch_encoder(f"models:/{logged.model_id}", address)
    assert not mark.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!run"])
def test_yaml_with_object_tags(tag: str, tmp_path: Path, mark: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(f"experiment: {tag} ['{mark}']\n")
    for read in (load, load_suite):
        with pytest.raises(UserError, match=r"evil\.yaml: not valid YAML"):
            read(path)
    path.write_text("experiment: {}\n")
    with pytest.raises(UserError, match="not valid YAML"):
        load(path, [f"background.remove={tag} ['{mark}']"])
    assert not mark.exists()


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it is a square of so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


def test_image_bomb(tmp_path: Path) -> None:
    """60,000 x 60,000 pixels would be 10 GB decoded."""
    data = bomb(60_000)
    with pytest.raises(UnreadableImage, match="bomb"):
        decode_image(data, "bomb.png")
    grey = cv2.imencode(".jpg", np.zeros((16, 16), np.uint8))[1].tobytes()
    at = grey.index(b"\xff\xc0") + 5  # of height and width in a JPEG's header
    with pytest.raises(UnreadableImage, match="bomb"):
        decode_image(grey[:at] + struct.pack(">HH", 65_000, 65_000) + grey[at + 4 :], "bomb.jpg")
    with pytest.raises(UserError, match=r"mask\.png"):
        read_gray(data, "mask.png")
    with pytest.raises(UserError, match=r"mask\.png"):
        decode_mask(data, "mask.png", (60_000, 60_000), "bomb.png")


def test_names_that_lead_out_of_the_images_folder(tmp_path: Path) -> None:
    """A split is a name below `data.images`, not a way out of it."""
    (tmp_path / "photos" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match=r"data\.train"):
        resolve({"experiment": {"data": {"images": str(tmp_path / "photos"), "train": "../secrets"}}})


@pytest.mark.parametrize(
    "state",
    [
        {"experiment": 3},
        {"experiment": 3, "method": {}, "classes": 2},
        {"experiment": {}, "method": {"x": torch.zeros(2)}, "classes": 2},
        {"experiment": {}, "method": [1], "classes": 2},
        {"experiment": {}, "method": {}, "classes": "two"},
    ],
    ids=repr,
)
def test_checkpoint_of_another_program_is_one_line(
    tmp_path: Path, state: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.pt"
    torch.save(state, path)
    assert main(["evaluate", str(path), str(Path(__file__).parent / "tiny.yaml")]) == 2
    assert re.search(rf"^error: {path}: not a checkpoint of (this )?bgsweep.*\n$", capsys.readouterr().err)
