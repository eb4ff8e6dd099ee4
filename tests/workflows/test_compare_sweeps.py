"""Several sweeps on one page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bgsweep.config import load
from bgsweep.sweep.events import Ended, Result, Started, TrialRecord
from bgsweep.sweep.journal import Journal
from bgsweep.sweep.manifest import write_manifest
from bgsweep.sweep.trial import dump
from bgsweep.tracking import Tracker, tracking_uri
from bgsweep.tracking.models import log_encoder
from bgsweep.tracking.registry import add_version
from bgsweep.training.checkpoint import untrained
from tests.command import bgsweep

TINY = Path(__file__).parents[1] / "tiny.yaml"
ELSEWHERE = {"bgsweep.host": "another-machine", "bgsweep.pid": "1", "bgsweep.born": "0"}


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
    write_manifest(store / "sweeps" / name, manifest)
    journal = Journal(store / "sweeps" / name)
    for number, score in enumerate(scores):
        record = TrialRecord(f"t{number:02d}", {"background.remove": 0.25}, None, "d", "run")
        journal.write(Started(trial=record.copy()))
        event = Result(id=record.id, epoch=3, metrics={"knn_top1": score}, seconds=10.0)
        event.apply(record)
        journal.write(event)
        record.status = "completed"
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
    words = ("compare-sweeps", "one", "two", "three", "--suite", "knn", "--store", store)
    done = bgsweep(*words, "--out", "page.html", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    comparison = json.loads(done.stdout.splitlines()[-1])["comparison"]
    assert [one["model"] for one in comparison["models"]] == ["models:/tiny/1", "models:/tiny/2"]
    (row,) = [row for row in comparison["rows"] if row["name"] == "knn_top1"]
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


def test_without_champions_there_are_the_courses(store: Path, tmp_path: Path) -> None:
    done = bgsweep("compare-sweeps", "one", "three", "--store", store, folder=tmp_path)
    assert done.stdout == "wrote sweeps.html: open it in a browser\n", done.stderr
    assert "Fewer than two of the sweeps have ended" in (tmp_path / "sweeps.html").read_text(encoding="utf-8")
    done = bgsweep("compare-sweeps", "one", "two", "--suite", "none", "--store", store, folder=tmp_path)
    assert "were not compared on the same images" in (tmp_path / "sweeps.html").read_text(encoding="utf-8")


def test_one_sweep_is_refused(store: Path, tmp_path: Path) -> None:
    for words in (["one"], ["one", "one"]):
        done = bgsweep("compare-sweeps", *words, "--store", store, folder=tmp_path)
        assert done.returncode == 2 and "name two sweeps or more" in done.stderr
    done = bgsweep("compare-sweeps", "one", "four", "--store", store, folder=tmp_path)
    assert done.returncode == 2 and "no sweep four" in done.stderr
