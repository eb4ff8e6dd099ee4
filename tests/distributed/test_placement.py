"""The final evaluation gets what a trial had, and does without a GPU that is not free."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from bgsweep.config import EvaluationWorkers, SuiteConfig, SweepConfig, load
from bgsweep.distributed.evaluation_workers import RayWorkers
from bgsweep.distributed.placement import reserved
from bgsweep.evaluation import Report
from bgsweep.sweep.final_evaluation import judged
from bgsweep.training import final_evaluation
from bgsweep.training.checkpoint import untrained

TINY = Path(__file__).parents[1] / "tiny.yaml"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster with a GPU, as far as Ray is concerned."""
    ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def config(*settings: str) -> SweepConfig:
    return load(TINY, list(settings))


def gpus_of(options: dict[str, Any]) -> int:
    """The number of GPUs that Ray gives a task with these options."""
    return int(ray.get(ray.remote(**options)(lambda: len(ray.get_gpu_ids())).remote()))


@pytest.mark.slow
def test_the_trials_gpu_is_asked_for_and_done_without(cluster: None) -> None:
    with reserved(config()) as place:
        assert place.options == {"num_cpus": 1.0, "num_gpus": 0.0} and not place.warning and not place.helpers
    half = config("search.gpus=0.5", "workers.device=auto")
    with reserved(half, minutes=1) as place:
        assert place.options["num_gpus"] == 0.5 and not place.warning and gpus_of(place.options) == 1
        with reserved(config("search.gpus=1", "workers.device=auto"), minutes=0.05) as other:
            assert other.options["num_gpus"] == 0 and gpus_of(other.options) == 0
            assert other.warning.startswith("no free GPU within 0.05 minutes: the final evaluation runs on the CPU")
    with reserved(config("search.gpus=1", "workers.device=auto"), minutes=1) as place:  # given back
        assert gpus_of(place.options) == 1
    with reserved(config("search.gpus=2", "workers.device=auto"), minutes=1) as place:  # there never is so much
        assert place.options["num_gpus"] == 0 and place.warning


@pytest.mark.slow
def test_workers_beside_the_task_give_the_same_report(cluster: None) -> None:
    several = config("workers.count=2", "evaluate.linear.epochs=3", "training.batch_size=320", "search.cpus=1")
    trained = untrained(several.experiment)
    alone: Report = final_evaluation.evaluate_final(several, trained)
    with reserved(several, minutes=1) as place:
        assert place.helpers == 1 and not place.warning
        task = ray.remote(**place.options)(_with_small_sets_shared_out)
        together, calls = ray.get(task.remote(several, trained, place.helpers))
    assert calls > 3  # training images, masks, and each variant
    assert together.knn_top1 == pytest.approx(alone.knn_top1, abs=0.01)
    assert together.linear_top1 == pytest.approx(alone.linear_top1, abs=0.01)
    assert together.backgrounds == pytest.approx(alone.backgrounds, abs=0.01)


def _with_small_sets_shared_out(config: SweepConfig, trained: Any, helpers: int) -> tuple[Report, int]:
    """The report, and how many sets workers encoded."""
    calls = 0
    ask = RayWorkers.__call__

    def counting(self: RayWorkers, task: Any, parts: Any) -> Any:
        nonlocal calls
        calls += 1
        return ask(self, task, parts)

    final_evaluation.SuiteConfig = partial(SuiteConfig, workers=EvaluationWorkers(at_least=50))  # type: ignore[attr-defined]
    RayWorkers.__call__ = counting  # type: ignore[method-assign]
    return judged(config, trained, helpers), calls


def test_an_encoder_trained_on_a_gpu_is_evaluated_without_one(caplog: pytest.LogCaptureFixture) -> None:
    file = config("workers.device=cuda", "training.precision=fp16", "evaluate.linear.epochs=1")
    trained = untrained(file.experiment)
    assert 0 < final_evaluation.evaluate_final(file, trained, on_cpu=True).knn_top1 < 1
    assert "torch finds no GPU" not in caplog.text
    final_evaluation.evaluate_final(file, trained)
    assert caplog.text.count("workers.device: cuda, but torch finds no GPU here; the evaluation runs on the CPU") == 1
