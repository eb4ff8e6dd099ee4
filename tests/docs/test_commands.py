"""Every command that README and docs show can be given as it stands there, and runs: here, or in a test of its own."""

import re
import shlex
import shutil
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from bgsweep.cli.main import main, parse
from bgsweep.cli.masks import MasksTrain
from bgsweep.config import load, mask_training
from bgsweep.data.datasets.bundled import EmbeddedSample
from tests.command import fresh

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FILE = ROOT / "search_spaces" / "moco_v2_small.yaml"

ELSEWHERE = {
    r"bgsweep (sweep|report|status)\b(?!.*--(address|resume|store))": "docs/test_tutorial.py",
    r"bgsweep (stop NAME|sweep --resume NAME)$": "sweep/test_resume.py",
    r"bgsweep sweep --resume NAME register": "sweep/test_end.py",
    r"bgsweep sweep --resume NAME (search|data|--retry)": "sweep/test_changes.py",
    r"bgsweep (gc|rm)\b": "sweep/test_collect.py",
    r"bgsweep (pretrain|sweep) .*--from ": "training/test_initial_weights.py",
    r"bgsweep policy": "sweep/test_policy.py",
    r"python examples/(sweep|own_method|audit_timm).py": "docs/test_examples.py",
    r"bgsweep export": "workflows/test_export.py",
    r"bgsweep audit": "workflows/test_audit.py",
    r"bgsweep compare NAME": "workflows/test_compare.py",
    r"bgsweep (runs|status NAME --watch)": "sweep/test_trial_table.py",
    r"bgsweep sweep .*--(notify|on-end)": "sweep/test_notify.py",
    r"bgsweep (models|promote)\b": "tracking/test_registry.py",
    r"bgsweep pretrain .* workers.count=": "faults/test_ray_train.py",
    r"(bgsweep|ray job) .*--address": "rehearsal/test_rehearsal.py",
    r"bgsweep masks make .*--(network|soft)": "workflows/test_make_masks.py",
    r"bgsweep masks make photos": "workflows/test_make_masks.py",
    r"bgsweep masks drop": "workflows/test_review_masks.py",
    r"bgsweep masks import": "workflows/test_import_masks.py",
    r"python scripts/cut_sample.py": "scripts/test_cut_sample.py",
    r"bgsweep plan .*--images": "sweep/test_footprint.py",
    r"python -m benchmarks.gpu": "benchmarks/test_gpu.py",
    r"python benchmarks/(imagenette|cifar10).py": "benchmarks/test_published.py",
    r"python benchmarks/leaderboard.py": "benchmarks/test_leaderboard.py",
    r"python (\.\./)?examples/neighbours.py": "docs/test_tutorial.py",
}
"""Commands that need a cluster, a sweep or weights, and the tests that run them."""

INSTEAD = {
    "s3://bucket/images.pack": "{folder}/images.pack",  # a URI is what tests/data/test_pack.py is about
    "MODEL MODEL": "CHECKPOINT CHECKPOINT",
    "compare A B --out page.html": "compare CHECKPOINT CHECKPOINT --suite knn --out page.html",
    "evaluate MODEL": "evaluate CHECKPOINT",
    "NAME,NAME": "knn,backgrounds",
    "bgsweep_runs/…/state.pt": "CHECKPOINT",
    "IMAGES MASKS": "images/test truth/test",
    "DIR": "variants",
    "images --out masks --method usps": "images --out learnt --method usps",
    "--out masks.onnx": "--out masks.onnx side=32 rounds=1 epochs=1 student_epochs=1 batch_size=8 device=cpu",
    "masks show images masks": "masks show images masks --rate 16",
    "masks review images masks": "masks review images masks --rate 16",
    "pack images masks": "pack images truth",
    "search_spaces/": "{root}/search_spaces/",
}


def shown(page: Path) -> list[str]:
    """The commands in a page's blocks of code, without comments and what is marked as optional."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [*(line[4:] for line in text.splitlines() if line.startswith("    ")), *"\n".join(blocks).splitlines()]
    found = [re.sub(r"\s+#.*| \[--json\]|\|quick\|paper| …(?= )", "", line).strip() for line in lines]
    return [re.sub(r"\[(\w+)\]", r"\1", line) for line in found if re.match(r"(bgsweep|python|make|ray) \w", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_can_be_given_as_they_stand(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for command in shown(page):
        kind, first, *words = shlex.split(command)
        if kind == "make":
            assert first in targets, command
        elif kind == "python":
            assert first == "-m" or (ROOT / first.removeprefix("../")).is_file(), command
        elif kind == "ray":
            assert command.index(" -- bgsweep ")
            parse(shlex.split(command.partition(" -- bgsweep ")[2]))
        else:
            options = parse([first, *words])
            overrides = getattr(options, "overrides", [])
            if isinstance(options.command, MasksTrain):
                mask_training(overrides)
            else:
                masked = any(each.startswith("data.masks=") for each in overrides)
                # Pages give masks to files that name other images.
                load(FILE, [*(["data.images=DIR"] if masked else []), *overrides])


def test_every_command_has_a_test_that_runs_it() -> None:
    for page in PAGES:
        for command in shown(page):
            test = next((test for form, test in ELSEWHERE.items() if re.search(form, command)), None)
            if test is None:
                assert command.startswith("make ") or page.stem in RUN_HERE or page.parent.name == "tutorial", command
            else:
                word = Path(command.split()[1]).stem
                assert word in (ROOT / "tests" / test).read_text(encoding="utf-8"), command


RUN_HERE = ("README", "concepts", "masks", "packs", "evaluation", "sweeps")


MINE = """
experiment:
  data: {images: images, masks: truth, validation: null, holdout: 0.3, resize: 40, cache: true, loader_workers: 0}
  views: {size: 24, blur: 0.0}
  background: {remove: 0.2, random: 0.2}
  method: {queue_size: 32, hidden_dim: 32, embedding_dim: 16, split_bn: 2}
  encoder: {name: resnet10, width: 8, stem: small}
  training: {epochs: 2, batch_size: 16}
space:
  background.remove: {uniform: [0.0, 0.5]}
  background.random: {uniform: [0.0, 0.5]}
search: {trials: 3}
evaluate: {variant: mixed_rand}
register: {name: mine}
"""
"""A file for the images of `write_sample`."""


def write_sample(folder: Path) -> None:
    """Write embedded images of four classes into `images`, and their masks into `truth`."""
    for split, share in (("train", 8), ("test", 4)):
        sample = EmbeddedSample(split)
        for index in [index for index in range(0, len(sample), share) if sample.labels[index] < 4]:
            image = sample[index]
            for tree, picture in (("images", image.image[..., ::-1]), ("truth", image.mask)):
                path = folder / tree / split / sample.classes[image.label] / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(path), picture)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of four classes, their true masks, the files that the pages name, and a checkpoint."""
    folder = tmp_path_factory.mktemp("reader")
    write_sample(folder)
    file = yaml.safe_load(MINE)
    (folder / "mine.yaml").write_text(yaml.safe_dump(file))
    del file["experiment"]["data"]["images"], file["experiment"]["data"]["masks"]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(file))
    data = {"images": "images", "masks": "truth", "train": "train", "test": "test"}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"data": data, "size": 32, "evaluate": {"repeats": 1}}))
    from torchvision.models import resnet50

    state = {f"module.encoder_q.{name}": value for name, value in resnet50().state_dict().items()}
    torch.save({"arch": "resnet50", "state_dict": state}, folder / "moco_v2.pth.tar")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.faults) if page == "masks" else page for page in RUN_HERE]
)
def test_commands_run(
    place: Path, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / page
    shutil.copytree(place, folder)
    monkeypatch.chdir(folder)
    path = next(path for path in PAGES if path.stem == page)
    here = [one for one in shown(path) if not any(re.search(form, one) for form in ELSEWHERE)]
    here = [one for one in here if one.startswith("bgsweep ")]
    assert here
    checkpoint = ""
    if any("CHECKPOINT" in substituted(one, folder) for one in here):
        assert main(["pretrain", "mine.yaml"]) == 0, capsys.readouterr().err
        checkpoint = str(next(folder.glob("bgsweep_runs/pretrain/*/state.pt")))
    for command in here:
        words = shlex.split(substituted(command, folder).replace("CHECKPOINT", checkpoint))
        done = fresh(shlex.join(words), folder)  # as in a new shell: a new process, nothing in its environment
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def substituted(command: str, folder: Path) -> str:
    for text, other in INSTEAD.items():
        command = command.replace(text, other.format(folder=folder.as_uri(), root=ROOT))
    return command
