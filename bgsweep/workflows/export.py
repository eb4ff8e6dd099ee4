"""`bgsweep export`: an encoder as a folder that other programs load, with its model card."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bgsweep
from bgsweep.config import Encoder
from bgsweep.config.base import nearest
from bgsweep.errors import UserError, one_line
from bgsweep.models import ImageEncoder
from bgsweep.models.counterparts import TOLERANCE, Counterpart, difference, in_timm, in_torchvision
from bgsweep.models.onnx_encoder import OnnxNetwork
from bgsweep.models.onnx_program import check_onnx, onnx_program
from bgsweep.storage.atomic import replacing_folder
from bgsweep.tracking.encoders import Loaded, load_model
from bgsweep.tracking.lineage import lineage
from bgsweep.workflows.model_card import model_card

_SIZE = 224  # of encoders whose training bgsweep does not know
_SAME = f"features equal the encoder's within {TOLERANCE:g}"


@dataclass(frozen=True)
class _Exported:
    """The network's name, the lines of Python that load it, how it was checked, and the card's tags."""

    name: str
    load: list[str]
    checked: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class _Export:
    """The encoder, its network's configuration, and the description that is written beside it."""

    encoder: ImageEncoder
    config: Encoder
    size: int
    about: dict[str, Any]


def export(model: str, to: str, folder: Path, store: Path) -> dict[str, Any]:
    """Write an encoder into a new folder; see `bgsweep.api.export`."""
    if to not in FORMATS:
        raise UserError(f"--to {to}: no such format; {nearest(to, list(FORMATS))}")
    _check_free(folder)
    if to == "onnx":
        check_onnx("--to onnx")  # before a model is downloaded
    loaded = load_model(model, _SIZE, store)
    job = _job(loaded, model, to, store)
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(folder.absolute()) as partial:
            partial.mkdir()
            done = FORMATS[to](job, partial)
            (partial / "encoder.json").write_text(json.dumps(job.about, indent=1) + "\n", encoding="utf-8")
            card = model_card(done.name, job.about, done.load, done.tags)
            (partial / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}; name another folder") from error
    written = {"folder": str(folder), "files": sorted(path.name for path in folder.iterdir())}
    told = {"checked": done.checked, "load": done.load, "lineage": job.about["lineage"]}
    return {"model": model, "to": to, **written, **told}


def _check_free(folder: Path) -> None:
    """Raise UserError where no folder can be written."""
    if ":/" in str(folder):
        raise UserError(f"{folder}: only a folder of this machine can be written; name one, and copy it afterwards")
    try:
        taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    except (OSError, ValueError) as error:  # too long, a loop of links, a NUL
        raise UserError(f"{folder}: {getattr(error, 'strerror', None) or error}; name another folder") from error
    if taken:
        raise UserError(f"{folder}: exists already; name another folder, or remove it")


def _job(loaded: Loaded, model: str, to: str, store: Path) -> _Export:
    """The encoder with its description, from which paths of this machine are left out: folders are published."""
    encoder, experiment = loaded.encoder, loaded.experiment
    if isinstance(encoder.backbone, OnnxNetwork):
        raise UserError(
            f"{model}: encoders in ONNX go into no other format; copy the file, or export the checkpoint or model that "
            "it was made from"
        )
    normalizes, by = to in ("safetensors", "onnx"), f"bgsweep {bgsweep.__version__}"
    if about := loaded.about:  # written before: what it says of the training and the lineage is not known otherwise
        given = {**about["preprocessing"], "normalized_by_the_network": normalizes}
        config = Encoder.model_validate(about["encoder"])
        return _Export(encoder, config, given["size"], {**about, "preprocessing": given, "exported_by": by})
    size = _size_of_positions(encoder.backbone) or loaded.size or _SIZE
    config = experiment.encoder if experiment else _published(loaded, size, to)
    sections = experiment.model_dump(mode="json", exclude={"data", "workers", "encoder"}) if experiment else {}
    about = {
        "encoder": config.model_dump(mode="json", include={"name", "width", "stem", "drop_path"}),
        "features": encoder.feature_dim,
        "preprocessing": {
            "size": size,
            "resize": round(size * 8 / 7),
            "crop": "center",
            "interpolation": "area",
            "mean": _values(encoder.mean),
            "std": _values(encoder.std),
            "normalized_by_the_network": normalizes,
        },
        "weights": Path(loaded.origin["weights"]).name if experiment is None else "",
        "experiment": sections,
        "data": _name_of_images(experiment.data) if experiment else "",
        "started_from": config.weights_digest,
        "lineage": lineage(loaded, model, store),
        "exported_by": by,
    }
    return _Export(encoder, config, size, about)


def _published(loaded: Loaded, size: int, to: str) -> Encoder:
    """The network of weights that others published; of an `hf:` model timm's network that computes the same.

    Raises:
        UserError: timm has none, so that in a format with weights alone nothing could load them.
    """
    name = loaded.origin["network"].removeprefix("torchvision:")
    if not name.startswith("hf:"):
        return Encoder(name=name)
    known: Any = loaded.encoder.backbone.pretrained_cfg
    config = Encoder(name=f"timm:{known.get('architecture')}")
    try:
        in_timm(loaded.encoder, config, size)
    except UserError as error:
        if to == "onnx":
            return Encoder(name=f"hf:{Path(name.removeprefix('hf:')).name}")
        raise UserError(f"{name}: timm builds no network by name that computes the same; use --to onnx") from error
    return config


def _values(buffer: torch.Tensor) -> list[float]:
    """The normalization's numbers as they were given, which float32 has rounded."""
    return [round(value, 6) for value in buffer.flatten().tolist()]


def _size_of_positions(backbone: nn.Module) -> int | None:
    """Side of the images that a transformer's position embeddings are for; None for other networks."""
    found = getattr(backbone, "image_size", None) or getattr(getattr(backbone, "patch_embed", None), "img_size", None)
    return int(found[0] if isinstance(found, tuple) else found) if found else None


def _name_of_images(data: Any) -> str:
    if data.images == "sample" and data.pack is None and data.dataset is None:
        return "the images that come with bgsweep (CC0)"
    return data.dataset.name if data.dataset else Path(data.pack or data.images).name


def _to_library(make: Callable[..., Counterpart], job: _Export, folder: Path) -> _Exported:
    """A state dict under torchvision's or timm's names."""
    found = make(job.encoder, job.config, job.size)
    library, name = found.call.partition(".")[0], found.name
    torch.save(found.state, folder / f"{name}.pth")
    load = [f"import {library}", "import torch", "", f"network = {found.call}"]
    if found.classifier:
        load.append(f'network.set_submodule("{found.classifier}", torch.nn.Identity())  # these weights have none')
    load.append(f'network.load_state_dict(torch.load("{name}.pth"))')
    return _Exported(name, load, f"{_SAME} in {library}", (library, "bgsweep"))


def _to_safetensors(job: _Export, folder: Path) -> _Exported:
    """bgsweep's own names, as `encoder.weights` reads them."""
    from safetensors.torch import save_file

    state = {key: value.contiguous() for key, value in job.encoder.state_dict().items()}
    save_file(state, folder / "encoder.safetensors", {"format": "pt", **_texts(job.about)})
    given = ", ".join(f"{key}={value!r}" for key, value in job.about["encoder"].items())
    load = [
        "from bgsweep.config import Encoder",
        "from bgsweep.models import build_encoder",
        "from safetensors.torch import load_file",
        "",
        f"network = build_encoder(Encoder({given}), [{job.size}])",
        'network.load_state_dict(load_file("encoder.safetensors"))',
    ]
    return _Exported(job.config.name, load, "holds the encoder's own tensors", ("bgsweep",))


def _to_onnx(job: _Export, folder: Path) -> _Exported:
    """The whole encoder with its normalization, for any number of images and, where the network can, any size."""
    side = job.size
    try:
        checked = _write_onnx(job, folder, {0: "batch", 2: "height", 3: "width"}, [(2, 3, side + 32, side + 64)])
        sizes = "images of any size"
    except UserError:  # some networks are made for one size, and some exports lose the others
        checked, sizes = _write_onnx(job, folder, {0: "batch"}, []), f"images of {side} px"
    load = [
        "import numpy",
        "import onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("encoder.onnx")',
        f'images = numpy.zeros((1, 3, {side}, {side}), "float32")',
        '(features,) = session.run(None, {"images": images})',
    ]
    return _Exported(job.config.name, load, f"{checked}; any number of {sizes}", ("onnx", "bgsweep"))


def _write_onnx(job: _Export, folder: Path, axes: Mapping[int, str], more: Sequence[Sequence[int]]) -> str:
    """Write ``encoder.onnx`` and compare it with the encoder for batches of one and three images, and `more` shapes.

    Raises:
        UserError: the network cannot be exported, or gives other features.
    """
    shapes = [(1, 3, job.size, job.size), (3, 3, job.size, job.size), *more]
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(*shape, generator=generator) for shape in shapes]
    expected = [_features(job.encoder, images) for images in batches]  # first: it may refuse a size, in no time
    program = onnx_program(job.encoder, torch.zeros(2, 3, job.size, job.size), "images", "features", axes)
    program.model.metadata_props.update(_texts(job.about))
    program.save(folder / "encoder.onnx")
    try:
        import onnxruntime
    except ImportError:
        return "not compared with the encoder: that needs ONNX Runtime (pip install 'bgsweep[onnx]')"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a size that it refuses is no error here
    try:
        session = onnxruntime.InferenceSession(folder / "encoder.onnx", options, providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(session.run(None, {"images": images.numpy()})[0]) for images in batches]
    except Exception as error:  # its errors have no common base of their own
        raise UserError(f"--to onnx: ONNX Runtime: {one_line(error)[:300]}; use --to safetensors") from error
    if worst := max(map(difference, expected, found)):
        raise UserError(f"--to onnx: ONNX Runtime gives features that differ by {worst:.1e}; use --to safetensors")
    return f"{_SAME} in ONNX Runtime"


def _features(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    try:
        with torch.inference_mode():
            features: torch.Tensor = encoder(images)
    except (RuntimeError, ValueError, AssertionError) as error:  # as networks refuse a size
        raise UserError(f"--to onnx: the encoder refuses images {tuple(images.shape)}: {one_line(error)}") from error
    return features


def _texts(about: Mapping[str, Any]) -> dict[str, str]:
    """The description as text by key, as the metadata of safetensors and ONNX are."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}


def _to_hf(job: _Export, folder: Path) -> _Exported:
    """A folder in the format of timm's models on Hugging Face."""
    from safetensors.torch import save_file

    found = in_timm(job.encoder, job.config, job.size)
    own: Mapping[str, Any] = found.network.pretrained_cfg  # type: ignore[assignment]
    given = job.about["preprocessing"]
    config = {
        "architecture": found.name,
        "num_classes": 0,
        "num_features": job.encoder.feature_dim,
        "model_args": dict(found.options),
        "pretrained_cfg": {
            "input_size": [3, job.size, job.size],
            "fixed_input_size": "img_size" in found.options and "dynamic_img_size" not in found.options,
            "interpolation": "bilinear",  # antialiased, it is the nearest to area of what timm has
            "crop_pct": 7 / 8,
            "crop_mode": "center",
            "mean": given["mean"],
            "std": given["std"],
            "num_classes": 0,
            "first_conv": own.get("first_conv"),
            "classifier": own.get("classifier"),
        },
    }
    save_file(found.state, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    load = [
        "import timm",
        "",
        "# on Hugging Face: hf-hub:USER/NAME; transformers: AutoModel.from_pretrained",
        'network = timm.create_model("local-dir:.", pretrained=True)',
    ]
    return _Exported(found.name, load, f"{_SAME} in timm", ("timm", "transformers", "bgsweep"))


FORMATS: dict[str, Callable[[_Export, Path], _Exported]] = {
    "torchvision": partial(_to_library, in_torchvision),
    "timm": partial(_to_library, in_timm),
    "safetensors": _to_safetensors,
    "onnx": _to_onnx,
    "hf": _to_hf,
}
