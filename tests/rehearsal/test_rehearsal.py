"""The whole way, on one machine: sweeps submitted from outside to a Ray cluster with a token, to MLflow with passwords.

One site serves all tests, in their order; the last one shuts it down.
"""

import json
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.sweep.journal import read_journal
from tests.rehearsal.site import ROOT, Site

pytestmark = [
    pytest.mark.rehearsal,
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # the last resort: waiting ends by itself without progress
    pytest.mark.random_order(disabled=True),
]

TINY = str(ROOT / "tests" / "tiny.yaml")
SPACE = ["space.background.remove={uniform: [0.0, 0.8]}", "search.scheduler=none"]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    try:
        site.start_mlflow()
        site.start_s3()
        site.start_head(1)
        site.start_node("one", 1)
        site.start_node("two", 1)
        site.wait_for_servers()
        yield site
    finally:
        site.remove()


def mlflow_client(site: Site) -> Any:
    import mlflow

    for name, value in site.laptop.items():
        if name.startswith(("MLFLOW_", "AWS_")):
            pytest.MonkeyPatch().setenv(name, value)
    return mlflow.MlflowClient(tracking_uri=site.laptop["MLFLOW_TRACKING_URI"])


def actors(site: Site, kind: str) -> list[dict[str, Any]]:
    """Living actors of a class, as Ray's dashboard lists them."""
    found = json.loads(site.get("/api/v0/actors?detail=True&limit=1000"))["data"]["result"]["result"]
    return [actor for actor in found if kind in actor["class_name"] and actor["state"] == "ALIVE"]


def test_without_the_token_nobody_gets_in(site: Site) -> None:
    done = site.command("submit", TINY, *SPACE, "--address", site.address, RAY_AUTH_MODE="disabled")
    assert done.returncode == 2 and "it wants its token" in done.stderr.splitlines()[-1]
    wrong = site.folder / "wrong"
    wrong.write_text("0" * 64)
    done = site.command("status", "--address", site.address, RAY_AUTH_TOKEN_PATH=str(wrong))
    assert done.returncode == 2 and "error: Ray at" in done.stderr.splitlines()[-1]


@pytest.mark.faults
def test_a_sweep_survives_the_loss_of_a_node(site: Site) -> None:
    overrides = [*SPACE, "search.trials=1", "workers.count=2", "training.epochs=30", "register.name=rehearsed"]
    done = site.command("submit", TINY, *overrides, "--address", site.address, "--store", str(site.store))
    assert done.returncode == 0, done.stderr
    printed = dict(re.findall(r"^(submitted|status|log|stop) +(.+)$", done.stdout, re.MULTILINE))
    name = printed["submitted"].split()[0]
    try:
        pattern = f"sweeps/{name}/ray_train/*/checkpoint_*/state.pt"
        site.wait_for(lambda: list(site.store.glob(pattern)), "a checkpoint")
        workers = actors(site, "RayTrainWorker")
        assert len({worker["node_id"] for worker in workers}) == 2, "the workers are not on different nodes"
        done = site.shell(printed["status"])
        assert re.search(rf"^{name} .* running", done.stdout, re.MULTILINE), done.stdout + done.stderr
        site.kill_node("two")
        site.start_node("three", 1)  # as an autoscaler, or a spot market, gives a new one
        site.wait_for(lambda: finished(site, name), "the sweep's end")
    except AssertionError:
        print(site.command("status", name, "--address", site.address).stdout, logs(site, name))
        raise
    assert succeeded(site, name), logs(site, name)
    done = site.shell(printed["log"])
    assert done.returncode == 0 and f"sweep {name} in " in done.stdout, done.stdout + done.stderr
    done = site.shell(printed["stop"])
    assert done.returncode == 2 and f"{name}: the sweep is not running" in done.stderr, done.stdout + done.stderr
    (found,) = site.json("status", name, "--address", site.address)["sweeps"]
    assert found["state"] == "ended"
    assert [(trial["status"], trial["epochs"]) for trial in found["trials"]] == [("completed", 30)]
    client = mlflow_client(site)
    version = client.get_model_version_by_alias("rehearsed", "champion")
    assert version.tags["sweep"] == name
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2 and {run.info.status for run in runs} == {"FINISHED"}
    assert runs[0].info.artifact_uri.startswith("mlflow-artifacts:/")
    steps = [point.step for point in client.get_metric_history(found["trials"][0]["run_id"], "loss")]
    assert steps == list(range(1, 31)), "an epoch is missing or told twice"


def test_data_and_checkpoints_in_a_bucket(site: Site) -> None:
    import boto3

    mlflow_client(site)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    with zipfile.ZipFile(ARCHIVE) as archive:
        for name in archive.namelist():
            if re.search(r"^(images|masks)/(train|validation|test)/.*/[01]", name):  # of hundreds each costs a request
                client.put_object(Bucket="bucket", Key=f"photos/{name}", Body=archive.read(name))
    data = ["data.images=s3://bucket/photos/images", "data.masks=s3://bucket/photos/masks", "training.batch_size=64"]
    data += ["method.queue_size=128", "training.checkpoint_every=1"]
    before = len(site.json("status", "--address", site.address)["sweeps"])
    place = ["--address", site.address, "--store", "s3://bucket/runs", "--wait"]
    found = site.json("submit", TINY, *SPACE, *data, "search.trials=2", *place)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="runs/")
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    for trial in found["result"]["trials"]:
        assert trial["status"] == "completed" and trial["checkpoint"].startswith("s3://bucket/runs/sweeps/")
        assert trial["checkpoint"].removeprefix("s3://bucket/") + "/state.pt" in keys
    assert f"runs/sweeps/{found['sweep']}/journal/00001-0000.jsonl" in keys
    listed = site.json("status", "--address", site.address)["sweeps"]
    assert found["sweep"] in [sweep["sweep"] for sweep in listed] and len(listed) == before + 1


def test_the_plain_ray_command_does_the_same(site: Site) -> None:
    (site.folder / "job").mkdir()
    (site.folder / "job" / "tiny.yaml").write_text(Path(TINY).read_text())
    store = site.folder / "plain"
    command = ["ray", "job", "submit", "--address", site.address, "--working-dir", "job", "--"]
    command += ["bgsweep", "sweep", "tiny.yaml", "search.trials=1", "--store", str(store)]
    done = site.run(command, site.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (name,) = re.findall(r"^sweep (tiny-\S+) in ", done.stdout, re.MULTILINE)
    (found,) = site.json("status", name, "--address", site.address, "--store", str(store))["sweeps"]
    assert found["state"] == "ended" and len(found["trials"]) == 1


@pytest.mark.faults  # for its time
def test_two_sweeps_at_once_share_the_cluster(site: Site) -> None:
    answers: dict[str, dict[str, Any]] = {}

    def sweep(user: str, seed: int) -> None:
        # The first one's trials are long enough for the second's job to begin meanwhile, also on a loaded machine.
        epochs = f"training.epochs={60 if user == 'ann' else 20}"
        overrides = [*SPACE, f"search.seed={seed}", "search.trials=2", epochs, f"register.name={user}"]
        answers[user] = site.json(
            "submit", TINY, *overrides, "--address", site.address, "--store", str(site.store), "--wait"
        )

    threads = [threading.Thread(target=sweep, args=user) for user in (("ann", 1), ("bob", 2))]
    for thread in threads:
        thread.start()
        time.sleep(1)
    for thread in threads:
        thread.join()  # ends where there is no more progress
    ours, theirs = (answers[user]["result"] for user in ("ann", "bob"))
    for key in ("checkpoint", "run_id"):
        assert not {trial[key] for trial in ours["trials"]} & {trial[key] for trial in theirs["trials"]}
    for user, result in (("ann", ours), ("bob", theirs)):
        assert [trial["status"] for trial in result["trials"]] == ["completed"] * 2
        assert all(f"/{result['sweep']}/" in trial["checkpoint"] for trial in result["trials"])
        assert result["model"]["name"] == user and result["model"]["version"] == 1
    began = {user: min(starts(site, answers[user]["sweep"])) for user in answers}
    ended = {user: max(ends(site, answers[user]["sweep"])) for user in answers}
    assert began["bob"] < ended["ann"] and began["ann"] < ended["bob"], "one waited for the other's end"


def test_the_planted_secret_is_nowhere_but_in_the_jobs_package(site: Site) -> None:
    pattern = site.secret.encode()
    found = [path for path in site.folder.rglob("*") if path.is_file() and pattern in path.read_bytes()]
    allowed = {site.folder / "mlflow" / "auth.ini"}
    assert {path.name for path in found if path not in allowed} == {".bgsweep-environment.json"}
    assert site.secret not in site.get("/api/jobs/")
    assert site.secret not in site.get("/api/v0/actors?detail=True&limit=1000")


def test_shut_down_nothing_runs_on(site: Site) -> None:
    assert [process.name() for process in site.stop()] == []


def journal(site: Site, name: str) -> list[dict[str, Any]]:
    return [event.public() for event in read_journal(site.store / "sweeps" / name)]


def starts(site: Site, name: str) -> list[float]:
    return [event["time"] for event in journal(site, name) if event["event"] == "started"]


def ends(site: Site, name: str) -> list[float]:
    return [event["time"] for event in journal(site, name) if event["event"] == "ended"]


def finished(site: Site, name: str) -> bool:
    return json.loads(site.get(f"/api/jobs/{name}"))["status"] in ("SUCCEEDED", "FAILED", "STOPPED")


def succeeded(site: Site, name: str) -> bool:
    return bool(json.loads(site.get(f"/api/jobs/{name}"))["status"] == "SUCCEEDED")


def logs(site: Site, name: str) -> str:
    return str(json.loads(site.get(f"/api/jobs/{name}/logs"))["logs"])[-4000:]
