"""Runs as MLflow holds them after whatever may happen to the process that writes them."""

import importlib.metadata
import json
import logging
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bgsweep.config import Experiment, SweepConfig, load
from bgsweep.errors import UserError
from bgsweep.tracking import Tracker, provenance, tracking_uri
from bgsweep.tracking.parameters import KEY_PARAMETERS
from tests.progress import wait_for

FILE = SweepConfig(name="study")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def address(store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tracking_uri(store)


@pytest.fixture
def tracker(address: str, request: pytest.FixtureRequest) -> Tracker:
    return Tracker(address, request.node.name)


def status(tracker: Tracker, run: str) -> str:
    return str(tracker.client.get_run(run).info.status)


def test_address_is_the_environments_else_a_database_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path / "new") == f"sqlite:///{tmp_path}/new/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert tracking_uri(tmp_path) == "http://tracking:5000"


def test_store_that_cannot_be_a_folder_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/store"):
        tracking_uri(tmp_path / "file" / "store")


def test_trial_is_a_child_with_its_whole_configuration_and_every_epoch(
    tracker: Tracker, store: Path, tmp_path: Path
) -> None:
    searched = {"background.remove": 0.25, "data.images": "mine", "data.masks": "m" * 7000}
    experiment = Experiment().with_values(searched)
    with tracker:
        parent = tracker.sweep_run("sweep-1", FILE)
        run = tracker.run_id(tracker.trial_run(parent, "t00", experiment, {"bgsweep.fixed": "baseline"}, searched))
        for epoch in (1, 2, 3):
            tracker.log_metrics(run, epoch, {"epoch": epoch, "loss": 1 / epoch, "knn_top1": math.nan})
    child = tracker.client.get_run(run)
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert child.data.tags["bgsweep.digest"] == experiment.digest
    assert child.data.tags["bgsweep.fixed"] == "baseline"
    assert child.data.params["background.remove"] == "0.25"
    assert child.data.params.keys() == {*KEY_PARAMETERS, "data.masks"}
    assert len(child.data.params["data.masks"]) == 6000
    history = tracker.client.get_metric_history(run, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
    assert "epoch" not in child.data.metrics
    config = tracker.client.download_artifacts(run, "config.yaml", str(tmp_path))
    assert load(config).experiment == experiment
    assert child.info.artifact_uri.startswith((store / "artifacts").as_uri())
    assert tracker.client.get_run(parent).data.params["search.trials"] == "16"


def test_sweeps_own_file_is_kept_as_it_was_resolved(tracker: Tracker, tmp_path: Path) -> None:
    with tracker:
        run = tracker.sweep_run("sweep-1", FILE)
    assert load(tracker.client.download_artifacts(run, "config.yaml", str(tmp_path))) == FILE


def test_files_and_datasets_reach_the_run(tracker: Tracker, tmp_path: Path) -> None:
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    with tracker:
        run = tracker.pretrain_run("one", FILE)
        tracker.log_image(run, picture, "pictures/views.png")
        tracker.log_json(run, {"p": 0.5}, "augmentation.json")
        tracker.log_dataset(run, "train", "sample", {"images": "0123456789abcdef", "masks": "fedcba9876543210"}, 40)
    path = tracker.client.download_artifacts(run, "pictures/views.png", str(tmp_path))
    np.testing.assert_array_equal(cv2.imread(path)[..., ::-1], picture)
    path = tracker.client.download_artifacts(run, "augmentation.json", str(tmp_path))
    assert Path(path).read_text(encoding="utf-8") == '{\n  "p": 0.5\n}\n'
    (entry,) = tracker.client.get_run(run).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("sample", "0123456789abcdef-fedcba9876543210")
    assert "fedcba9876543210" in entry.dataset.profile
    assert [tag.value for tag in entry.tags] == ["train"]


def test_masks_made_anew_for_the_same_images_are_shown_as_such(tracker: Tracker) -> None:
    """MLflow keeps one dataset for a name and a digest, and shows it for all runs of the experiment."""
    images, first, second = "0123456789abcdef", "fedcba9876543210", "00112233445566ff"
    expected: list[dict[str, str]] = [{"images": images, "masks": masks} for masks in (first, second)]
    expected.append({"images": images})
    with tracker:
        runs = [tracker.pretrain_run(f"{number}", FILE) for number in range(3)]
        for run, digests in zip(runs, expected, strict=True):
            tracker.log_dataset(run, "train", "sample", digests, 40)
    inputs = [tracker.client.get_run(run).inputs.dataset_inputs[0].dataset for run in runs]
    assert [json.loads(each.profile) for each in inputs] == [{"count": 40, **digests} for digests in expected]
    assert inputs[2].digest == images


def test_trial_that_is_begun_again_is_the_same_run_and_open(tracker: Tracker, address: str) -> None:
    with tracker:
        parent = tracker.sweep_run("sweep-1", FILE)
        first = tracker.run_id(tracker.trial_run(parent, "t00", FILE.experiment))
        other = tracker.run_id(tracker.trial_run(parent, "t01", FILE.experiment))
    assert status(tracker, first) == "KILLED"
    experiment = tracker.client.get_experiment(tracker.experiment_id).name
    with Tracker(address, experiment) as restarted:
        assert restarted.run_id(restarted.trial_run(parent, "t00", FILE.experiment)) == first != other
        restarted.flush()
        assert status(restarted, first) == "RUNNING"
        restarted.finish(first, "FINISHED")
    assert status(tracker, first) == "FINISHED"


@pytest.mark.parametrize(
    ("error", "parent_ends", "trial_ends"),
    [(None, "FINISHED", "KILLED"), (KeyboardInterrupt, "KILLED", "KILLED"), (ValueError, "FAILED", "FAILED")],
)
def test_no_run_stays_running(
    tracker: Tracker, error: type[BaseException] | None, parent_ends: str, trial_ends: str
) -> None:
    runs: list[str] = []

    def work() -> None:
        with tracker:
            parent = tracker.sweep_run("sweep-1", FILE)
            begun = [tracker.trial_run(parent, name, FILE.experiment) for name in ("t00", "t01")]
            runs.extend([parent, *map(tracker.run_id, begun)])
            tracker.finish(runs[1], "FINISHED")
            if error:
                raise error

    if error:
        with pytest.raises(error):
            work()
    else:
        work()
    assert [status(tracker, run) for run in runs] == [parent_ends, "FINISHED", trial_ends]


def test_runs_of_a_killed_driver_are_ended_by_the_next(tracker: Tracker, address: str) -> None:
    mine = tracker.pretrain_run("mine", FILE)
    driver = (
        "import os, sys\n"
        "from bgsweep.config import SweepConfig\n"
        "from bgsweep.tracking import Tracker\n"
        "tracker, file = Tracker(sys.argv[1], 'killed'), SweepConfig()\n"
        "parent = tracker.sweep_run('sweep', file)\n"
        "print(parent, tracker.run_id(tracker.trial_run(parent, 't00', file.experiment)))\n"
        "tracker.flush()\n"
        "sys.stdout.flush()\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    killed = subprocess.run([sys.executable, "-c", driver, address], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    runs = killed.stdout.split()
    assert [status(tracker, run) for run in runs] == ["RUNNING", "RUNNING"]
    assert sorted(tracker.reconcile()) == sorted(runs)
    tracker.flush()
    assert [status(tracker, run) for run in runs] == ["KILLED", "KILLED"]
    assert status(tracker, mine) == "RUNNING"
    assert tracker.reconcile() == []
    tracker.finish(mine, "FINISHED")
    tracker.flush()


def test_server_that_is_away_for_a_while_loses_nothing_and_holds_nobody_up(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tracker.pretrain_run("one", FILE)
    tracker.flush()
    write, away = tracker.client.log_batch, iter([True] * 4)

    def log_batch(*arguments: Any, **named: Any) -> None:
        if next(away, False):
            raise ConnectionError("connection refused")
        write(*arguments, **named)

    monkeypatch.setattr(tracker.client, "log_batch", log_batch)
    began = time.monotonic()
    for epoch in range(20):
        tracker.log_metrics(run, epoch, {"loss": epoch})
    assert time.monotonic() - began < 0.5  # the outage lasts 1.5 s
    tracker.finish(run, "FINISHED")
    assert tracker.flush()
    assert [metric.step for metric in tracker.client.get_metric_history(run, "loss")] == list(range(20))
    assert status(tracker, run) == "FINISHED"


def test_what_could_not_be_written_is_said(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(address, "lost", patience=0.2)
    run = tracker.pretrain_run("one", FILE)
    tracker.flush()

    def refuse(*arguments: Any, **named: Any) -> None:
        raise ConnectionError("connection refused")

    monkeypatch.setattr(tracker.client, "log_batch", refuse)
    for epoch in range(3):
        tracker.log_metrics(run, epoch, {"loss": 1.0})
    tracker.finish(run, "FINISHED")
    with caplog.at_level(logging.WARNING):
        assert not tracker.flush()
    assert f"1 writes to MLflow at {address} are missing: connection refused" in caplog.text
    assert status(tracker, run) == "FINISHED"


def test_refused_write_is_not_tried_again(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    with tracker:
        run = tracker.pretrain_run("one", FILE)
        tracker.flush()
        began = time.monotonic()
        tracker.log_metrics(run, 1, {"no?such*name": 1.0})
        tracker.log_metrics(run, 1, {"loss": 1.0})
        assert not tracker.flush()
        assert time.monotonic() - began < 2
    assert "1 writes to MLflow" in caplog.text
    assert tracker.client.get_run(run).data.metrics == {"loss": 1.0}


@pytest.mark.parametrize("chosen", [None, "no_inferred_type", "genai_development"])
def test_an_experiment_opens_as_model_training_unless_its_users_have_chosen(address: str, chosen: str | None) -> None:
    client = Tracker(address).client
    tags = {"mlflow.experimentKind": chosen} if chosen else {}
    made = client.create_experiment(f"made before {chosen}", tags=tags)
    Tracker(address, f"made before {chosen}")
    kind = client.get_experiment(made).tags["mlflow.experimentKind"]
    assert kind == (chosen if chosen == "genai_development" else "custom_model_development")


def test_server_that_is_not_there_is_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError) as caught:
        Tracker("http://user:secret@127.0.0.1:9")
    message = str(caught.value)
    assert message.startswith("MLflow at http://127.0.0.1:9 cannot be used: ")
    assert "\n" not in message and "secret" not in message


def test_provenance_names_the_installed_versions_and_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BGSWEEP_GIT_COMMIT", raising=False)
    root = Path(__file__).parents[2]
    tags = provenance()
    assert tags["version.torch"] == importlib.metadata.version("torch")
    assert tags["version.mlflow"] == importlib.metadata.version("mlflow")
    tracked = subprocess.run(
        ["git", "-C", root, "ls-files", "--error-unmatch", "bgsweep/tracking/provenance.py"], capture_output=True
    )
    if tracked.returncode == 0:
        head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        assert tags["mlflow.source.git.commit"] == head.stdout.strip()
    else:
        assert "mlflow.source.git.commit" not in tags
    monkeypatch.setenv("BGSWEEP_GIT_COMMIT", "0123abc")
    assert provenance()["mlflow.source.git.commit"] == "0123abc"
    assert "git.dirty" not in provenance(), "known of a checkout only"


def test_an_image_that_was_built_without_its_commit_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGSWEEP_GIT_COMMIT", "unknown")  # of the Dockerfile
    monkeypatch.setattr(sys.modules["bgsweep.tracking.provenance"], "__file__", str(tmp_path / "provenance.py"))
    assert not [tag for tag in provenance() if "git" in tag]


def test_epochs_that_arrive_together_are_one_call_and_come_before_the_run_s_end(tracker: Tracker) -> None:
    run = tracker.pretrain_run("one", FILE)
    tracker.flush()
    calls: list[int] = []
    log, end = tracker.client.log_batch, tracker.client.set_terminated

    def counted(run_id: str, metrics: Any = (), **rest: Any) -> None:
        calls.append(len(metrics))
        log(run_id, metrics=metrics, **rest)

    tracker.client.log_batch = counted
    tracker.client.set_terminated = lambda *told, **more: (calls.append(-1), end(*told, **more))
    for epoch in range(1, 11):
        tracker.log_metrics(run, epoch, {"loss": 1 / epoch, "lr": 0.1})
    tracker.finish(run, "FINISHED")
    assert tracker.flush()
    assert calls == [20, -1]
    history = tracker.client.get_metric_history(run, "loss")
    assert [(point.step, point.value) for point in history] == [(epoch, 1 / epoch) for epoch in range(1, 11)]


def test_metrics_do_not_wait_long_for_others(tracker: Tracker) -> None:
    run = tracker.pretrain_run("one", FILE)
    tracker.flush()
    tracker.log_metrics(run, 1, {"loss": 0.5})
    wait_for(lambda: tracker.client.get_metric_history(run, "loss"), lambda: None, "it is held back", every=0.2)
