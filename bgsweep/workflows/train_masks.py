"""`bgsweep masks train`: train a mask network on a tree of images; resumes after interruption."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bgsweep.config import MaskTraining
from bgsweep.config.columns import Columns
from bgsweep.data.datasets.folder import image_names
from bgsweep.data.datasets.formats import DEFAULT, open_images
from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.decoding import decode_image
from bgsweep.masks.deepusps.network import SaliencyNetwork, onnx_bytes
from bgsweep.masks.deepusps.selftraining import SelfTraining
from bgsweep.masks.grabcut import shrink
from bgsweep.masks.registry import TEACHERS
from bgsweep.models import build_encoder
from bgsweep.models.onnx_program import check_onnx
from bgsweep.storage.layout import CHECKPOINT_FILE
from bgsweep.storage.tree import LocalTree, Tree, write_file
from bgsweep.training import save_checkpoint
from bgsweep.training.checkpoint import load_trained
from bgsweep.workflows.make_masks import make_masks

# Handcrafted methods get images of twice the network's side, for sharper edges.
_FINER = 2


def train_masks(
    images: str,
    out: Path,
    encoder: Path | None,
    config: MaskTraining,
    workers: int | None = None,
    columns: Columns = DEFAULT,
) -> dict[str, Any]:
    """Train a mask network on images without labels, and write it as ONNX for `make_masks` (method `usps`).

    Unfinished work is in the folder ``OUT.training``; the same call resumes it.

    Args:
        images: folder or URI, or files that list or hold images.
        out: ONNX file to write; ``OUT.json`` beside it records its origin.
        encoder: checkpoint of a self-supervised run; every network starts from its encoder.
        workers: as in `make_masks`, for the handcrafted masks.
        columns: names in the images' files.

    Returns:
        The content of ``OUT.json``, with `out` and `seconds`.

    Raises:
        UserError: too few images, an encoder that was trained with labels or is not a ResNet, or an existing network
            or unfinished training with other settings.
    """
    check_onnx("masks train")  # before hours of training
    began = time.perf_counter()
    source = open_images(images, columns)
    names = _chosen(source, config.images)
    settings = {
        "config": config.model_dump(mode="json"),
        "encoder": hashlib.sha256(_content(encoder)).hexdigest() if encoder else None,
        "teachers": list(TEACHERS),
        "photographs": hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
    }
    record = out.with_name(f"{out.name}.json")
    if found := _finished(out, record, settings):
        return {**found, "out": str(out), "seconds": 0.0}
    start = start_of(encoder, config)
    SaliencyNetwork(start)  # refuse an unusable encoder before all the work
    folder = out.with_name(f"{out.name}.training")
    _claim(folder, settings)
    unreadable = _store(source, names, LocalTree(folder / "images"), _FINER * config.side)
    count = len(names) - len(unreadable)
    if config.batch_size > count:
        raise UserError(f"batch_size: {config.batch_size} is more than the {count} images; lower it")
    for method in TEACHERS:
        make_masks(str(folder / "images"), str(folder / method), method, workers=workers, soft=True)
    losses, data = _learn(folder, start, config)
    digest = hashlib.sha256(data).hexdigest()
    said = {**settings, "images": count, "unreadable": unreadable, "losses": losses, "sha256": digest}
    write_file(
        record, json.dumps(said, indent=1).encode() + b"\n"
    )  # before the network, so that no network is without its record
    write_file(out, data)
    shutil.rmtree(folder)
    return {**said, "out": str(out), "seconds": time.perf_counter() - began}


def _chosen(source: Tree, limit: int) -> list[str]:
    names = image_names(source, source.files())
    indices = np.linspace(0, len(names) - 1, min(limit, len(names))).round().astype(int)
    return [names[index] for index in indices]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"--encoder {path}: {error.strerror}; name a checkpoint (state.pt) of your own run") from error


def _finished(out: Path, record: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    if not out.exists():
        return None
    try:
        said: dict[str, Any] = json.loads(record.read_bytes())
    except (OSError, ValueError):
        said = {}
    if settings.items() <= said.items():
        return said
    raise UserError(f"--out {out}: exists, and was made with other settings; remove it or name another file")


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / "settings.json"
    text = json.dumps(settings).encode()
    if path.exists() and path.read_bytes() != text:
        raise UserError(f"{folder}: holds unfinished training with other settings; remove it or name another --out")
    write_file(path, text)


def _store(source: Tree, names: Sequence[str], target: LocalTree, side: int) -> list[dict[str, str]]:
    """Write the images, scaled down, as numbered PNGs; returns those that cannot be read."""
    there = target.files()
    unreadable = []
    for number, name in enumerate(names):
        small = f"{number:07}.png"
        if small in there:
            continue
        try:
            image, _ = decode_image(source.read(name), name)
        except UnreadableImage as error:
            unreadable.append({"image": name, "reason": str(error).removeprefix(f"{name}: ")})
            continue
        pixels = cv2.cvtColor(shrink(image, side), cv2.COLOR_RGB2BGR)
        target.write(small, cv2.imencode(".png", pixels)[1].tobytes())
    if len(unreadable) > len(names) - 2:
        raise UserError(f"{source.uri}: fewer than two of {len(names)} images can be read; add some")
    return unreadable


def _learn(folder: Path, start: nn.Module, config: MaskTraining) -> tuple[list[float], bytes]:
    """Train all stages; returns each epoch's loss, and the student as ONNX."""
    trees = [LocalTree(folder / name) for name in ("images", *TEACHERS)]
    names = sorted(set.intersection(*({name for name in tree.files() if name.endswith(".png")} for tree in trees)))
    pixels, *found = (_stack(tree, names, config.side) for tree in trees)
    masks: dict[str, npt.NDArray[np.uint8]] = {
        name: mask.max(axis=3) for name, mask in zip(TEACHERS, found, strict=True)
    }
    training = SelfTraining(config, start, pixels, masks)
    state, losses = folder / CHECKPOINT_FILE, []
    if state.exists():
        kept = _read_state(state)
        training.load_state_dict(kept["training"])
        losses = kept["losses"]
    while not training.finished:
        stage, epoch = training.stages[training.stage], training.epoch + 1
        losses.append(training.step_epoch())
        save_checkpoint(state, {"training": training.state_dict(), "losses": losses})
        name = f"{stage.method}, round {stage.round + 1}" if stage.method else "student"
        left = training.epochs_left
        print(f"{name}: epoch {epoch}/{stage.epochs}, loss {losses[-1]:.3f}, {left} epochs left", file=sys.stderr)
    return losses, onnx_bytes(training.network, config.side)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises several kinds on damaged files
        raise UserError(
            f"{path}: damaged; remove it, and run the same command again to train from the start"
        ) from error
    return state


def _stack(tree: LocalTree, names: Sequence[str], side: int) -> npt.NDArray[np.uint8]:
    """Images as N x side x side x 3."""
    images = (decode_image(tree.read(name), name)[0] for name in names)
    return np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in images])


def start_of(encoder: Path | None, config: MaskTraining) -> nn.Module:
    """The backbone that every network starts from.

    Raises:
        UserError: no such checkpoint, or one that was trained with labels.
    """
    if encoder is None:
        torch.manual_seed(config.seed)
        return build_encoder(config.encoder, [config.side]).backbone
    trained = load_trained(encoder)
    if trained.experiment.method.needs_labels:
        raise UserError(f"--encoder {encoder}: trained with labels, which masks do without; name a self-supervised run")
    return trained.encoder.backbone
