"""Situations that people bring: one row each, run as a stranger would run it.

A row says how its input is made in an empty folder, which command runs there, how it ends and what it says. Inputs are
made from the embedded sample, so that rows run everywhere; `case` takes a folder of ``../shared/cases`` instead and is
skipped where that is absent. No row may end in a traceback or let a library speak for itself.
"""

import re
import runpy
import shlex
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torchvision import models

from bgsweep.data import splits
from bgsweep.errors import warn_once
from bgsweep.tracking import Tracker, tracking_uri
from tests import inputs
from tests.command import bgsweep
from tests.inputs import case

# What libraries print when nobody has silenced them: OpenCV, libpng, libtiff, Python's own warnings.
RAW = re.compile(r"^Traceback|\[ (WARN|ERROR):|lib(png|tiff|jpeg)|TIFF\w+:|^\S+Warning: ", re.M)


class Situation(NamedTuple):
    """One row of the table.

    Attributes:
        id: name of the test.
        make: makes the input in an empty folder.
        command: words after `bgsweep`; ``--store`` is added to commands that take one.
        code: exit code.
        says: pattern that is searched for in all that the command prints.
        never: pattern that must not be found in it.
        environment: variables that are set meanwhile.
    """

    id: str
    make: Callable[[Path], None]
    command: str
    code: int
    says: str
    never: str = r"(?!)"
    environment: Mapping[str, str] = {}


class Foreign:
    """Stands for OmegaConf's and others' classes, which checkpoints of training frameworks hold."""


def weights(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Images to evaluate on, beside ``fine.pt``, the weights of a ResNet-18."""

    def make(folder: Path) -> None:
        inputs.write_images(folder)
        (folder / "suite.yaml").write_text("data: {images: photos}\nsize: 24\n")
        torch.save(models.resnet18().state_dict(), folder / "fine.pt")
        change(folder)

    return make


EVALUATE = "evaluate resnet18=fine.pt --data suite.yaml"
FINE = r"epoch 1 .* unreadable 0 "
# A warning that names the file, and the count in the epoch's line.
SAID = r"(photos|masks)/train/\S+: (damaged|cannot be read)"
UNREADABLE = rf"(?s){SAID}.*epoch 1 .* unreadable [1-9] "

IMAGES = [
    Situation("nothing wrong", inputs.write_images, "pretrain mine.yaml", 0, r"epoch 1 .* unreadable 0 "),
    Situation("case base", case("base"), "pretrain base/mine.yaml", 0, FINE),
    # Files that are gone or cannot be read: named, counted, passed over.
    Situation("case broken-symlink", case("broken-symlink"), "pretrain broken-symlink/mine.yaml", 0, UNREADABLE),
    Situation(
        "case broken-symlink-mask", case("broken-symlink-mask"), "pretrain broken-symlink-mask/mine.yaml", 0, UNREADABLE
    ),
    *(
        Situation(f"{name}, {command}", make, f"{command} mine.yaml", 0, says)
        for name, make in inputs.LOST_FILES.items()
        for command, says in (
            ("pretrain", UNREADABLE),
            ("doctor", r"-- +train .*1 of the 16 looked at"),
            ("preview", SAID),
        )
    ),
    *(
        Situation(f"{name}, pack", make, "pack photos masks --out packed", 0, r"skipped in training: .*dress/\w+\.jpg")
        for name, make in inputs.LOST_FILES.items()
    ),
    Situation(
        "image lost, masks",
        inputs.LOST_FILES["link to nowhere"],
        "masks make photos --out made --method mbd",
        0,
        r"train/dress/\w+\.jpg: .*cannot be read",
    ),
    Situation(
        "link to a folder above",
        inputs.looped,
        "pretrain mine.yaml",
        0,
        r"(?s)it is not followed.*epoch 1 .* unreadable 0 ",
    ),
    # Masks that are not grey of 0 and 255: read right, or refused with the share that is wrong.
    Situation("case mask-rgba-cutout", case("mask-rgba-cutout"), "pretrain mask-rgba-cutout/mine.yaml", 0, FINE),
    Situation("case mask-upper-suffix", case("mask-upper-suffix"), "pretrain mask-upper-suffix/mine.yaml", 0, FINE),
    *(
        Situation(
            f"case mask-palette-voc, {command.split()[0]}",
            case("mask-palette-voc"),
            command,
            2,
            r"has colours \(such as #[0-9a-f]{6}\)",
        )
        for command in (
            "preview mask-palette-voc/mine.yaml --out views.png",
            "doctor mask-palette-voc/mine.yaml",
        )
    ),
    *(
        Situation(f"case {name}", case(name), f"pretrain {name}/mine.yaml", 2, says)
        for name, says in (
            ("mask-16bit-255", r"masks/train/\S+\.png: 16 bits a pixel, but no level above 255.*20 of the 20 masks"),
            ("mask-multiclass", r"masks/train/\S+\.png: its levels are 0, 1, 2, 3, .*20 of the 20 masks"),
            ("mask-palette-voc", r"masks/train/\S+\.png: has colours \(such as #[0-9a-f]{6}\).*20 of the 20 masks"),
            ("mask-trimap-pets", r"masks/train/\S+\.png: its levels are 1, 2, 3, .*20 of the 20 masks"),
            ("mask-void255", r"masks/train/\S+\.png: its levels are 0, 7, 255 .*20 of the 20 masks"),
            ("mask-jpeg", r"20 of 20 images have no mask, .*dress/\w+\.jpg lies there.* PNG of the same name"),
            (
                "mask-name-suffix",
                r"20 of 20 images have no mask, .*dress/\w+_mask\.png lies there.* PNG of the same name",
            ),
        )
    ),
    Situation(
        "masks of 0 and 1 mixed in",
        inputs.one_mask(inputs.coded_by_one),
        "pretrain mine.yaml",
        2,
        r"foreground is 1;.*1 of the 16",
    ),
    Situation(
        "masks of 0 and 1 mixed in, pack",
        inputs.one_mask(inputs.coded_by_one),
        "pack photos masks --out packed",
        2,
        r"foreground is 1;",
    ),
    Situation(
        "case exif-raw-mask",
        case("exif-raw-mask"),
        "pretrain exif-raw-mask/mine.yaml",
        0,
        r"(?s)EXIF orientation.*turned.*epoch 1 .* unreadable 0 ",
    ),
    # What lies among the images.
    Situation("case synology-eadir", case("synology-eadir"), "pretrain synology-eadir/mine.yaml", 0, FINE),
    Situation(
        "case synology-eadir nomask",
        case("synology-eadir"),
        "masks make synology-eadir/photos --out made --method mbd",
        0,
        r"60 masks",
        "eaDir",
    ),
    Situation(
        "images of other formats",
        inputs.other_formats,
        "pretrain mine.yaml",
        0,
        r"(?s)2 files are left out because bgsweep cannot read \.heic \(first: dress/\S+\.heic\).* unreadable 0 ",
    ),
    Situation(
        "two images, one mask", inputs.twins, "pretrain mine.yaml", 2, r"\.jpg and \S+\.png would share the mask"
    ),
    Situation(
        "case one-class", case("one-class"), "pretrain one-class/mine.yaml", 0, r"dress is the only class, so that kNN"
    ),
    Situation(
        "case one-class, evaluate",
        weights(lambda folder: [shutil.rmtree(path) for path in folder.glob("photos/*/hat")]),
        f"{EVALUATE} --suite knn",
        0,
        r"dress is the only class, so that kNN",
    ),
    Situation(
        "square image with an orientation",
        inputs.square_exif,
        "pretrain mine.yaml",
        0,
        r"(?s)train/dress/\S+: the image has an EXIF orientation; .*`bgsweep preview` \(1 of 16.* unreadable 0 ",
    ),
    *(
        Situation(f"name that is no UTF-8, {command.partition(' --')[0]}", inputs.no_utf8, command, 0, says)
        for command, says in (
            ("pretrain mine.yaml", FINE),
            ("doctor mine.yaml", "masks"),
            ("preview mine.yaml --out views.png", "views"),
            ("pack photos masks --out packed", "32 images in"),
            ("masks make photos --out made --method mbd --workers 1", "32 masks by"),
            ("masks show photos masks --out sheet.png --second none", "of 32 masks"),
            ("masks review photos masks --second none", "of 32 masks and 32 drawn at random"),
            ("masks score masks masks", r"\(32 images\)"),
        )
    ),
    *(
        Situation(f"{name}, masks {command.split()[0]}", inputs.LOST_FILES[name], f"masks {command}", 0, says)
        for name in ("mask is a link to nowhere", "mask cut off")
        for command, says in (
            (
                "show photos masks --out sheet.png --second none",
                r"not shown: masks/train/dress/\w+\.png: (damaged|cannot be read)",
            ),
            ("score masks masks", r"(?s)\(31 images\).*not scored: masks/train/dress/\w+\.png: (damaged|cannot be r)"),
        )
    ),
]

# `bgsweep plan` on the files of the case `config`: the pattern of what each must say, and what it ends with.
CONFIGS = [
    Situation(
        f"case config, {name}",
        case("config"),
        f"plan config/{name}.yaml --gpus 1 --epoch-seconds 1",
        2 if says else 0,
        says or r"GPU-hours",
    )
    for name, says in {
        "alias-latest": r"register\.alias: .*latest",
        "alias-v1": r"register\.alias: .*v1",
        "asha-grace": "",
        "batch-choice": r"queue_size 1024 is not a multiple of training\.batch_size 48",
        "choice-dict": r"space\.data\.shortcut: a section",
        "choice-lists": "",
        "choice-mixed": "",
        "choice-none": "",
        "dup-key": r"line 2: the key `experiment`",
        "int-quniform": "",
        "int-uniform": r"encoder\.width: takes whole numbers only",
        "log-low-0": r"weight_decay.*greater than 0",
        "pair-experiment": "",
        "points-null": r"space\.points\.0: a section",
        "points-pair": r"points\[0\]\.background\.remove: .* lies outside",
        "points-str": r"points\[0\]\.background\.remove: 'high' lies outside",
        "register-slash": r"register\.name: .* leave out /",
        "space-list": r"background\.remove: a searched key needs a distribution",
        "space-null": "",
        "step-not-dividing": "",
        "two-keys-clash": r"queue_size 96 is not a multiple of training\.batch_size 64",
        "yaml-1e-3": "",
        "yaml-1e-3-choice": "",
    }.items()
]

STORES = [
    Situation(
        "deleted experiment",
        inputs.deleted_experiment,
        "pretrain mine.yaml --store own",
        2,
        r"MLflow's experiment 'mine' is deleted; restore it with `mlflow experiments restore --experiment-id \d",
    ),
    Situation(
        "damaged database",
        inputs.damaged_store,
        "pretrain mine.yaml --store own",
        2,
        r"own/mlflow\.db: MLflow's database cannot be used: ",
    ),
    Situation(
        "address of a database without its driver",
        inputs.write_images,
        "pretrain mine.yaml",
        2,
        r"MLflow at postgresql://127\.0\.0\.1/mlflow needs the Python package psycopg2?; install it with `pip install",
        "password",
        {"MLFLOW_TRACKING_URI": "postgresql://me:password@127.0.0.1/mlflow"},
    ),
]

REMOVE = "space: {background.remove: {uniform: [0, 0.5]}}"


def space(id: str, text: str, code: int, says: str, never: str = r"(?!)") -> Situation:
    """A sweep of four epochs with other lines, looked at by `bgsweep plan`."""

    def make(folder: Path) -> None:
        own = "" if "experiment:" in text else "experiment: {training: {epochs: 4}}\n"
        (folder / "mine.yaml").write_text(own + text)

    return Situation(id, make, "plan mine.yaml --gpus 1 --epoch-seconds 1", code, says, never)


def named(name: str) -> Callable[[Path], None]:
    """A sweep's file of this name."""

    def make(folder: Path) -> None:
        (folder / name).write_text(f"experiment: {{training: {{epochs: 4}}}}\n{REMOVE}\n")

    return make


WELL = r"GPU-hours"

# What ends a sweep before its first trial, by `bgsweep sweep` itself.
REFUSED = [
    Situation(f"case {name}", case(name), f"sweep {name}/mine.yaml", 2, says, "t00")
    for name, says in (
        ("sweep-alias-v1", r"register\.alias: .*v1"),
        ("sweep-int-uniform", r"space\.encoder\.width: takes whole numbers only"),
        ("sweep-joint2", r"\d+ of 300 draws cannot be trained, such as background\.min_area=.* above the upper bound"),
        ("sweep-register-slash", r"register\.name: .* leave out /"),
    )
]

# Files, keys and stores of a sweep.
SWEEPS = [
    space("nothing searched", "space:\nsearch: {trials: 2}", 0, WELL),
    space(
        "empty sections",
        f"search:\nevaluate:\nregister:\nexperiment: {{training: {{epochs: 4}}, data: , views: }}\n{REMOVE}",
        0,
        WELL,
    ),
    space(
        "key twice",
        f"experiment: {{seed: 1}}\nexperiment: {{seed: 2}}\n{REMOVE}",
        2,
        r"line 2: the key `experiment`.*line 1",
    ),
    space("key twice, deeper", "search:\n  trials: 4\n  seed: 1\n  trials: 8", 2, r"line 5: the key `trials`.*line 3"),
    space(
        "registered name with a slash",
        f"{REMOVE}\nregister: {{name: team/encoder}}",
        2,
        r"register\.name: .* leave out /",
    ),
    space("registered name with an @", f"{REMOVE}\nregister: {{name: a@b}}", 2, r"register\.name: .* leave out /"),
    space("no registered name", f"{REMOVE}\nregister: {{name: ''}}", 2, r"register\.name: "),
    space("registered name with an apostrophe", f'{REMOVE}\nregister: {{name: "Ann\'s encoder"}}', 0, WELL),
    space("alias v1", f"{REMOVE}\nregister: {{alias: v1}}", 2, r"register\.alias: .*latest"),
    space("alias latest", f"{REMOVE}\nregister: {{alias: Latest}}", 2, r"register\.alias: .*latest"),
    space("alias challenger", f"{REMOVE}\nregister: {{alias: challenger}}", 2, r"register\.alias: challenger"),
    space("alias with a space", f"{REMOVE}\nregister: {{alias: my best}}", 2, r"register\.alias: use letters"),
    space(
        "range over a whole number",
        "space: {encoder.width: {uniform: [4, 8]}}",
        2,
        r"encoder\.width: .*quniform: \[4, 8, 1\]",
    ),
    space(
        "log range over a whole number", "space: {method.queue_size: {loguniform: [256, 65536]}}", 2, r"whole numbers"
    ),
    space("broken steps over a whole number", "space: {encoder.width: {quniform: [8, 32, 0.5]}}", 2, r"whole numbers"),
    space(
        "steps over a whole number",
        "experiment: {encoder: {name: resnet10}}\nspace: {encoder.width: {quniform: [8, 32, 8]}}",
        0,
        WELL,
    ),
    space(
        "ranges that cross",
        "space: {background.min_area: {uniform: [0.5, 0.9]}, background.max_area: {uniform: [0.1, 1]}}",
        2,
        r"\d+ of 300 draws cannot be trained, such as background\.min_area=.* above the upper bound",
    ),
    space(
        "steps that miss the multiple",
        "experiment: {training: {batch_size: 32}, method: {queue_size: 64}}\n"
        "space: {training.batch_size: {quniform: [32, 64, 16]}}",
        2,
        r"draws cannot be trained, such as training\.batch_size=48: method\.queue_size 64 is not a multiple",
    ),
    space(
        "1e-3 everywhere",
        """\
experiment: {optimizer: {lr: 1e-3}, training: {epochs: 4}}
space: {optimizer.lr: {loguniform: [1e-4, 1e-1]}, points: [{optimizer.lr: 1e-2}]}""",
        0,
        WELL,
    ),
    space("1e-3 as a choice", "space: {optimizer.lr: {choice: [1e-4, 1E-3, .1e-1]}}", 0, WELL),
    space(
        "a point that is a word",
        f"{REMOVE[:-1]}, points: [{{background.remove: high}}]}}",
        2,
        r"points\[0\].*'high' lies outside",
    ),
    space(
        "a point that is a pair",
        f"{REMOVE[:-1]}, points: [{{background.remove: [0.1, 0.2]}}]}}",
        2,
        r"points\[0\].*lies outside",
    ),
    space("a point that is nothing", f"{REMOVE[:-1]}, points: [null]}}", 2, r"space\.points\.0: "),
    space(
        "the experiment's own pair",
        f"experiment: {{background: {{remove: [0.1, 0.3]}}}}\n{REMOVE[:-1]}, points: [{{}}]}}",
        0,
        WELL,
    ),
    space("a list for a distribution", "space: {background.remove: [0, 0.5]}", 2, r"space\.background\.remove: "),
    space("a log range from 0", "space: {optimizer.weight_decay: {loguniform: [0, 0.1]}}", 2, r"greater than 0"),
    space(
        "grace longer than the run",
        f"{REMOVE}\nsearch: {{trials: 4, grace_epochs: 50}}",
        0,
        r"grace_epochs: 50 is above",
    ),
    space("choice of null", "experiment: {data: {masks: null}}\nspace: {data.resize: {choice: [null, 64]}}", 0, WELL),
    space("choice of pairs", "space: {views.scale: {choice: [[0.2, 1.0], [0.08, 1.0]]}}", 0, WELL),
    space("choice of numbers and pairs", "space: {background.remove: {choice: [0.1, [0.1, 0.3]]}}", 0, WELL),
    space(
        "choice of sections", "space: {data.shortcut: {choice: [null, {rho: 0.5}]}}", 2, r"data\.shortcut: a section"
    ),
    space(
        "choice of batches",
        "experiment: {method: {queue_size: 1024}}\nspace: {training.batch_size: {choice: [48, 64]}}",
        2,
        r"multiple",
    ),
    space(
        "a step that does not divide",
        "space: {background.min_area: {quniform: [0, 0.25, 0.1]}}\nsearch: {trials: 6}",
        0,
        WELL,
    ),
    space("not YAML", "space: {a: [}", 2, r"mine\.yaml: not valid YAML: line 2: "),
    space("a date that is none", "name: 2026-13-45", 2, r"not valid YAML: month"),
    space("a value within itself", "space: &a {points: [*a]}", 2, r"contains itself"),
    space("brackets without end", "space: " + "[" * 2000, 2, r"nested deeper"),
    space("half a character", 'name: "\\ud800"', 2, r"not valid YAML"),
    space("a NUL", 'experiment: {data: {images: "a\\0b"}}', 2, r"NUL"),
    space("a name with a space", "name: my sweep", 2, r"name: use letters.*my sweep"),
    Situation(
        "a file's name with a space", named("my sweep.yaml"), "plan 'my sweep.yaml' --gpus 1 --epoch-seconds 1", 0, WELL
    ),
    Situation("a file's name of dots", named("...yaml"), "plan ...yaml --gpus 1 --epoch-seconds 1", 0, WELL),
    Situation("a file's name in Greek", named("πείραμα.yaml"), "plan πείραμα.yaml --gpus 1 --epoch-seconds 1", 0, WELL),
]


def weight(id: str, write: Callable[[Path], None], says: str, network: str = "resnet10=") -> Situation:
    command = f"evaluate {network}w.pt --suite knn --data suite.yaml"
    return Situation(id, weights(lambda folder: write(folder / "w.pt")), command, 2, says, "holds code")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 98\n"

WEIGHTS = [
    weight("weights: a web page", lambda p: p.write_text("\n<!DOCTYPE html><html></html>"), r"w\.pt: a web page.*raw"),
    weight("weights: a pointer of Git LFS", lambda p: p.write_text(LFS), r"w\.pt: a pointer of Git LFS.*git lfs pull"),
    weight("weights: an empty file", lambda p: p.write_bytes(b""), r"w\.pt: the file is empty"),
    weight("weights: a text", lambda p: p.write_text("hello"), r"w\.pt: not weights that can be read"),
    weight("weights: a folder", lambda p: p.mkdir(), r"w\.pt: Is a directory"),
    weight("weights: none", lambda p: None, r"w\.pt: no such file"),
    weight(
        "weights: a class of another library",
        lambda p: torch.save({"state_dict": {}, "cfg": Foreign()}, p),
        r"holds objects of tests\.test_situations\.Foreign.*python -c",
    ),
    weight(
        "weights: a number of numpy",
        lambda p: torch.save({"state_dict": {}, "best": np.float64(0.5)}, p),
        r"holds objects of numpy\.\S*scalar.*python -c",
    ),
    weight("a checkpoint that is a web page", lambda p: p.write_text("<html>"), r"w\.pt: a web page", ""),
    Situation(
        "resnet51",
        inputs.write_images,
        "pretrain mine.yaml encoder.name=resnet51",
        2,
        r"encoder\.name: no model 'resnet51' in torchvision.*(resnet5|resnet101|resnet152)",
        "width",
    ),
    Situation(
        "loss that is no number",
        inputs.write_images,
        "pretrain mine.yaml optimizer.lr=1e30",
        2,
        r"loss is .*lower optimizer\.lr",
    ),
    Situation(
        "more cores than there are",
        inputs.write_images,
        "sweep mine.yaml search.cpus=4096 search.trials=1",
        2,
        r"search\.cpus: 4096 cores are more",
    ),
    Situation(
        "more cores than there are, of workers",
        inputs.write_images,
        "pretrain mine.yaml workers.count=2 workers.cpus=4096",
        2,
        r"workers\.cpus: 4096 cores are more",
    ),
]

# A recipe for the bundled images with background augmentations, which a folder without masks cannot have.
TINY = shlex.quote(str(Path(__file__).parent / "tiny.yaml"))
SUITE = "data: {images: nowhere}\nsize: 24\n"


def suite_of_nowhere(folder: Path) -> None:
    inputs.write_images(folder)
    (folder / "suite.yaml").write_text(SUITE)
    (folder / "nowhere.yaml").write_text(inputs.YAML.replace("images: photos, masks: masks", "images: nowhere"))


NOWHERE = [
    *(
        Situation(f"images nowhere, {command}", suite_of_nowhere, command, 2, r"^error: .*\bnowhere\b", "Downloading")
        for command in (
            f"pretrain {TINY} data.images=nowhere",
            f"sweep {TINY} data.images=nowhere 'space={{background.remove: {{uniform: [0, 0.5]}}}}'",
            f"plan {TINY} data.images=nowhere --gpus 1",
            f"submit {TINY} data.images=/nowhere --address http://127.0.0.1:1",
            f"preview {TINY} data.images=nowhere",
            f"evaluate resnet10=w.pt {TINY} data.images=nowhere",
            "pretrain mine.yaml data.images=nowhere data.masks=nobody",
            "evaluate torchvision:resnet18 --suite knn --data suite.yaml",
            "compare torchvision:resnet18 torchvision:resnet50 --suite knn --data suite.yaml",
            "pack nowhere masks --out packed",
            "masks make nowhere --out made",
            "masks train nowhere --out made.onnx",
            "masks show nowhere masks --second none",
            "masks score nowhere masks",
            "backgrounds make nowhere masks --out made",
        )
    ),
    Situation("images nowhere, doctor", suite_of_nowhere, "doctor nowhere.yaml", 2, "data.images: no folder nowhere"),
    *(
        Situation(f"masks nowhere, {command}", inputs.write_images, command, 2, r"^error: .*\bnowhere: no such folder")
        for command in (
            "pack photos nowhere --out packed",
            "masks show photos nowhere --second none",
            "masks score masks nowhere",
            "backgrounds make photos/test nowhere --out made",
        )
    ),
]


def saved_as(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """The file of the run as another editor would save it."""
    return inputs.changed(lambda folder: (folder / "mine.yaml").write_bytes(change(inputs.YAML.encode())))


def suite_of_a_missing_set(folder: Path) -> None:
    weights(lambda _: None)(folder)
    (folder / "suite.yaml").write_text("sets: {imagenet9: nowhere}\n")


def class_named(name: str) -> Callable[[Path], None]:
    """The class dress under another name."""
    return inputs.changed(lambda folder: [path.rename(path.with_name(name)) for path in folder.glob("*/*/dress")])


def huge(path: Path) -> None:
    """A PNG of a few bytes that says that it has 3.6 gigapixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def one_huge(folder: Path) -> None:
    path = sorted((folder / "photos" / "train").rglob("*.jpg"))[1]
    path.unlink()
    huge(path.with_suffix(".png"))


SEARCH = "sweep mine.yaml 'space={optimizer.lr: {uniform: [0.1, 0.2]}}'"
INVENTED = [
    Situation(
        "file with a byte order mark", saved_as(lambda text: b"\xef\xbb\xbf" + text), "pretrain mine.yaml", 0, FINE
    ),
    Situation(
        "file of Windows' lines", saved_as(lambda text: text.replace(b"\n", b"\r\n")), "pretrain mine.yaml", 0, FINE
    ),
    Situation(
        "file with tabs",
        saved_as(lambda text: text.replace(b"  data", b"\tdata")),
        "pretrain mine.yaml",
        2,
        r"line 2:.*\\t",
    ),
    Situation(
        "file in UTF-16",
        saved_as(lambda text: text.decode().encode("utf-16")),
        "pretrain mine.yaml",
        2,
        r"mine\.yaml: not a text in UTF-8; save",
    ),
    Situation(
        "an image as the file",
        saved_as(lambda _: b"\xff\xd8\xff\xe0" + bytes(99)),
        "pretrain mine.yaml",
        2,
        r"mine\.yaml: not a text in UTF-8",
    ),
    Situation(
        "an empty file", saved_as(lambda _: b""), "pretrain mine.yaml", 2, r"mine\.yaml: has no settings; begin with"
    ),
    Situation(
        "a decimal comma",
        saved_as(lambda _: b"experiment: {background: {remove: 0,3}}"),
        "pretrain mine.yaml",
        2,
        r"3 stands where a key is needed; .*decimals with a point, such as 0\.3",
    ),
    Situation("a file as the store", inputs.write_images, "status --store mine.yaml", 2, r"mine\.yaml: not a folder"),
    Situation("an image of 3.6 gigapixels", inputs.changed(one_huge), "pretrain mine.yaml", 0, UNREADABLE),
    Situation("a class with a space and accents", class_named("ünï cöde 👗"), "pretrain mine.yaml", 0, FINE),
    Situation("a class that begins like an option", class_named("-rf"), "pretrain mine.yaml", 0, FINE),
    Situation(
        "a pack inside the images", inputs.write_images, "pack photos masks --out photos/packed", 2, r"inside photos"
    ),
    Situation(
        "a suite without its files",
        suite_of_a_missing_set,
        "evaluate resnet18=fine.pt --suite imagenet9 --data suite.yaml",
        2,
        r"^error: .*nowhere",
    ),
    Situation(
        "an encoder that nobody registered",
        inputs.write_images,
        "evaluate models:/nobody@champion --suite knn",
        2,
        r"models:/nobody@champion: .*check the name",
        "INFO",
    ),
    Situation(
        "RAY_ADDRESS of words",
        inputs.write_images,
        SEARCH,
        2,
        r"RAY_ADDRESS=hello world: name HOST",
        environment={"RAY_ADDRESS": "hello world"},
    ),
    Situation(
        "a sweep's name with a space", inputs.write_images, f"{SEARCH} --name 'my sweep'", 2, r"use letters, digits"
    ),
    Situation(
        "no MLflow behind the address",
        inputs.write_images,
        "models",
        2,
        r"^error: .*127\.0\.0\.1:1\b",
        environment={"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"},
    ),
]

TABLE = IMAGES + CONFIGS + REFUSED + SWEEPS + WEIGHTS + STORES + NOWHERE + INVENTED


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has been opened once: to make one takes seconds, to copy one nothing."""
    store = tmp_path_factory.mktemp("situations") / "store"
    with Tracker(tracking_uri(store)) as tracker:
        assert tracker.experiment_id
    return store


@pytest.fixture(autouse=True)
def a_process_of_its_own() -> None:
    """Forget what a process keeps, for all rows have the same relative paths."""
    splits._open.cache_clear()
    warn_once.cache_clear()


@pytest.mark.parametrize("row", TABLE, ids=[row.id for row in TABLE])
def test_situation(
    row: Situation,
    tmp_path: Path,
    empty_store: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row.make(tmp_path)
    for name, value in row.environment.items():
        monkeypatch.setenv(name, value)
    words = shlex.split(row.command)
    if words[0] in ("pretrain", "sweep", "evaluate", "doctor") and "--store" not in words:
        shutil.copytree(empty_store, tmp_path / "store")
        words += ["--store", "store"]
    ended = bgsweep(*words, folder=tmp_path)
    raw = capfd.readouterr()
    told = "\n".join([*caplog.messages, ended.stdout, ended.stderr, raw.out, raw.err])
    assert ended.returncode == row.code, told
    assert re.search(row.says, told, re.M), told
    for pattern in (RAW, re.compile(row.never)):
        assert not pattern.search(told), told
    if row.code and words[0] != "doctor":  # which tells of each check
        assert len(re.findall("^error: ", told, re.M)) == 1, told


def test_every_case_has_a_row() -> None:
    if not inputs.CASES.is_dir():
        pytest.skip("the shared cases do not lie beside this checkout")
    known = {row.id for row in TABLE}
    folders = {path.name for path in inputs.CASES.iterdir() if path.is_dir()} - {"transforms-api"}  # tested below
    assert not {name for name in folders if not any(id.startswith(f"case {name}") for id in known)}
    files = {path.stem for path in (inputs.CASES / "config").glob("*.yaml")}
    assert not {name for name in files if f"case config, {name}" not in known}


def test_transforms_take_or_name_what_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    case_folder = inputs.CASES / "transforms-api"
    if not case_folder.is_dir():
        pytest.skip("the shared cases do not lie beside this checkout")
    runpy.run_path(str(case_folder / "alb.py"))
    told = dict(re.findall(r"^(.+?) (OK.*|\w+Error .*)$", capsys.readouterr().out, re.M))
    whole = told.pop("uint8 255")
    assert re.fullmatch(r"OK 0\.\d+", whole) and whole != "OK 0.0"
    for kind in ("mask 0/1", "mask bool", "mask float 0..1", "mask HxWx1", "mask int64 0/255"):
        assert told.pop(kind) == whole
    assert re.match(r"OK .*float32", told.pop("float image"))
    for kind in ("mask HxWx3", "grey image", "no mask", "size mismatch"):
        assert re.match(r"ValueError .*(image|mask)", told.pop(kind)), kind
    assert told and all(words.startswith("OK ") for words in told.values())
    runpy.run_path(str(case_folder / "alb2.py"))
    out = capsys.readouterr().out
    ends = {name: (float(low), float(high)) for name, low, high in re.findall(r"(\w+) float32 .* (\S+) (\S+)", out)}
    assert ends["black"] == (0, 0) and 0 < ends["random_gray"][0] == ends["random_gray"][1] <= 1
    assert 0 < ends["mean"][0] <= ends["mean"][1] < 1 and ends["noise"][1] - ends["noise"][0] > 0.9
    assert re.search(r"^dict changed 0\.8", out, re.M) and not re.search("changed 0.0", out)
    for kind in ("image only", "array", "None", "empty"):
        assert re.search(rf"^{kind} (Value|Type)Error donor: ", out, re.M), out
