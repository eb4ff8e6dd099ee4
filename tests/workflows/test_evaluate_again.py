"""A suite in which an evaluator fails, one that is killed, one that is repeated: nothing is lost or done twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import models

from bgsweep.data import splits
from bgsweep.evaluation import registry
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import Evaluator, Yields, share
from bgsweep.models import ImageEncoder
from bgsweep.tracking import Tracker
from tests.command import bgsweep
from tests.inputs import write_images

SUITE = "data: {images: photos, masks: masks}\nsize: 24\ndevice: cpu\nevaluate: {linear: {epochs: 2}}\n"
NAMES = "knn,linear,toy,backgrounds"
IMAGES = 16 + 4 * 2  # of train and test


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_images(tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE)
    torch.manual_seed(0)
    torch.save(models.resnet18().state_dict(), tmp_path / "w.pt")
    return tmp_path


class Watched:
    """Counts the images that are encoded and how often the evaluator `toy` runs, which does as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images, self.ran = 0, 0
        self.does: Callable[[], None] = lambda: None
        forward = ImageEncoder.forward

        def counting(encoder: ImageEncoder, images: Tensor) -> Tensor:
            self.images += len(images)
            return forward(encoder, images)

        monkeypatch.setattr(ImageEncoder, "forward", counting)
        monkeypatch.setitem(registry.EVALUATORS, "toy", self._toy)

    def _toy(self, context: EvalContext) -> Evaluator:
        def measure() -> Yields:
            self.ran += 1
            self.does()
            yield share("top1", np.ones(len(context.test.labels)))

        return Evaluator(measure, lambda: {"toy": 1})


def evaluated(folder: Path, *more: str, code: int = 0) -> tuple[dict[str, Any], str]:
    words = ("evaluate", "resnet18=w.pt", "--suite", NAMES, "--data", "suite.yaml", "--json", *more)
    done = bgsweep(*words, folder=folder)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found, done.stderr


def run_of(found: dict[str, Any], folder: Path) -> Any:
    with Tracker(found["tracking_uri"]) as tracker:
        return tracker.client.get_run(found["run_id"])


def fails() -> None:
    raise RuntimeError("out of\nmemory")


def test_a_failure_ends_no_other_evaluator_and_alone_is_tried_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    watched.does = fails
    first, told = evaluated(place, code=2)
    assert list(first["results"]) == ["knn", "linear", "backgrounds"]
    assert first["failed"] == {"toy": "RuntimeError: out of memory"}
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: toy failed: RuntimeError: out of memory; ")
    run = run_of(first, place)
    assert run.info.status == "FAILED" and {"test/knn/top1", "test/knn/bg_gap"} <= run.data.metrics.keys()
    encoded = watched.images
    watched.does = lambda: None
    second, told = evaluated(place)
    assert (watched.images, watched.ran) == (encoded, 2)  # features come from disk: nothing is encoded again
    assert list(second["results"]) == NAMES.split(",") and second["failed"] == {}
    assert {name: second["results"][name] for name in first["results"]} == first["results"]
    assert "linear (2 of 4), measured by an earlier call" in told
    assert second["run_id"] == first["run_id"]
    run = run_of(second, place)
    assert run.info.status == "FINISHED" and run.data.metrics["test/toy/top1"] == 1
    with Tracker(second["tracking_uri"]) as tracker:
        assert len(tracker.client.get_metric_history(second["run_id"], "test/knn/top1")) == 1
        runs = tracker.client.search_runs([tracker.experiment_id])
    assert len(runs) == 1
    third, _ = evaluated(place)
    assert third == second and (watched.images, watched.ran) == (encoded, 2)


def test_what_a_change_does_not_touch_is_not_encoded_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    first, _ = evaluated(place)
    encoded = watched.images
    (place / "suite.yaml").write_text(SUITE.replace("evaluate: {", "evaluate: {knn: {k: 3}, "))
    other, told = evaluated(place)
    assert watched.images == encoded and "earlier call" not in told  # measured again, of the same features
    assert other["results"]["knn"]["protocol"]["knn"].startswith("k 3") and other["run_id"] != first["run_id"]
    image = next((place / "photos" / "train").rglob("*.jpg"))
    image.write_bytes(next((place / "photos" / "validation").rglob("*.jpg")).read_bytes())
    splits._open.cache_clear()  # as in a new process
    evaluated(place)
    assert watched.images == encoded + 16  # train alone
    (place / "suite.yaml").write_text(SUITE.replace("24", "20"))
    evaluated(place)
    assert watched.images == 2 * encoded + 16


def test_models_are_compared_without_what_failed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    calls = iter([lambda: None, fails])
    watched.does = lambda: next(calls)()
    torch.save(models.resnet18().state_dict(), place / "v.pt")
    words = ("--suite", NAMES.replace(",backgrounds", ""), "--data", "suite.yaml", "--json")
    done = bgsweep("compare", "resnet18=w.pt", "resnet18=v.pt", *words, folder=place)
    found = json.loads(done.stdout)
    assert done.returncode == 2 and "error: resnet18=v.pt: toy failed: RuntimeError" in done.stderr
    assert {row["evaluator"] for row in found["rows"]} == {"knn", "linear"}
    encoded = watched.images
    assert bgsweep("evaluate", "resnet18=v.pt", *words[:1], "linear", *words[2:], folder=place).returncode == 0
    assert watched.images == encoded


_KILLED = f"""
import os, signal
import pytest
from bgsweep.cli.main import main
from tests.workflows.test_evaluate_again import Watched
watched = Watched(pytest.MonkeyPatch())
watched.does = lambda: os.kill(os.getpid(), signal.SIGKILL)
main(["evaluate", "resnet18=w.pt", "--suite", "{NAMES}", "--data", "suite.yaml"])
"""


@pytest.mark.slow
def test_a_killed_call_is_gone_on_with(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED], cwd=place, env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    watched = Watched(monkeypatch)
    found, told = evaluated(place)
    assert "knn (1 of 4), measured by an earlier call" in told and "linear (2 of 4), measured" in told
    with Tracker(found["tracking_uri"]) as tracker:
        assert len(tracker.client.search_runs([tracker.experiment_id])) == 1
    assert run_of(found, place).info.status == "FINISHED"
    whole = watched.images
    assert found["failed"] == {} and "test/knn/top1" in run_of(found, place).data.metrics
    for file in (place / "bgsweep_runs" / "evaluations").rglob("*.*"):
        file.unlink()
    again, _ = evaluated(place)
    assert again["results"] == found["results"]
    assert watched.images - whole == whole + IMAGES  # which the killed call had encoded
