"""`bgsweep new`: a commented YAML file to start from, made for the images and the machine that are there."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

import bgsweep
from bgsweep.config import Data, load
from bgsweep.config.base import nearest
from bgsweep.config.columns import INCLUDED, Columns
from bgsweep.config.mask_format import OWN_ALPHA
from bgsweep.config.methods import METHODS
from bgsweep.config.schema import sweep_schema
from bgsweep.config.yaml_file import parse_yaml
from bgsweep.errors import UserError
from bgsweep.storage.tree import write_file
from bgsweep.storage.uri import is_remote

Machine = Literal["laptop", "gpu", "cluster"]

SCHEMA = "bgsweep.schema.json"
_RECIPES = Path(bgsweep.__file__).parent / "search_spaces"
DEFAULT = Columns()
_SIDES = (32, 64, 96, 128, 160, 224)  # of views, in pixels
_LOOKED_AT = 64
_WIDTH = 110
_LAPTOP_IMAGES = 120_000  # in all epochs together: minutes on a core


@dataclass(frozen=True)
class Found:
    """The images of a folder: the file's `data` section, and what decides on sizes."""

    data: dict[str, Any]
    count: int
    classes: int
    side: int
    notes: list[str]


def new_file(
    path: Path,
    images: str | None,
    masks: str | None,
    method: str | None,
    machine: Machine | None,
    columns: Columns = DEFAULT,
) -> dict[str, Any]:
    """Write the file, and the JSON Schema that its first line names beside it.

    Without ``images`` the file is the small recipe of the method, or the quickstart, on the images inside bgsweep.

    Returns:
        ``file``, ``about`` (a sentence), ``notes`` on the images, and ``next``, commands to give.

    Raises:
        UserError: the file exists, there is no such method, or the images or masks cannot be used.
    """
    if path.exists():
        raise UserError(f"{path}: exists already; name another file, or remove it")
    known = recipes()
    if method is not None and method not in known:
        raise UserError(f"--method: no recipe for {method!r}; {nearest(method, known)}")
    if images is None:
        if masks is not None or machine is not None or columns != DEFAULT:
            raise UserError("new: --masks, --columns and --for are for images of your own; name them by --images")
        name = f"{method}_small" if method else "quickstart"
        text = re.sub(r"search_spaces/\w+\.yaml", shlex.quote(str(path)), _recipe_text(name))
        about, notes = f"the recipe {name}, on the images inside bgsweep", []
    else:
        chosen = machine or _this_machine()
        found = look(images, masks, columns, absolute=chosen == "cluster")
        text, about = compose(found, method or "moco_v2", chosen, path)
        notes = found.notes
    write_file(path, f"# yaml-language-server: $schema={SCHEMA}\n{text}".encode())
    try:
        config = load(path)
    except UserError:
        path.unlink()
        raise
    write_file(path.with_name(SCHEMA), (json.dumps(sweep_schema(), indent=1) + "\n").encode())
    return {"file": str(path), "about": about, "notes": notes, "next": _commands(path, bool(config.space.parameters))}


def recipes() -> list[str]:
    """The methods that a file can be made for.

    Raises:
        UserError: this installation has none.
    """
    if not _RECIPES.is_dir():
        raise UserError(f"{_RECIPES}: no recipes; install bgsweep from a whole checkout, with its search_spaces/")
    return [name for name in METHODS if (_RECIPES / f"{name}_small.yaml").exists()]


def look(images: str, masks: str | None, columns: Columns = DEFAULT, absolute: bool = False) -> Found:
    """Look at images: their splits, how many of which size there are, and whether masks fit.

    Masks that come with the images in their file are taken where no others are named.

    Args:
        images: folder or URI, or files that list or hold images.
        columns: names in the images' files.
        absolute: write paths that hold in every folder of a cluster's nodes.

    Raises:
        UserError: the images or masks cannot be used.
    """
    from bgsweep.data import notes, open_splits
    from bgsweep.data.datasets.formats import open_listing
    from bgsweep.data.layout import split_folders
    from bgsweep.data.order import spread_evenly

    def told(folder: str) -> str:
        fixed = not absolute or is_remote(folder) or folder in (INCLUDED, OWN_ALPHA)
        return folder if fixed else str(Path(folder).absolute())

    listing = open_listing(images, columns)
    if masks is None and listing is not None and listing.has_masks:
        masks = INCLUDED
    names = columns.model_dump(exclude_none=True)
    section: dict[str, Any] = {"images": told(images), **({"masks": told(masks)} if masks else {})}
    section |= {"columns": names} if names else {}
    splits = split_folders(Data(images=images, columns=columns))
    # Without any: class folders, or images in no folder at all.
    section["train"] = splits.get("train", "train" if splits else ".")
    section |= {"validation": splits.get("validation"), "test": splits.get("test")}
    data = Data.model_validate(section)
    train = open_splits(data).train
    seen = [min(train[int(index)].image.shape[:2]) for index in spread_evenly(len(train), _LOOKED_AT)]
    return Found(section, len(train), len(train.classes), int(np.median(seen)), notes(data))


def compose(found: Found, method: str, machine: Machine, path: Path) -> tuple[str, str]:
    """The file's text, and a sentence about it."""
    published = machine != "laptop" and (_RECIPES / f"{method}_imagenet.yaml").exists()
    recipe = parse_yaml(_recipe_text(f"{method}_{'imagenet' if published else 'small'}"), "the recipe")
    tree = _fitted(recipe, found, machine)
    tree["register"] = {"name": re.sub("[^A-Za-z0-9_.-]+", "-", path.stem).strip("-.") or "mine"}
    classes = f"{found.classes} classes" if found.classes else "no classes"
    about = f"{method} on {found.count} images ({classes}, about {found.side} px) for a {machine}"
    comments = _comments(found, machine)
    lines = [f"# Made by `bgsweep new`: {about}.", "#"]
    lines += [f"# {line}" for line in _commands(path, "space" in tree)]
    lines += ["#", "# Every key, with its default: bgsweep schema"]
    for name, value in tree.items():
        lines += ["", *_emitted(name, value, comments)]
    return "\n".join(lines) + "\n", about


def _fitted(recipe: dict[str, Any], found: Found, machine: Machine) -> dict[str, Any]:
    """A recipe with sizes for the images and the machine."""
    experiment, small = recipe["experiment"], machine == "laptop"
    section = METHODS[experiment["method"]["name"]]
    workers = 4 if machine == "cluster" and found.count >= 1024 else 1
    batch = _batch(found.count, 64 if small else 256 * workers)
    epochs = max(2, min(200, round(_LAPTOP_IMAGES / found.count))) if small else 200 if found.count >= 100_000 else 400
    every = max(1, epochs // 8)
    before = experiment["training"]["batch_size"]
    rate = float(f"{experiment['optimizer']['lr'] * batch / before:.2g}")
    side = _side(found.side, small)
    sync = {"sync_bn": True} if workers > 1 and section.supports_sync_bn else {}
    tree: dict[str, Any] = {
        "experiment": {
            "data": found.data | ({"resize": min(found.side, side * 5 // 3), "cache": True} if small else {}),
            "views": _views(experiment["views"], side),
            **({"background": {"remove": 0.2, "random": 0.2}} if "masks" in found.data else {}),
            "method": _method(experiment["method"], batch, workers, found.count),
            "encoder": experiment["encoder"] if small else _encoder(side),
            "optimizer": experiment["optimizer"] | {"lr": rate, "warmup_epochs": min(10, epochs // 10)},
            "training": {"epochs": epochs, "batch_size": batch, **sync, "checkpoint_every": every},
            "workers": {"device": "cpu"} if small else {"count": workers, "device": "cuda", "cpus": 8},
        }
    }
    if small and found.count * side * side < 50_000_000:
        tree["experiment"]["data"]["loader_workers"] = 0  # for few small images a process of their own costs more
    return tree | {
        "space": _space(recipe["space"], rate, "masks" in found.data, section.supports_swaps),
        "search": {"trials": 6 if small else 16, **_choice(found, epochs)},
        "evaluate": {"every": every, **({"variant": "mixed_rand"} if _varied(found) else {})},
    }


def _choice(found: Found, epochs: int) -> dict[str, Any]:
    """The metrics and the scheduler; without classes the metrics that chose best in `benchmarks/metrics.py`."""
    if not found.classes and "masks" in found.data:
        # By two metrics, stopping costs more epochs than it saves (benchmarks/search.py).
        return {"metric": ["swap_lidar", "bg_share"], "scheduler": "none"}
    metric = {} if found.classes else {"metric": "rotation"}
    return metric | {"scheduler": "asha", "grace_epochs": max(1, epochs // 4)}


def _varied(found: Found) -> bool:
    return "masks" in found.data and found.classes > 1


def _batch(count: int, most: int) -> int:
    """The largest power of two that is at most ``most`` and leaves two steps in an epoch."""
    return int(max(2, min(most, 2 ** int(np.log2(max(4, count) / 2)))))


def _side(side: int, small: bool) -> int:
    if small:
        return 32 if side >= 48 else 24
    return max((each for each in _SIDES if each <= side), default=_SIDES[0])


def _views(views: dict[str, Any], side: int) -> dict[str, Any]:
    crops = {"small_size": max(16, side * 3 // 7 // 8 * 8)} if views.get("small_crops") else {}
    return views | {"size": side} | crops


def _method(method: dict[str, Any], batch: int, workers: int, count: int) -> dict[str, Any]:
    """The method's section; a queue has at most a fifth of the images: in a longer one many are their own negatives."""
    fitted = dict(method)
    if "queue_size" in method:
        fitted["queue_size"] = batch * max(1, min(method["queue_size"], count // 5) // batch)
    if method["name"] == "moco_v2":
        groups = method.get("split_bn", 8 // workers)
        fitted["split_bn"] = max(each for each in range(1, groups + 1) if batch // workers % each == 0)
    return fitted


def _encoder(side: int) -> dict[str, Any]:
    return {"name": "resnet18", "stem": "small"} if side <= 64 else {"name": "resnet50"}


def _space(space: dict[str, Any], rate: float, masks: bool, swaps: bool) -> dict[str, Any]:
    names = ("remove", "random", "swap") if swaps else ("remove", "random")
    background = {f"background.{name}": {"uniform": [0.0, 0.5]} for name in names} if masks else {}
    own = {key: value for key, value in space.items() if key.startswith("method.")}
    low, high = (float(f"{rate * factor:.2g}") for factor in (1 / 3, 3))
    return {**background, "optimizer.lr": {"loguniform": [low, high]}, **own, "points": [{}]}


def _comments(found: Found, machine: Machine) -> dict[str, str]:
    """A comment for each line that a reader may want to change, by dotted key."""
    splits = "`null` holds a tenth of each class out of train (holdout, holdout_seed)"
    masked = "chances for each view; masks are looked at by `bgsweep masks show`"
    return {
        "experiment.data": splits if "masks" in found.data else f"{splits}; masks: none, see docs/masks.md",
        "experiment.background": masked,
        "experiment.views": f"{'small, for a CPU' if machine == 'laptop' else 'as published'}; see `bgsweep preview`",
        "experiment.method": "the method's own settings; others: bgsweep new --method",
        "experiment.optimizer": "lr is scaled with the batch from the recipe's",
        "experiment.workers": {
            "laptop": "no GPU is used",
            "gpu": "each trial takes one GPU; search.gpus: 0.5 puts two on one",
            "cluster": "of each trial; submit it by `bgsweep submit`, with a --store that all nodes see",
        }[machine],
        "space.points": "tried first: the experiment above, unchanged",
        "search": "algorithm: optuna, random or grid; budget: {hours: 8}",
        "evaluate": ("kNN on the validation split" if found.classes else "without classes: see docs/metrics.md")
        + (", backgrounds shuffled" if _varied(found) else ""),
        "register": "the best encoder becomes NAME@champion in MLflow's registry",
    }


def _emitted(name: str, value: Any, comments: Mapping[str, str], above: str = "") -> list[str]:
    """A key of the file with its value on as few lines as fit, below its comment."""
    indent, key = "  " * above.count("."), f"{above}{name}"
    said = [f"{indent}# {comments[key]}"] if key in comments else []
    line = f"{indent}{name}: {_flow(value)}"
    if key in ("experiment", "space") or (isinstance(value, dict) and len(line) > _WIDTH):
        below = [each for item, inner in value.items() for each in _emitted(item, inner, comments, f"{key}.")]
        return [*said, f"{indent}{name}:", *below]
    return [*said, line]


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n...\n").strip()


def _commands(path: Path, searched: bool) -> list[str]:
    file = shlex.quote(str(path))
    search = [f"bgsweep sweep {file}"] if searched else []
    return [f"bgsweep doctor {file}", f"bgsweep preview {file}", f"bgsweep pretrain {file}", *search]


def _recipe_text(name: str) -> str:
    return (_RECIPES / f"{name}.yaml").read_text(encoding="utf-8")


def _this_machine() -> Machine:
    import torch

    return "gpu" if torch.cuda.is_available() else "laptop"
