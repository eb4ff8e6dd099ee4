"""bgsweep from Python: beside a Ray of the user's, in another thread than the main one, as in a notebook."""

import contextlib
import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import ray
import torch

import bgsweep as bg
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.distributed.session import ray_session
from bgsweep.errors import UserError
from bgsweep.images.decoding import centre_view

TINY = Path(__file__).parent / "tiny.yaml"
FILE = {
    "name": "from-python",
    "experiment": bg.load_config(TINY, ["training.epochs=1"]).experiment.model_dump(),
    "space": {"background.remove": {"uniform": [0.0, 0.8]}},
    "search": {"trials": 2},
    "register": {"name": "from-python"},
}


def test_a_configuration_has_many_forms() -> None:
    typed = bg.Sweep(experiment=bg.load_config(TINY).experiment, name="tiny")
    wanted = typed.experiment.digest
    for form in (TINY, str(TINY), typed, typed.experiment, {"experiment": typed.experiment.model_dump()}):
        assert bg.load_config(form).experiment.digest == wanted
        assert bg.load_config(form, ["background.remove=0.9"]).experiment.background.remove == 0.9
        wider = bg.load_config(form, ["space.background.remove={uniform: [0.0, 0.8]}"])
        again = bg.load_config(wider, ["space.optimizer.lr={choice: [0.1]}"])
        assert set(again.space.parameters) == {"background.remove", "optimizer.lr"}
    before = {"experiment": {"seed": 1}}
    assert bg.load_config(before, ["seed=2", "search.trials=3"]).search.trials == 3
    assert before == {"experiment": {"seed": 1}}, "the caller's own sections stay as they are"
    with pytest.raises(UserError, match=r"configuration: experiment.seed: "):
        bg.load_config({"experiment": {"seed": -1}})
    with pytest.raises(AttributeError, match="no attribute 'swep'; there are: Experiment"):
        _ = bg.swep
    assert callable(bg.sweep) and {"Experiment", "Sweep", "pretrain", "sweep", "runs"} <= set(dir(bg))


@ray.remote(num_cpus=0)
class Mine:
    """An actor of the user's."""

    def answer(self) -> int:
        return 42


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A sweep on a Ray that was there before, with what it printed under ``told``."""
    store = tmp_path_factory.mktemp("python")
    told, result, before = io.StringIO(), {}, set(os.environ)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    mine = Mine.remote()  # type: ignore[attr-defined]

    def notebook() -> None:
        try:
            result.update(bg.sweep(FILE, store=store, name="mine"))
        except Exception as error:
            result["error"] = error

    with contextlib.redirect_stderr(told):
        thread = threading.Thread(target=notebook)
        thread.start()
        thread.join()
    assert "error" not in result, result
    yield {**result, "told": told.getvalue(), "store": store, "mine": mine, "variables": set(os.environ) - before}
    ray.shutdown()


@pytest.mark.slow
def test_a_sweep_leaves_the_users_ray_as_it_was(found: dict[str, Any]) -> None:
    assert [trial["status"] for trial in found["trials"]] == ["completed", "completed"]
    assert ray.is_initialized() and ray.get(found["mine"].answer.remote()) == 42
    assert not {"RAY_CHDIR_TO_TRIAL_DIR", "RAY_AIR_NEW_OUTPUT", "TUNE_DISABLE_SIGINT_HANDLER"} & found["variables"]
    end = time.monotonic() + 30
    while (left := ray.util.list_named_actors(all_namespaces=True)) and time.monotonic() < end:
        time.sleep(0.2)  # actors end a moment after they are told to
    assert left == []
    for line in ("sweep mine in", "t00 running", "t01 completed epoch 1/1", "evaluating t0"):
        assert line in found["told"]


@pytest.mark.slow
def test_a_ray_that_cannot_free_stopped_trials_is_refused(found: dict[str, Any]) -> None:
    with (
        pytest.raises(UserError, match=r"without its dashboard.*ray.init\(include_dashboard=True\)"),
        ray_session(2, dashboard=True),
    ):
        pass
    assert ray.is_initialized()


@pytest.mark.slow
def test_its_encoder_is_loaded_with_its_preprocessing(found: dict[str, Any], tmp_path: Path) -> None:
    encoder = bg.load("models:/from-python@champion", store=found["store"])
    image = EmbeddedSample("test")[0].image
    PIL.Image.fromarray(image).save(tmp_path / "one.png")
    seen = [encoder.preprocess(form) for form in (image, PIL.Image.fromarray(image), tmp_path / "one.png")]
    assert encoder.size == 16 and all(torch.equal(each, seen[0]) for each in seen)
    assert torch.equal((seen[0] * 255).round().byte().permute(1, 2, 0), torch.tensor(centre_view(image, 16)))
    features = encoder(torch.stack(seen))
    assert features.shape == (3, encoder.feature_dim) and not encoder.training and not features.requires_grad
    with pytest.raises(ValueError, match=r"an RGB image of uint8 \(H, W, 3\) is needed, not float64"):
        encoder.preprocess(image / 255)
    table = bg.runs("mine", found["store"])
    assert list(table["trial"]) == ["t00", "t01"]
    measured = bg.evaluate("models:/from-python@champion", "knn", store=found["store"])
    assert measured["results"]["knn"]["values"]["knn_top1"] == pytest.approx(found["best"]["metrics"]["knn_top1"])


@pytest.mark.slow
def test_one_experiment_is_trained_and_resumed(found: dict[str, Any]) -> None:
    first = bg.pretrain(TINY, ["training.epochs=1"], store=found["store"])
    again = bg.pretrain(TINY, ["training.epochs=1"], store=found["store"])
    assert first["checkpoint"] == again["checkpoint"] and first["metrics"] == again["metrics"]
    assert bg.load(first["checkpoint"], size=20).preprocess(EmbeddedSample("test")[0].image).shape == (3, 20, 20)
    with pytest.raises(UserError, match="only sweeps can write to a URI"):
        bg.pretrain(TINY, store="s3://bucket/runs")
