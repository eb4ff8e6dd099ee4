"""Results as text: aligned tables, and a sweep's result with everything that a user needs next."""

from bgsweep.cli.formatting import table
from bgsweep.cli.train import Sweep


def test_columns_of_numbers_are_aligned_to_the_right() -> None:
    shown = table(("name", "kNN %", "state"), [("a", "9.5", "ended"), ("long", "10.0 ± 0.3", "")], "Trials")
    assert shown.splitlines() == [
        "Trials",
        "name       kNN %  state",
        "a            9.5  ended",
        "long  10.0 ± 0.3",
    ]
    assert table(["", ""], [("ok", "disk"), ("--", "ray")]).splitlines() == ["ok  disk", "--  ray"]


def test_a_sweep_shows_its_trials_its_comparison_and_how_to_load_the_encoder() -> None:
    metrics = {"knn_top1": 0.5, "linear_top1": 0.625, "backgrounds": {"original": 0.5, "bg_gap": 0.25}}
    best = {"trial": "t01", "metrics": metrics, "protocol": {"test": "40 images"}, "seeds": {}}
    best["seeds"] = {"knn_top1": {"mean": 0.5, "se": 0.01}}
    trial = {"id": "t01", "status": "ended", "epochs": 3, "params": {"background.remove": 0.25}, "fixed": None}
    trial |= {"metrics": {"knn_top1": 0.5}, "failures": 1, "error": "out of memory"}
    model = {"name": "encoder", "version": 2, "alias": "champion", "reason": "the first one"}
    shown = (
        Sweep()
        .show(
            {
                "trials": [trial],
                "best": best,
                "untrained": {"metrics": metrics},
                "model": model,
                "tracking_uri": "sqlite:////a store/mlflow.db",
                "run_page": "#/experiments/1/runs/2",
            }
        )
        .splitlines()
    )
    assert shown[:3] == [
        "Trials",
        "trial  state  epochs  remove  kNN %",
        "t01    ended       3    0.25   50.0  failures: 1, out of memory",
    ]
    assert "Final evaluation, in % (40 images; not used by the search)" in shown
    assert [line.split() for line in shown if line.startswith("kNN bg_gap")] == [["kNN", "bg_gap", "25.0", "25.0"]]
    assert any(line.startswith("kNN, mean of seeds") and line.endswith("50.0 ± 1.0") for line in shown)
    assert "look at it     mlflow ui --backend-store-uri 'sqlite:////a store/mlflow.db'" in shown
    assert "in a browser   http://127.0.0.1:5000/#/experiments/1/runs/2" in shown
    assert shown[-1].endswith('mlflow.pyfunc.load_model("models:/encoder@champion")')
