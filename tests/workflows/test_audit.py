"""`bgsweep audit` as a user calls it: labels or none, masks or none, one encoder or several, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bgsweep.config import load
from bgsweep.evaluation.audit import measures
from bgsweep.evaluation.audit.measure import Found, Measure
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import share
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.training.run import Run
from bgsweep.workflows import audit_images as images_of
from bgsweep.workflows.audit import audit
from tests.command import bgsweep
from tests.inputs import write_images

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, masks and checkpoints of two untrained encoders."""
    folder = tmp_path_factory.mktemp("audit")
    write_images(folder)
    for seed in (0, 1):
        Run(load(TINY, [f"seed={seed}"])).save(folder / f"encoder{seed}")
    return folder


@pytest.fixture(scope="module")
def two(place: Path) -> dict[str, Any]:
    """The record of two encoders, with the masks given, as the command prints it."""
    done = bgsweep("audit", "encoder0", "encoder1", "photos", "masks", "--out", "page.html", "--json", folder=place)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_measure_has_a_row_for_each_value_and_a_cell_for_each_encoder(place: Path, two: dict[str, Any]) -> None:
    assert [one["name"] for one in two["measures"]] == [one.name for one in measures.MEASURES]
    for measure in two["measures"]:
        statuses = {one["status"] for one in measure["models"]}
        # Of eight images no group has five; a ResNet has no attention.
        if measure["name"] in ("groups", "attention"):
            assert statuses == {"not applicable"}
            continue
        assert statuses == {"measured"}, (measure["name"], measure["models"])
        assert measure["rows"]
        assert all(len(row["models"]) == 2 for row in measure["rows"])
    gap = next(row for row in two["measures"][0]["rows"] if row["name"] == "linear/bg_gap")
    assert {"value", "lower", "upper", "difference"} <= gap["models"][1].keys()
    assert all("accuracy" in one["verdict"] for one in two["models"])


def test_page_and_json_stand_beside_each_other(place: Path, two: dict[str, Any]) -> None:
    page = (place / "page.html").read_text(encoding="utf-8")
    written = json.loads((place / "page.json").read_text(encoding="utf-8"))
    assert written == {key: value for key, value in two.items() if key != "page"}
    assert "data:image" not in json.dumps(written)
    assert len(page) < 5e6 and "http://" not in page.partition("<script")[0]
    for model in two["models"]:
        assert model["verdict"].split("(")[0] in page
    for measure in two["measures"]:
        assert f'id="{measure["name"]}"' in page


def test_a_second_call_measures_nothing(place: Path, two: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(Subject, "encoded", never)
    monkeypatch.setattr("bgsweep.evaluation.audit.measures._run", never)
    store = place / "bgsweep_runs"
    found = audit([str(place / "encoder1")], place / "photos", place / "masks", place / "again.html", store)
    for before, after in zip(two["measures"], found["measures"], strict=True):
        for row, same in zip(before["rows"], after["rows"], strict=True):
            assert row["models"][1]["value"] == same["models"][0]["value"]


def test_images_without_classes_and_masks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = place / "flat"
    flat.mkdir()
    for number, file in enumerate(sorted((place / "photos").rglob("*.jpg"))[:10]):
        (flat / f"{number}.jpg").write_bytes(file.read_bytes())
    made: list[Path] = []

    def masks_made(images: str, out: str) -> dict[str, Any]:
        made.append(Path(images))
        given = {file.stem: file for file in (place / "masks").rglob("*.png")}
        for link in Path(images).rglob("*.jpg"):
            name = next(one for one in (place / "photos").rglob("*.jpg") if one.read_bytes() == link.read_bytes()).stem
            target = Path(out) / link.relative_to(images).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(given[name].read_bytes())
        return {"made": len(given)}

    monkeypatch.setattr(images_of, "make_masks", masks_made)
    found = audit([str(place / "encoder0")], flat, None, place / "flat.html", place / "bgsweep_runs", limit=8)
    assert not found["labelled"] and found["images"]["found"] == 10
    assert found["images"]["probe"] + found["images"]["audited"] == 8 == len(list(made[0].rglob("*.jpg")))
    assert "cannot be judged" in found["models"][0]["verdict"]  # four images have too few foregrounds
    assert not [one["reason"] for m in found["measures"] for one in m["models"] if one["status"] == "failed"]


def test_a_failure_is_on_the_page_and_in_the_output(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(subject: Subject) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    broken = Measure("broken", "Broken", "It fails.", fails)
    store, page = place / "bgsweep_runs", place / "broken.html"
    found = audit(
        [str(place / "encoder0")], place / "photos", place / "masks", page, store, measures=(*measures.MEASURES, broken)
    )
    assert found["measures"][-1]["models"][0]["reason"] == "OutOfMemoryError: out of memory"
    assert "failed: OutOfMemoryError: out of memory" in page.read_text(encoding="utf-8")


def test_a_run_is_open_before_anything_is_measured_and_gone_on_with(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tracking_uri(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    stop = True

    def stops(subject: Subject) -> Found:
        if stop:
            raise KeyboardInterrupt
        return Found([share("value", np.ones(4))])

    suite = (measures.MEASURES[0], Measure("own", "", "", stops))
    arguments = [str(place / "encoder0")], place / "photos", place / "masks", tmp_path / "page.html", tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        audit(*arguments, measures=suite)
    with Tracker(address) as tracker:
        (before,) = tracker.client.search_runs([tracker.experiment_id])
        assert before.info.status == "KILLED" and "test/audit/variants/linear/bg_gap" in before.data.metrics
        stop = False
        audit(*arguments, measures=suite)
        (after,) = tracker.client.search_runs([tracker.experiment_id])
        assert after.info.run_id == before.info.run_id and after.info.status == "FINISHED"
        assert after.data.metrics["test/audit/own/value"] == 1
        history = tracker.client.get_metric_history(after.info.run_id, "test/audit/variants/linear/bg_gap")
        assert len(history) == 1 and after.inputs.dataset_inputs
        assert {"audit.html", "audit.json"} <= {one.path for one in tracker.client.list_artifacts(after.info.run_id)}


def test_the_sample_has_as_many_images_of_each_class(place: Path) -> None:
    found = images_of.audit_images(place / "photos", place / "masks", 8, 0, place / "bgsweep_runs")
    other = images_of.audit_images(place / "photos", place / "masks", 8, 1, place / "bgsweep_runs")
    assert found.splits.train.labels.tolist() == [0, 0, 1, 1] and len(found.splits.test) == 4
    assert sorted(found.splits.train.ids) != sorted(other.splits.train.ids)
    assert found.folder != other.folder


def test_measures_of_many_versions_take_a_sample_unless_all_are_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgsweep.workflows.audit.PART", 5)
    arguments = (
        [str(place / "encoder0")],
        place / "photos",
        place / "masks",
        place / "part.html",
        place / "bgsweep_runs",
    )
    some = audit(*arguments)
    page = (place / "part.html").read_text(encoding="utf-8")
    assert "take 5 of them, of each class its share; --full takes all" in page and "5 images</small>" in page
    all_ = audit(*arguments, full=True, precision="fp32")
    assert (some["images"]["part"], some["images"]["usable"]) == (5, 8)
    for found, part in ((some, 5), (all_, 8)):
        taken = {row["name"]: row["images"] for one in found["measures"] for row in one["rows"]}
        assert taken["linear/bg_gap"] == taken["background_robustness"] == 8
        assert taken["rfs"] == taken["centre_bias"] == taken["gap"] == taken["kept"] == part
    assert all_["models"][0]["origin"]["precision"] == "float32"


def test_lost_files_and_too_few_images_of_a_class(place: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely"
    for label in ("dress", "hat"):
        (lonely / label).mkdir(parents=True)
        for number, file in enumerate(sorted((place / "photos" / "train" / label).iterdir())):
            (lonely / label / f"{number}.jpg").symlink_to(file if number else tmp_path / "gone.jpg")
            mask = place / "masks" / "train" / label / f"{file.stem}.png"
            (tmp_path / "masks" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "masks" / label / f"{number}.png").symlink_to(mask)
    store = tmp_path / "store"
    found = images_of.audit_images(lonely, tmp_path / "masks", 100, 0, store)
    assert found.labelled and found.about["probe"] + found.about["audited"] in (14, 16)
    for file in sorted((lonely / "hat").iterdir())[1:]:
        file.unlink()
    few = images_of.audit_images(lonely, tmp_path / "masks", 100, 0, store)
    assert not few.labelled and few.about["unlabelled"] == "no two classes of the sample have several images"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encoder0", "nothing"], "nothing: no such folder; name the models, then the folder of the images"),
        (["encoder0", "encoder1"], "encoder1: no such folder; name the models, then the folder of the images"),
        (["lost", "photos"], "lost: no such checkpoint"),
        (["encoder0", "photos", "--out", "lost/page.html"], "--out lost/page.html: the folder"),
        (["encoder0", "photos", "--out", "page.json"], "--out page.json: name the page's file"),
        (["encoder0", "photos", "--seed", "-1"], "--seed -1: give a seed from 0 on"),
    ],
)
def test_mistakes_are_told(place: Path, words: list[str], said: str) -> None:
    done = bgsweep("audit", *words, folder=place)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
