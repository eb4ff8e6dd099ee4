"""A trial's footprint, where it can be counted by hand, and docs/scaling.md, which has what `bgsweep plan` prints."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bgsweep.cli.formatting import duration
from bgsweep.cli.main import main
from bgsweep.config import load, resolve
from bgsweep.errors import UserError
from bgsweep.sweep.cost import plan
from bgsweep.sweep.footprint import GPU_FLOPS, Footprint, footprint, read_measured
from tests.command import bgsweep

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scaling.md"
H100 = ROOT / "benchmarks" / "measured" / "h100.jsonl"
IMAGENET = 1_281_167
FILES = ("moco_v2", "byol", "swav", "simclr", "vicreg", "dino", "supervised")


def recipe(method: str, *overrides: str) -> Any:
    return load(ROOT / "search_spaces" / f"{method}_imagenet.yaml", ["data.masks=masks", *overrides])


def trial(method: str, *overrides: str, images: int = IMAGENET, **figures: Any) -> Footprint:
    config = recipe(method, *overrides)
    return footprint(config, config.experiment.workers.count, images, **figures)


def test_operations_are_those_of_a_real_step() -> None:
    """An encoder's forward pass as it is counted on real tensors, times the passes of MoCo-v2's step."""
    from benchmarks.gpu.workloads import Scale, noise, resolved, started

    encoder = {"name": "resnet10", "width": 16, "stem": "small"}
    tree = {"encoder": encoder, "views": {"size": 32}, "training": {"batch_size": 16, "precision": "fp32"}}
    experiment = resolved({**tree, "method": Scale(True).method("moco_v2")}, "cpu")
    training = started(experiment)
    with FlopCounterMode(display=False) as counter:
        training._step(noise(experiment, torch.device("cpu")), 0)
    found = footprint(resolve({"experiment": experiment.model_dump()}), 1, 1000)
    assert GPU_FLOPS / found.images_per_second == pytest.approx(counter.get_total_flops() / 16, rel=0.03)


def test_a_trial_is_as_long_as_its_epochs_and_evaluations() -> None:
    found = trial("moco_v2")
    steps = round(0.99 * IMAGENET) // 256
    assert found.epoch_seconds == pytest.approx(steps * 256 / (8 * found.images_per_second))
    assert found.trial_hours == pytest.approx((200 * found.epoch_seconds + 20 * found.evaluation_seconds) / 3600)
    assert found.images_per_second == pytest.approx(600, rel=0.05)  # what GPU_FLOPS is an estimate of
    assert found.evaluation_share < 0.02 and found.warnings == ()
    assert trial("moco_v2", "evaluate.online_bank=null").evaluation_seconds > 10 * found.evaluation_seconds


@pytest.mark.parametrize(("method", "mib"), [("moco_v2", 352), ("byol", 394), ("swav", 217)])
def test_a_checkpoint_is_as_large_as_one_that_was_written(method: str, mib: int) -> None:
    assert round(trial(method).checkpoint_mib) == mib


def test_a_real_run_writes_a_checkpoint_of_that_size(tmp_path: Path) -> None:
    from bgsweep.training.run import Run

    config = load(ROOT / "tests" / "tiny.yaml", ["encoder.width=16"], searched=False)
    run = Run(config)
    run.training.step_epoch()
    written = run.save(tmp_path).stat().st_size / 2**20
    assert footprint(config, 1, 960).checkpoint_mib == pytest.approx(written, rel=0.1)


@pytest.mark.parametrize(
    ("method", "overrides", "told"),
    [
        (
            "moco_v2",
            ["workers.cpus=2"],
            "views need 1.6 cores a GPU beside the one that trains, and there are 2 in all",
        ),
        ("byol", ["workers.count=4"], "raise workers.count or training.accumulate"),
        (
            "moco_v2",
            ["evaluate.online_bank=null", "evaluate.every=1"],
            "raise evaluate.every, or lower evaluate.online_",
        ),
        ("moco_v2", ["search.hang_minutes=0.01"], "is taken to hang after 0.01 minutes without progress: raise"),
        ("moco_v2", ["training.checkpoint_every=20"], "h pass between checkpoints"),
    ],
)
def test_what_starves_or_does_not_fit_is_told(method: str, overrides: list[str], told: str) -> None:
    assert any(told in line for line in trial(method, *overrides).warnings)


def measured(folder: Path, **values: Any) -> Path:
    """A file as `python -m benchmarks.gpu` writes it."""
    rows = [
        {"part": "machine", "name": "machine", "values": {"machine": "2026-12-01, NVIDIA H100"}},
        {"part": "step", "name": "matrix product, bf16", "values": {"tflops": 700.0}},
        {
            "part": "step",
            "name": "resnet50 moco_v2",
            "values": {
                "images_per_second": 3000.0,
                "gflop_per_image": 32.7,
                "memory_gib": 14.0,
                "batch": 256,
                **values,
            },
        },
        {"part": "step", "name": "resnet50 swav", "state": "failed"},
        {"part": "whole", "name": "loader alone", "values": {"images_per_second_and_process": 400.0}},
    ]
    folder.mkdir(exist_ok=True)
    file = folder / "gpu.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_measured_rows_replace_estimates(tmp_path: Path) -> None:
    figures = read_measured(measured(tmp_path))
    moco, byol = trial("moco_v2", measured=figures), trial("byol", measured=figures)
    assert moco.source == "measured on 2026-12-01, NVIDIA H100"
    assert moco.images_per_second == pytest.approx(3000, rel=0.01)
    assert byol.images_per_second == pytest.approx(1500, rel=0.01)  # not measured: of twice the operations
    assert moco.gpu_gib == pytest.approx(14 / 8) and moco.loader_cores == pytest.approx(7.5, rel=0.01)
    assert any(line.startswith("views need 7.5 cores") for line in moco.warnings)


def test_compiled_steps_are_no_measure_of_plain_ones(tmp_path: Path) -> None:
    file = measured(tmp_path)
    row = {"images_per_second": 9000.0, "gflop_per_image": 24.6, "memory_gib": 1.0, "batch": 256}
    for kind in ("compiled", "split_bn 8"):
        with file.open("a") as lines:
            lines.write(json.dumps({"part": "step", "name": f"resnet50 moco_v2, {kind}", "values": row}) + "\n")
    assert read_measured(file) == read_measured(measured(tmp_path / "plain"))


def test_a_trial_of_several_seeds_takes_as_many_times_the_hours_memory_and_disk() -> None:
    one, three = trial("moco_v2"), trial("moco_v2", "search.seeds=3")
    for name in ("trial_hours", "gpu_gib", "views_gib", "checkpoint_mib", "checkpoints_gib"):
        assert getattr(three, name) == pytest.approx(3 * getattr(one, name))
    assert (three.images_per_second, three.epoch_seconds) == (one.images_per_second, one.epoch_seconds)


def test_checkpoints_are_those_that_stay() -> None:
    each = trial("moco_v2").checkpoint_mib / 2**10
    assert trial("moco_v2", "search.trials=64").checkpoints_gib == pytest.approx(2 * 11 * each)
    assert trial("moco_v2", "search.trials=64", "search.keep_checkpoints=null").checkpoints_gib == pytest.approx(
        128 * each
    )
    assert trial("moco_v2", "search.trials=4").checkpoints_gib == pytest.approx(2 * 4 * each)


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"part": "machine", "name": "machine", "values": {"machine": "m"}}\n')
    (tmp_path / "other.json").write_text('{\n"a": 1}\n', encoding="utf-8")
    with pytest.raises(UserError, match="has no row of the part `step`"):
        read_measured(tmp_path / "empty.jsonl")
    for name in ("other.json", "missing.jsonl"):
        with pytest.raises(UserError, match="is no file of `python -m"):
            read_measured(tmp_path / name)


def test_the_command_shows_a_trial_without_any_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(ROOT / "search_spaces" / "moco_v2_imagenet.yaml")
    words = ["plan", file, "data.masks=masks", "workers.cpus=2", "--gpus", "8"]
    assert main([*words, "--images", str(IMAGENET)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("One trial, estimated (docs/scaling.md)\n") and "warning: views need 1.6 cores" in shown
    done = bgsweep(*words, "--measured", measured(tmp_path), "--images", IMAGENET, "--json", folder=tmp_path)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["trial"]["source"] == "measured on 2026-12-01, NVIDIA H100"
    assert found["cost"]["epoch"] == found["trial"]["epoch_seconds"]
    space = "space.background.remove={uniform: [0, 0.8]}"
    counted = ["plan", ROOT / "tests" / "tiny.yaml", space, "search.trials=2", "--gpus", 1, "--json"]
    done = bgsweep(*counted, "--measured", measured(tmp_path), folder=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1])["trial"]["images_per_second"] > 0, done.stderr


@cache
def planned(method: str, gpus: int) -> dict[str, Any]:
    """A file's plan; on 8 GPUs recipes of more workers have eight."""
    fewer = ["workers.count=8"] if gpus == 8 else []
    return plan(recipe(method, *fewer), gpus, None, None, IMAGENET)


def of_a_trial(method: str, gpus: int) -> str:
    found = planned(method, gpus)["trial"]
    cells = [
        f"{found['gpus']:g}",
        f"{found['images_per_second']:.0f}",
        f"{found['epoch_seconds'] / 60:.1f} min",
        f"{found['trial_hours']:.0f} h",
        f"{100 * found['evaluation_share']:.1f} %",
        f"{found['gpu_gib']:.0f} GiB",
        f"{found['loader_cores']:.1f}",
        f"{found['views_gib']:.1f} GiB",
        f"{found['checkpoint_mib']:.0f} MiB",
    ]
    return f"| `{method}_imagenet.yaml` | {' | '.join(cells)} |"


def on_h100(method: str, *fewer: str) -> str:
    found = trial(method, *fewer, measured=read_measured(H100))
    cells = [
        f"{found.gpus:g}",
        f"{found.images_per_second:,.0f}",
        f"{found.epoch_seconds / 60:.1f} min",
        f"{found.trial_hours:.0f} h",
        f"{100 * found.evaluation_share:.1f} %",
        f"{found.gpu_gib:.0f} GiB",
        f"{found.loader_cores:.1f}",
    ]
    return f"| `{method}_imagenet.yaml` | {' | '.join(cells)} |"


def of_a_sweep(method: str) -> str:
    cells = []
    for gpus in (8, 64, 512):
        found = planned(method, gpus)
        own = found["settings"][0]
        cells.append(f"{found['at_once']} at once, {duration(own['hours'])}")
    total = planned(method, 64)
    kept = f"{total['trial']['checkpoints_gib']:.0f} GiB"
    return f"| `{method}_imagenet.yaml` | {total['trials']} | {' | '.join(cells)} | {kept} |"


@pytest.mark.parametrize("method", FILES)
def test_the_page_has_what_plan_prints(method: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    on_h100s = (on_h100(method, "workers.count=8"), on_h100(method))
    rows = dict.fromkeys((of_a_trial(method, 8), of_a_trial(method, 64), *on_h100s, of_a_sweep(method)))
    missing = [row for row in rows if row not in page]
    assert not missing, "docs/scaling.md: write\n" + "\n".join(missing)
