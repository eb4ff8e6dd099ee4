"""A whole small sweep, from the command line to the registry."""

import getpass
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from bgsweep.sweep.control import status
from tests.command import bgsweep, take_ctrl_c
from tests.progress import files_in, wait_for

TINY = Path(__file__).parents[1] / "tiny.yaml"
SPACE = [
    "space.background.remove={uniform: [0.0, 0.8]}",
    "space.optimizer.lr={loguniform: [0.01, 0.1]}",
    "space.points=[{}]",
    "search.trials=4",
    "evaluate.variant=mixed_rand",
    "register.name=tiny",
]


def sweep(folder: Path, *overrides: str) -> dict[str, Any]:
    done = bgsweep("sweep", TINY, *SPACE, *overrides, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "on the test split, which the search has not used" in done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(done.stdout.splitlines()) == 1, "something besides the object was printed to stdout"
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
        environment.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
        return folder, sweep(folder, "register.checkpoints=true")


@pytest.mark.slow
def test_every_trial_is_accounted_for(finished: tuple[Path, dict[str, Any]]) -> None:
    trials = finished[1]["trials"]
    assert [trial["id"] for trial in trials] == ["t00", "t01", "t02", "t03"]
    assert {trial["status"] for trial in trials} <= {"completed", "stopped"}
    assert trials[0]["fixed"] == "baseline"
    assert trials[0]["params"]["background.remove"] == 0
    assert trials[0]["status"] == "completed" and trials[0]["epochs"] == 3
    assert trials[1]["params"] == {"background.remove": 0.3, "optimizer.lr": 0.03}
    assert len({trial["digest"] for trial in trials}) == 4
    assert all(0 < trial["metrics"]["knn_top1"] < 1 for trial in trials)


@pytest.mark.slow
def test_tune_keeps_no_tables_of_its_own(finished: tuple[Path, dict[str, Any]]) -> None:
    """To write TensorBoard's files the driver would import torch, which takes half a gigabyte."""
    assert not [*finished[0].rglob("events.out.tfevents*"), *finished[0].rglob("progress.csv")]


@pytest.mark.slow
def test_champion_and_baseline_are_judged_alike(finished: tuple[Path, dict[str, Any]]) -> None:
    found = finished[1]
    completed = [trial for trial in found["trials"] if trial["status"] == "completed"]
    assert found["best"]["trial"] == max(completed, key=lambda trial: trial["metrics"]["knn_top1"])["id"]
    assert found["baseline"]["trial"] == "t00"
    assert found["best"]["epochs"] == found["baseline"]["epochs"] == 3
    for role in ("best", "baseline", "untrained"):
        metrics = found[role]["metrics"]
        names = {"original", "only_fg", "no_fg", "only_bg_t", "mixed_same", "mixed_rand", "bg_gap"}
        assert names <= set(metrics["backgrounds"])
        assert 0 <= metrics["knn_top1"] <= 1 and 0 <= metrics["linear_top1"] <= 1
        assert metrics["knn_top1"] == metrics["backgrounds"]["mixed_rand"]


@pytest.mark.slow
def test_mlflow_has_it_all_and_nothing_runs_on(finished: tuple[Path, dict[str, Any]]) -> None:
    import mlflow

    _, found = finished
    client = mlflow.MlflowClient(tracking_uri=found["tracking_uri"])
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1 and len(runs) == 5
    trial = client.get_run(found["trials"][1]["run_id"])
    assert trial.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert trial.data.params["background.remove"] == "0.3"
    history = client.get_metric_history(trial.info.run_id, "loss")
    assert [point.step for point in history] == list(range(1, found["trials"][1]["epochs"] + 1))
    for run in (trial, parents[0]):
        files = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert {"config.yaml", "augmentation.json", "views.png"} <= files, run.info.run_name
        assert run.inputs.dataset_inputs, "no dataset digest"
    assert "report.html" in files, "the sweep's page"
    assert {"version.torch", "python"} <= {key.removeprefix("bgsweep.") for key in parents[0].data.tags}
    alias = client.get_model_version_by_alias("tiny", "champion")
    assert int(alias.version) == found["model"]["version"] == 1
    assert found["model"]["reason"] == alias.tags["reason"] == "no version of tiny was champion"
    assert found["champion"] is None
    best = next(trial for trial in found["trials"] if trial["id"] == found["best"]["trial"])
    assert (alias.tags["sweep"], alias.tags["trial"]) == (found["sweep"], best["id"])
    assert alias.tags["digest"] == best["digest"] and alias.tags["images_digest"] and alias.tags["masks_digest"]


@pytest.mark.slow
def test_mlflow_shows_a_sweep_as_its_users_expect_it(finished: tuple[Path, dict[str, Any]]) -> None:
    import mlflow

    _, found = finished
    client = mlflow.MlflowClient(tracking_uri=found["tracking_uri"])
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    runs = client.search_runs([experiment.experiment_id])
    assert {run.data.tags["mlflow.user"] for run in runs} == {getpass.getuser()}
    assert {run.data.tags["mlflow.source.name"] for run in runs} == {"bgsweep sweep"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = {run.data.tags["bgsweep.trial"]: run for run in runs if run is not parent}
    assert {"background.remove", "optimizer.lr", "method.name"} <= trials["t02"].data.params.keys()
    assert len(trials["t02"].data.params) < 12
    for state in ("completed", "stopped"):
        query = f"tags.`bgsweep.status` = '{state}'"
        told = {run.data.tags["bgsweep.trial"] for run in client.search_runs([experiment.experiment_id], query)}
        assert told == {each["id"] for each in found["trials"] if each["status"] == state}

    curve = client.get_metric_history(parent.info.run_id, "best/validation/knn/top1")
    assert [point.value for point in curve] == sorted(point.value for point in curve)
    steps = [point.step for point in curve]
    assert steps == sorted(set(steps)) and steps[-1] <= sum(each["epochs"] for each in found["trials"])
    assert curve[-1].value == max(point.value for run in trials.values() for point in _history(client, run))
    page = f"#/experiments/{experiment.experiment_id}/runs/{parent.info.run_id}?workflowType=machine_learning"
    assert found["run_page"] == page
    note = parent.data.tags["mlflow.note.content"]
    assert f"**Winner: {found['best']['trial']}**" in note and "| t03 |" in note and "| test split, % |" in note
    host = platform.node()
    assert parent.data.metrics[f"system/{host}/cpu_utilization_percentage"] > 0
    version = client.get_model_version("tiny", "1")
    assert version.description == client.get_registered_model("tiny").description == note[:5000]


def _history(client: Any, run: Any) -> Any:
    return client.get_metric_history(run.info.run_id, "validation/knn/top1")


@pytest.mark.slow
def test_the_logged_models_can_be_ranked(finished: tuple[Path, dict[str, Any]]) -> None:
    import mlflow

    _, found = finished
    client = mlflow.MlflowClient(tracking_uri=found["tracking_uri"])
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "tiny"]
    runs = {run.data.tags.get("bgsweep.trial"): run for run in client.search_runs([experiment])}
    order = [{"field_name": "metrics.validation/knn/top1", "ascending": False}]
    models = client.search_logged_models([experiment], order_by=order)
    scores = {each["id"]: each["metrics"]["validation/knn/top1"] for each in found["trials"] if each["checkpoint"]}
    assert {model.name for model in models} == {f"encoder-{one}" for one in scores}
    ranked = [scores[model.tags["bgsweep.trial"]] for model in models]  # trials may be equally good
    assert ranked == sorted(scores.values(), reverse=True)
    winner = next(model for model in models if model.tags["bgsweep.trial"] == found["best"]["trial"])
    assert winner.model_id == client.get_model_version("tiny", "1").source.removeprefix("models:/")
    assert {"background.remove", "optimizer.lr"} <= winner.params.keys()
    measured = {metric.key: metric for metric in winner.metrics}
    assert measured["test/knn/top1"].value == found["best"]["metrics"]["knn_top1"]
    inputs = runs[found["best"]["trial"]].inputs.dataset_inputs
    datasets = {tag.value: each.dataset for each in inputs for tag in each.tags}
    for name, split in (("validation/knn/top1", "validation"), ("test/knn/top1", "test"), ("loss", "train")):
        dataset = datasets[split]
        assert (measured[name].dataset_name, measured[name].dataset_digest) == (dataset.name, dataset.digest)
    images = [{"dataset_name": datasets["test"].name, "dataset_digest": datasets["test"].digest}]
    assert [each.model_id for each in client.search_logged_models([experiment], datasets=images)] == [winner.model_id]


LOAD = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "bgsweep":
            raise ImportError("bgsweep is not installed here")
sys.meta_path.insert(0, Forbid())
import mlflow, numpy
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/tiny@champion")
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], model.predict(images))
assert model.predict(images[:1, :, :20, :14]).shape == (1, 32)
"""


@pytest.mark.slow
def test_the_champion_works_without_bgsweep_and_equals_its_checkpoint(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    import numpy as np
    import torch

    from bgsweep.training.checkpoint import load_trained

    _, found = finished
    images = np.random.default_rng(0).random((3, 3, 16, 16), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", LOAD, found["tracking_uri"], "images.npy", "features.npy"]
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = next(trial for trial in found["trials"] if trial["id"] == found["best"]["trial"])
    encoder = load_trained(Path(record["checkpoint"])).encoder
    expected = encoder(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_stopped_sweep_closes_its_runs_and_leaves_no_process(tmp_path: Path, stop: signal.Signals) -> None:
    import mlflow

    command = [
        sys.executable,
        "-m",
        "bgsweep.cli",
        "sweep",
        str(TINY),
        *SPACE,
        "training.epochs=5000",
        "search.scheduler=none",
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=take_ctrl_c,
    )

    def both_train() -> bool:  # a trial that has only begun may have no run yet
        listed = status(None, f"{tmp_path}/bgsweep_runs")["sweeps"]
        return sum(trial["epochs"] > 0 for sweep in listed for trial in sweep["trials"]) == 2

    wait_for(both_train, lambda: files_in(tmp_path), "no two trials have ended an epoch", process, every=0.5)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    if stop is signal.SIGTERM:
        os.killpg(process.pid, stop)  # as `timeout` does
    else:
        process.send_signal(stop)
    _, log = process.communicate(timeout=600)
    assert process.returncode == 130
    assert log.splitlines()[-1] == "error: interrupted" and "Traceback" not in log
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive
    assert [each["state"] for each in status(None, f"{tmp_path}/bgsweep_runs")["sweeps"]] == ["interrupted"]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/bgsweep_runs/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 3 and {run.info.status for run in runs} == {"KILLED"}


@pytest.mark.slow
def test_a_sweep_whose_trials_all_fail_says_why(tmp_path: Path) -> None:
    values = ["optimizer.lr=1e30", "space.optimizer.lr={loguniform: [1.0e+29, 1.0e+30]}", "search.max_failures=0"]
    done = bgsweep("sweep", TINY, *SPACE, *values, "search.trials=2", folder=tmp_path)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: no trial ran to its end, 2 of 2 failed; the last one: Diverged: the loss is ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_mistake_that_every_trial_would_meet_is_told_before_the_first(tmp_path: Path) -> None:
    wrong = ["data.images=nowhere", "data.masks=nowhere"]
    done = bgsweep("sweep", TINY, *SPACE, *wrong, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: data.images: no folder nowhere")
    assert "Traceback" not in done.stderr and "running" not in done.stderr


@pytest.mark.faults  # for its time
def test_trials_of_two_workers_run_on_ray_train(tmp_path: Path) -> None:
    feed = ["data.loader=cluster", "data.loader_workers=1"]  # the rehearsal has the local loader
    found = sweep(tmp_path, "workers.count=2", "search.trials=1", "search.scheduler=none", "search.seeds=2", *feed)
    (trial,) = found["trials"]
    assert trial["status"] == "completed" and trial["epochs"] == 3
    assert (Path(trial["checkpoint"]) / "seed_1" / "state.pt").exists()
    seeds = [trial["metrics"]["knn_top1/seed_0"], trial["metrics"]["knn_top1/seed_1"]]
    assert trial["metrics"]["knn_top1"] == pytest.approx(sum(seeds) / 2)
    assert len(found["best"]["seeds"]["linear_top1"]["values"]) == 2
    assert found["baseline"]["trial"] == "t00" and found["model"]["alias"] == "champion"
