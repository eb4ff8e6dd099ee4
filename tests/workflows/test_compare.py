"""Encoders, trials and sweeps side by side."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import load
from bgsweep.report.charts import Measures, courses
from bgsweep.sweep.events import Ended, Result, Started
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.trial import dump
from bgsweep.sweep.trial_record import TrialRecord
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.models import log_encoder
from bgsweep.tracking.registry import add_version
from bgsweep.training.checkpoint import untrained
from bgsweep.training.run import Run
from bgsweep.workflows import compare
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}


_LOWER = [(1, {"alpha_req": 0.4}), (2, {"loss": 1.0}), (3, {"alpha_req": 0.18}), (4, {"alpha_req": 0.3})]


def write_sweep(store: Path, name: str, scores: list[float], seed: int, ended: bool = True) -> None:
    """A sweep with a trial for each score; its champion is an untrained encoder of that seed."""
    config = load(TINY, ["space.background.remove={uniform: [0, 0.8]}", f"seed={seed}"])
    manifest: dict[str, Any] = {"file": dump(config), "digest": "d", "parent": "p", "owner": ELSEWHERE}
    if ended:
        experiment = config.experiment
        with Tracker(tracking_uri(store), "tiny") as tracker:
            run = tracker.pretrain_run(name, config)
            encoder, description = untrained(experiment).encoder, experiment.model_dump(mode="json")
            model = log_encoder(tracker, run, encoder, experiment.views.size, description)
            version = add_version(tracker, run, model, "tiny", {})
        metrics = {"knn_top1": 0.5, "linear_top1": 0.6, "backgrounds": {"bg_gap": 0.1}}
        best = {"trial": "t00", "params": {"background.remove": 0.25}, "metrics": metrics}
        manifest["result"] = {"best": best, "model": {"name": "tiny", "version": version}}
        Run(config).save(store / "first" / name)
    write_manifest(store / "sweeps" / name, manifest)
    journal = Journal(store / "sweeps" / name)
    for number, score in enumerate(scores):
        record = TrialRecord(f"t{number:02d}", {"background.remove": 0.25}, None, "d", "run")
        journal.write(Started(trial=record.copy()))
        event = Result(id=record.id, epoch=3, metrics={"knn_top1": score}, seconds=10.0)
        event.apply(record)
        journal.write(event)
        record.status = "completed"
        if ended and number == 0:
            record.checkpoint = str(store / "first" / name)
        journal.write(Ended(trial=record))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_sweep(folder, "one", [0.2, 0.4, 0.3], 0)
        write_sweep(folder, "two", [0.5, 0.1], 1)
        write_sweep(folder, "three", [0.3], 2, ended=False)
    return folder


def test_champions_are_compared_image_by_image_and_courses_drawn(store: Path, tmp_path: Path) -> None:
    words = ("compare", "one", "two", "three", "--suite", "knn", "--store", store)
    done = bgsweep(*words, "--out", "page.html", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [one["model"] for one in result["models"]] == ["models:/tiny/1", "models:/tiny/2"]
    assert result["sweeps"] == ["one", "two", "three"] and result["settings"] == {"seed": [0, 1]}
    (row,) = [row for row in result["rows"] if row["name"] == "knn_top1"]
    (found,) = row["differences"]
    assert found["lower"] <= found["value"] <= found["upper"] and found["lower"] < found["upper"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL), "something to be fetched"
    assert "<code>three</code></td><td>interrupted</td>" in page and "t00: background.remove 0.25" in page
    interval = f"[{100 * found['lower']:+.1f}, {100 * found['upper']:+.1f}]"
    assert f"{100 * found['value']:+.1f}" in page and interval in page
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL).group(1))  # type: ignore[union-attr]
    lines = {each["name"]: (each["x"], each["y"]) for each in figures["by_epochs"]["data"]}
    assert lines == {"one": ([3, 6, 9], [0.2, 0.4, 0.4]), "two": ([3, 6], [0.5, 0.5]), "three": ([3, 3], [0.3, 0.3])}
    assert figures["differences"]["data"][0]["x"] == [each["differences"][0]["value"] for each in result["rows"][::-1]]
    only = re.search(r"one alone is right on (\d+) images, two alone on (\d+)", page)
    assert only is not None and (int(only[2]) - int(only[1])) / 200 == pytest.approx(found["value"])


def test_trials_and_models_stand_beside_sweeps(store: Path, tmp_path: Path) -> None:
    words = ("models:/tiny/1", "two", "two/t00", "--suite", "knn", "--store", store)
    done = bgsweep("compare", *words, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["page"] is None and [one["name"] for one in result["models"]] == list(words[:3])
    for row in result["rows"]:
        assert row["values"][1] == row["values"][2]  # the trial is the champion
    for trial, said in (("t01", "the trial t01 has no checkpoint"), ("t09", "no trial t09")):
        done = bgsweep("compare", "one", f"two/{trial}", "--store", store, folder=tmp_path)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_where_lower_is_better_the_best_so_far_is_the_lowest() -> None:
    events = [Result(id="t00", epoch=epoch, metrics=metrics, seconds=1.0) for epoch, metrics in _LOWER]
    events = [replace(event, time=float(second)) for second, event in enumerate(events)]
    found = compare._course(events, Measures("alpha_req", None, "alpha_req", -1, share=False))
    assert found == [(0.0, 1, 0.4), (2.0, 3, 0.18), (3.0, 4, 0.18)]
    drawn = courses({"one": [(1, 0.4)]}, "epochs", "alpha_req", share=False)
    assert drawn["layout"]["yaxis"]["tickformat"] == ".3g" and "{y:.4g}" in drawn["data"][0]["hovertemplate"]


def test_without_champions_there_are_the_courses(store: Path, tmp_path: Path) -> None:
    done = bgsweep("compare", "one", "three", "--out", "page.html", "--store", store, folder=tmp_path)
    assert done.stdout == "wrote page.html: open it in a browser\n", done.stderr
    assert "fewer than two of the names have an encoder" in (tmp_path / "page.html").read_text(encoding="utf-8")
    done = bgsweep("compare", "one", "two", "--suite", "none", "--out", "page.html", "--store", store, folder=tmp_path)
    assert "nothing was evaluated" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_gives_no_comparison_is_refused(store: Path, tmp_path: Path) -> None:
    for words, said in (
        (["one"], "name two or more"),
        (["one", "four"], "no sweep four"),
        (["one", "three"], "fewer than two of the names have an encoder"),
        (["models:/tiny/1", "models:/tiny/2", "--suite", "none", "--out", "page.html"], "nothing was evaluated"),
    ):
        done = bgsweep("compare", *words, "--store", store, folder=tmp_path)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and not (tmp_path / "page.html").exists()
