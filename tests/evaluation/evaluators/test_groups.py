"""Sets of groups: read in every form, written with the tie that was asked for, judged by encoders of known answers."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bgsweep.config import SuiteConfig
from bgsweep.config.evaluation import Groups, Linear, Preprocessing
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.group_sets import read_groups
from bgsweep.evaluation.evaluators.groups import balanced_draws
from bgsweep.evaluation.frozen_model import FrozenModel
from bgsweep.evaluation.registry import run_evaluators
from tests.command import bgsweep

SIDE = 16


def write(path: Path, foreground: int, background: int, draws: np.random.Generator) -> None:
    """An image whose middle has the red of its class, and whose frame has the green of its background."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[..., 1] = 60 + 120 * background + draws.integers(-30, 30)
    image[4:12, 4:12] = (60 + 120 * foreground + draws.integers(-30, 30), 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


@pytest.fixture(scope="module")
def waterbirds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in the layout of Waterbirds: 95 % of train tied, validation and test with as many of each group."""
    root, draws = tmp_path_factory.mktemp("waterbirds"), np.random.default_rng(0)
    rows = [["img_id", "img_filename", "y", "split", "place", "place_filename"]]
    counts = {0: {True: 57, False: 3}, 1: {True: 8, False: 8}, 2: {True: 10, False: 10}}
    for split, sizes in counts.items():
        for label in (0, 1):
            for tied, count in sizes.items():
                for number in range(count):
                    place = label if tied else 1 - label
                    name = f"{label}/{split}{place}{number}.png"
                    write(root / name, label, place, draws)
                    rows.append([str(len(rows)), name, str(label), str(split), str(place), "x"])
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


class Sees(nn.Module):
    """The mean of one channel: red is the foreground alone, green the background alone; both, green the stronger."""

    def __init__(self, red: float, green: float) -> None:
        super().__init__()
        self.weights = torch.tensor([red, green])

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([images[:, :2].mean(dim=(2, 3)) * self.weights, torch.full((len(images), 1), 0.1)], dim=1)


def measured(root: Path, red: float, green: float) -> tuple[dict[str, float], dict[str, object]]:
    network = Sees(red, green)
    device = torch.device("cpu")
    who = FrozenModel(lambda images: network(images.permute(0, 3, 1, 2).float() / 255), network, device)
    config = SuiteConfig(
        groups=Groups(path=str(root / "metadata.csv"), draws=3),
        preprocessing=Preprocessing(resize=SIDE, crop=SIDE),
        evaluate={"linear": Linear(epochs=60)},
    )
    (result,) = run_evaluators(EvalContext(who, config, None), ["groups"])
    return {one.name: one.value for one in result.values}, result.protocol


@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_the_background_alone_fails_in_the_worst_group_and_the_foreground_alone_nowhere(
    waterbirds: Path, probe: str
) -> None:
    background, protocol = measured(waterbirds, 0, 10)
    assert background[f"{probe}/worst_group"] < 0.1 and background[f"{probe}/top1"] == pytest.approx(0.5, abs=0.1)
    assert background[f"{probe}/0, 0"] > 0.9 > 0.1 > background[f"{probe}/0, 1"]
    foreground, _ = measured(waterbirds, 10, 0)
    assert foreground[f"{probe}/worst_group"] == foreground[f"{probe}/mean_group"] == foreground[f"{probe}/top1"] == 1
    assert protocol["groups"]["0, 1"] == {"train": 3, "validation": 8, "test": 10}  # type: ignore[index]


def test_a_balanced_last_layer_finds_the_foreground_beside_a_background_that_is_easier(waterbirds: Path) -> None:
    found, protocol = measured(waterbirds, 1, 10)
    assert found["dfr/worst_group"] > 0.9 and found["knn/worst_group"] < 0.5
    assert "3 draws of 8 images of each group of validation" in str(protocol["dfr"])


def test_draws_have_as_many_of_each_group() -> None:
    of = np.array([0] * 9 + [2] * 4 + [5] * 3)
    first, second = balanced_draws(of, 2, 0)
    assert np.bincount(of[first]).tolist() == np.bincount(of[second]).tolist() == [3, 0, 3, 0, 0, 3]
    assert not torch.equal(first, second) and torch.equal(first, balanced_draws(of, 1, 0)[0])


FORMS = {
    "urbancars": ("train/obj-urban_bg-country_co_occur_obj-urban", "urban", "country, urban", "train"),
    "spawrious": ("test/desert/corgi", "corgi", "desert", "test"),
    "metashift": ("train/cat/cat(sofa)", "cat", "sofa", "train"),
    "counteranimal": ("13 junco/counter-snow", "13 junco", "counter-snow", ""),
    "{split}/*-{label}/{group}": ("val/7-dog/park", "dog", "park", "validation"),
}


@pytest.mark.parametrize("form", FORMS)
def test_names_of_folders_say_class_group_and_split(form: str, tmp_path: Path) -> None:
    folder, label, group, split = FORMS[form]
    draws = np.random.default_rng(0)
    others = [folder.replace(part, "other") for part in (label, group.split(", ")[0]) if split or part != "x"]
    for name in {folder, *others}:
        for part in {"train", "test", name.split("/")[0]} if split else {""}:
            path = Path(part, *Path(name).parts[1:]) if part else Path(name)
            for number in range(4):
                write(tmp_path / path / f"{number}.png", 0, 0, draws)
    (tmp_path / folder / "0_mask.png").write_bytes(b"a mask beside its image, as UrbanCars has")
    found = read_groups(Groups(path=str(tmp_path), form=form))
    name = f"{label}, {group}"
    assert name in found.names and label in found.classes
    files = {path.relative_to(tmp_path).as_posix() for each in found.listings.values() for path in each.paths}
    assert not any("mask" in file for file in files)
    if split:
        (row,) = [n for n, path in enumerate(found.listings[split].paths) if path == tmp_path / folder / "0.png"]
        assert found.names[found.groups[split][row]] == name
        return
    number = found.names.index(name)  # no splits: half of each group trains
    assert [int((found.groups[each] == number).sum()) for each in ("train", "test")] == [2, 2]


def test_a_set_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    def told(text: str, form: str | None = None) -> str:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(UserError) as error:
            read_groups(Groups(path=str(tmp_path / "t.csv" if form is None else tmp_path), form=form))
        return str(error.value)

    assert "no column group; it has path, label" in told("path,label\na.png,x\n")
    assert "line 3 lacks a path, label or group" in told("path,label,group\na.png,x,1\nb.png,,1\n")
    assert "of the split 'dev'" in told("path,label,group,split\na.png,x,1,dev\n")
    assert "2 images of 1 classes in 2 groups" in told("path,label,group\na.png,x,1\nb.png,x,2\n")
    two = "a.png,x,1,train\nb.png,x,2,test\nc.png,y,1,test\n"
    assert "a.png: no such file" in told(f"path,label,group,split\n{two}")
    assert "needs one {label}, and {group}" in told("", "{split}/{label}")
    some = two.replace("c.png,y,1,test", "c.png,y,1,")
    assert "1 images have no split, the first is c.png; name all or none" in told(f"path,label,group,split\n{some}")
    with pytest.raises(UserError, match=r"groups\.path is not set"):
        read_groups(Groups())


def test_a_masked_folder_becomes_a_set_of_groups(shared_data: Path, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        for name in ("dress", "hat"):
            (tmp_path / kind / name).mkdir(parents=True)
            for path in sorted((shared_data / "clothing10" / kind / "train" / name).iterdir())[:24]:
                (tmp_path / kind / name / path.name).symlink_to(path)
    bare = [next((tmp_path / "masks" / name).iterdir()) for name in ("dress", "hat")]
    for path in bare:
        mask = np.zeros_like(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        path.unlink()
        cv2.imwrite(str(path), mask)
    words = ("backgrounds", "make", "images", "masks", "--out", "set", "--groups", "--correlation", "0.9", "--json")
    done = bgsweep(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = read_groups(Groups(path=str(tmp_path / told["table"])))
    assert found.names == ["dress, dress", "dress, hat", "hat, dress", "hat, hat"]
    for split in ("validation", "test"):  # every image before every kind
        assert len(set(np.bincount(found.groups[split]).tolist())) == 1
    train = np.bincount(found.groups["train"], minlength=4)
    assert (train[0] + train[3]) / train.sum() == pytest.approx(told["correlation"])
    assert 0.7 < told["correlation"] < 1
    with (tmp_path / "set" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    of = {
        split: {row["foreground"] for row in rows if row["split"] == split} for split in ("train", "validation", "test")
    }
    stems = {Path(name).stem for split in of.values() for name in split}
    assert len(stems) == 46 and not stems & {path.stem for path in bare}, "images without a foreground are left out"
    assert not of["train"] & of["test"] and not of["validation"] & of["test"]
    assert all(row["foreground"] != row["background"] for row in rows)
    assert "already there" in bgsweep(*words, folder=tmp_path).stderr
