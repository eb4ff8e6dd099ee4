"""Sweeps in Ray's dashboard and its metrics."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.dashboard.modules.job.common import JobInfoStorageClient
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.util import placement_group_table
from ray.util.state import list_tasks

from bgsweep.config import load
from bgsweep.distributed.bundles import reserve
from bgsweep.distributed.dashboard import SweepMetrics, tell_job
from bgsweep.distributed.train import train
from bgsweep.errors import Stopped
from bgsweep.sweep.searcher import NUMBER
from bgsweep.sweep.trial import trainable
from bgsweep.sweep.trial_record import TrialRecord
from tests.progress import wait_for
from tests.servers import ray_metrics

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The address of a Ray's dashboard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        context = ray.init(address="local", num_cpus=4, include_dashboard=True, dashboard_port=0, log_to_driver=False)
        yield f"http://{context.address_info['webui_url']}"
        ray.shutdown()


@pytest.mark.slow
def test_trials_are_metrics_that_prometheus_can_read(dashboard: str) -> None:
    records = [TrialRecord("t00", {}, None, "", ""), TrialRecord("t01", {}, None, "", "")]
    metrics = SweepMetrics("one")
    metrics.update(records)
    records[1].status, records[1].epochs, records[1].metrics = "completed", 7, {"knn_top1": 0.75}
    metrics.update(records)

    def value(name: str, **tags: str) -> str | None:
        wanted = [f'{key}="{value}"' for key, value in {"sweep": "one", **tags}.items()]
        lines = [line for line in ray_metrics().splitlines() if line.startswith(name + "{")]
        found = [line.rpartition(" ")[2] for line in lines if all(tag in line for tag in wanted)]
        return found[0] if found else None

    wait_for(lambda: value("ray_bgsweep_trials", status="completed") == "1.0", ray_metrics, ray_metrics)
    assert value("ray_bgsweep_trials", status="running") == "1.0"
    assert value("ray_bgsweep_trial_epoch", trial="t01") == "7.0"
    assert value("ray_bgsweep_trial", trial="t01", metric="knn_top1") == "0.75"


@pytest.mark.faults  # for its time
def test_ray_trains_metrics_are_named_by_sweep_and_trial(dashboard: str, tmp_path: Path) -> None:
    """While a trial trains on two workers. Those of the controller are set once, and Ray may lose them under load."""

    def ranks() -> set[str]:
        lines = [line for line in ray_metrics().splitlines() if 'ray_train_run_name="one/ray_train/t00-12ab"' in line]
        waited = [line for line in lines if line.startswith("ray_train_report_total_blocked_time_s{")]
        return {line.partition('ray_train_worker_world_rank="')[2][0] for line in waited}

    def on_epoch(metrics: dict[str, Any], _: Any) -> None:
        if metrics["epoch"] == 1:
            wait_for(lambda: ranks() == {"0", "1"}, ray_metrics, ray_metrics, every=0.5)
            failed = list_tasks(address=dashboard, filters=[("state", "=", "FAILED")])
            assert not failed, "waiting for reports fails no task, which would be red on the job's page"
            signal.raise_signal(signal.SIGTERM)

    long = ["workers.count=2", "training.epochs=5000", "training.checkpoint_every=5000", "evaluate.every=5000"]
    with pytest.raises(Stopped):
        train(load(TINY, long), tmp_path / "sweeps/one/ray_train/t00-12ab", on_epoch)


@pytest.mark.slow
def test_a_job_gets_further_metadata(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside those of its submission, in the entry that Ray's dashboard reads."""
    entry, name = b"_ray_internal_job_info_one", "RAY_JOB_CONFIG_JSON_ENV_VAR"
    told = {"status": "RUNNING", "metadata": {"bgsweep.kind": "sweep"}}
    _internal_kv_put(entry, json.dumps(told).encode(), namespace="job")
    for settings in ("", "{}", '{"metadata": {"job_submission_id": "unknown"}}'):  # no job: nothing happens
        monkeypatch.setenv(name, settings)
        tell_job(mlflow="http://there")
    assert json.loads(_internal_kv_get(entry, namespace="job")) == told
    monkeypatch.setenv(name, '{"metadata": {"job_submission_id": "one"}}')
    tell_job(mlflow="http://there")
    metadata = {"bgsweep.kind": "sweep", "mlflow": "http://there"}
    assert json.loads(_internal_kv_get(entry, namespace="job")) == told | {"metadata": metadata}
    assert entry.decode().rpartition("_")[0] == JobInfoStorageClient.JOB_DATA_KEY_PREFIX.rpartition("_")[0]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "names"), [(1, "one: trials"), (2, "one: t03")])
def test_placement_groups_are_named_by_sweep_and_trial(
    dashboard: str, count: int, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(TINY, [f"workers.count={count}"])
    made: Any = trainable(config, tmp_path / "one", ("", ""))
    request = made.default_resource_request
    again, other = request({NUMBER: 3}), request({NUMBER: 4})
    assert again == request({NUMBER: 3}) and hash(again) == hash(request({NUMBER: 3}))
    assert (again == other) == (count == 1)  # actors are reused for equal requests only
    groups = [again.to_placement_group(), again.to_placement_group(), reserve([{"CPU": 1.0}], "one: wanted")]
    assert all(group.wait(30) for group in groups)  # of two with one name Ray would place the first only
    told = [placement_group_table(group)["name"].rpartition(" ")[0] for group in groups]
    assert told == [names, names, "one: wanted"]
    for group in groups:
        ray.util.remove_placement_group(group)
    assert made.__name__ == "Trial of one"
