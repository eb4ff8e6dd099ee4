"""`python -m benchmarks.gpu` rehearsed on the CPU: each part makes its rows, and none takes the others with it."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import correctness, packed, platform, science, step, whole
from benchmarks.gpu.rows import MISSED, Rows, Skipped, append, latest, read, table
from benchmarks.gpu.workloads import Scale, noise
from bgsweep.config.methods import METHODS
from bgsweep.methods.base import Views


def rehearse(part: Any, folder: Path, *only: str) -> dict[str, dict[str, Any]]:
    """The rows of a part at toy size, by name."""
    name = part.__name__.rpartition(".")[2]
    part.run(Rows(folder, name, "run", time.monotonic() + 600, only), True)
    return {row["name"]: row for row in latest(read(folder))}


@pytest.mark.parametrize("methods", ["swav", pytest.param("*", marks=pytest.mark.faults)], ids=["one", "all"])
def test_correctness_checks_every_method(methods: str, tmp_path: Path) -> None:
    found = rehearse(correctness, tmp_path, f"*: {methods}", "colors on the device")
    wanted = set(METHODS) if methods == "*" else {methods}
    for kind in ("fp32 as on the CPU", "no host sync, bf16", "resume", "finite, bf16"):
        assert {name.rpartition(": ")[2] for name in found if name.startswith(kind)} == wanted
    states = {name: row["state"] for name, row in found.items()}
    assert {state for name, state in states.items() if "fp16" in name or "compile" in name} == {"skipped"}
    assert [row for row in found.values() if row["state"] not in ("passed", "skipped")] == []
    assert all(found[f"resume: {name}"]["values"]["bit_identical"] for name in wanted)
    assert found["colors on the device"]["values"]["mean_levels_to_the_cpu_pipeline"] > 0


def test_a_step_that_computes_something_else_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first trainer of each pair stands for the GPU's; its weights are not quite the same."""
    start, made = correctness.started, list[Any]()

    def off(experiment: Any) -> Any:
        made.append(start(experiment))
        if len(made) == 1:
            with torch.no_grad():
                next(made[0].method.encoder.parameters()).mul_(1.05)
        return made[-1]

    monkeypatch.setattr(correctness, "started", off)
    (row,) = rehearse(correctness, tmp_path, "fp32*: byol").values()
    assert row["state"] == "missed" and row["reason"].startswith("wanted: loss within")


def test_a_step_that_reads_a_value_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bgsweep.methods.byol import BYOL

    def reading(self: Any, progress: float) -> None:
        float(next(self.parameters()).detach().sum())

    monkeypatch.setattr(BYOL, "after_step", reading)
    (row,) = rehearse(correctness, tmp_path, "no host sync, bf16: byol").values()
    assert row["state"] == "failed" and "the host reads a value of the device" in row["reason"]


def test_steps_are_measured_against_the_bare_loop_and_the_matrix_product(tmp_path: Path) -> None:
    found = rehearse(step, tmp_path)
    assert found["matrix product, bf16"]["values"]["tflops"] > 0
    for name in ("resnet50 moco_v2", "vit_s_16 moco_v2", "resnet50 byol", "resnet50 swav"):
        values = found[name]["values"]
        assert found[name]["state"] == "passed" and values["share_of_bare"] > 0 and values["memory_gib"] > 0
        assert values["images_per_second"] == pytest.approx(1000 * values["batch"] / values["step_ms"])
    assert found["resnet50 moco_v2, compiled"]["state"] == "skipped"
    # MoCo-v2: a query's forward and backward pass and a key's forward pass; BYOL, symmetric: twice that.
    gflop = {name: found[f"resnet50 {name}"]["values"]["gflop_per_image"] for name in ("moco_v2", "byol")}
    assert gflop["byol"] == pytest.approx(2 * gflop["moco_v2"], rel=0.1)


def test_a_batch_too_large_for_the_device_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(case: Any, scale: Any, device: Any, batch: int) -> dict[str, Any]:
        if batch > 64:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return {"batch": batch}

    monkeypatch.setattr(step, "_measure", measure)
    assert step.measure(step.CASES[0], Scale(toy=False), torch.device("cpu")) == {"batch": 64}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap of average pooling
def test_trials_side_by_side_are_measured_and_train_as_each_by_itself(tmp_path: Path) -> None:
    found = rehearse(packed, tmp_path)
    assert {row["state"] for row in found.values()} == {"passed"} and len(found) == 2
    for row in found.values():
        assert row["values"]["in_turn_ratio"] == 1 and row["values"]["stacked_per_second"] > 0
    settings, cpu = packed.experiment("resnet18, 64 px", True, "cpu"), torch.device("cpu")
    views, rates = Views(noise(settings, cpu).views, torch.zeros(16)), [0.01, 0.05]
    alone = packed.trials(settings, 2)
    together, state = packed.stacked(packed.trials(settings, 2), views, rates)
    one_by_one = packed.in_turn(alone, views, rates)
    together()
    one_by_one()
    before = packed.trials(settings, 2)
    for number, method in enumerate(alone):
        untrained, moved = before[number].state_dict(), 0.0
        for name, value in method.state_dict().items():  # BatchNorm's statistics among them
            assert torch.allclose(state[name][number].to(value.dtype), value, atol=1e-3), name
            moved = max(moved, float((value - untrained[name]).abs().max()))
        assert moved > 0.01


def test_training_from_files_is_measured_against_one_batch(tmp_path: Path) -> None:
    found = rehearse(whole, tmp_path)
    for colors in ("cpu", "device"):
        values = found[f"resnet50, colors on the {colors}"]["values"]
        assert 0 < values["data_wait"] < 1 and values["loader_processes"] == 1
        assert values["share_of_synthetic"] == pytest.approx(
            values["images_per_second"] / values["synthetic_images_per_second"], abs=0.001
        )
    assert found["loader alone"]["values"]["images_per_second"] > 0
    stages = found["views on the GPU"]["values"]
    assert stages["images_per_second_all"] < stages["images_per_second_decoding"]
    assert found["masks by U2-Net-P"]["values"]["largest_difference_from_the_cpu"] < 1e-4


@pytest.mark.faults
def test_the_platform_sweeps_kills_and_trains_on_ray(tmp_path: Path) -> None:
    found = rehearse(platform, tmp_path)
    assert {row["state"] for row in found.values()} == {"passed"}, found
    assert found["sweep, four trials on one device"]["values"]["champion"] == "bgsweep-quickstart version 1"
    assert found["sweep, four trials on one device"]["values"]["trials_at_once"] >= 1  # as the journal has it
    values = found["sweep, four trials on one device"]["values"]
    phases = [value for name, value in values.items() if name.endswith("_s")]
    assert len(phases) == 4 and sum(phases) == pytest.approx(values["seconds"], abs=0.5) and min(phases) >= 0
    assert found["a killed trial resumes"]["values"]["failures"] == [1]
    assert found["Ray Train, one worker"]["values"]["epochs"] == 3


@pytest.mark.slow
def test_science_trains_both_arms(
    imagenette: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(command.IMAGENETTE, str(imagenette))
    found = rehearse(science, tmp_path)
    both = found["MoCo-v2 on Imagenette, side by side"]["values"]
    for arm in science.ARMS:
        row = found[f"MoCo-v2 on Imagenette, {arm}"]
        assert row["values"]["background"] == arm and row["values"]["knn_top1"] == both[f"{arm}_knn_top1"]
    monkeypatch.delenv(command.IMAGENETTE)
    (tmp_path / "gpu.jsonl").unlink()
    (row,) = rehearse(science, tmp_path).values()
    assert row["state"] == "skipped" and "give --imagenette PATH" in row["reason"]


RUN = """
import json, sys, time
from pathlib import Path
words = sys.argv
arm, out = words[words.index("--arms") + 1], Path(words[words.index("--out") + 1])
if "--pace" in words:
    time.sleep(0.4)  # two epochs of the slower arm
    print(json.dumps({"start": 0.0, "epoch": 0.1 if arm == "none" else 0.2, "evaluation": 0.0}))
    sys.exit()
epochs = int(words[words.index("--epochs") + 1])
folder = out / f"moco_v2-{arm}-{epochs}"
folder.mkdir(parents=True)
(folder / "state.pt").touch()
last = epochs if arm == "none" else 3
(folder / "curve.jsonl").write_text(json.dumps({"epoch": last, "knn_top1": 0.4}) + "\\n")
time.sleep(0 if last == epochs else 60)
"""


def test_science_reports_the_last_evaluation_of_a_run_that_did_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.py").write_text(RUN, encoding="utf-8")
    monkeypatch.setattr(science, "PROGRAM", tmp_path / "run.py")
    monkeypatch.setattr(science, "device_of", lambda toy: "cuda")
    monkeypatch.setenv(command.IMAGENETTE, str(tmp_path))
    found = science.train(time.monotonic() + 4, Scale(toy=False), tmp_path / "science")
    epochs = found["none"]["epochs"]
    assert 3 < epochs < 4 / 0.2  # as many as the slower arm can train, without the time that finding them out took
    assert found["none"][MISSED] == "" and found["none"]["epoch"] == epochs
    assert found["background"]["epoch"] == 3 and found["background"]["knn_top1"] == 0.4
    assert found["background"][MISSED] == f"background: unfinished, ended by its time after epoch 3 of {epochs}"
    assert sorted(path.name for path in (tmp_path / "science").glob("*/*/*")) == ["curve.jsonl", "curve.jsonl"]


def test_rows_go_on_after_what_fails_and_keep_to_their_time(tmp_path: Path) -> None:
    def refuse() -> dict[str, Any]:
        raise Skipped("no such thing here")

    rows = Rows(tmp_path, "step", "run", time.monotonic() + 50)
    rows.measure("breaks", lambda: {"x": 1 / 0})
    rows.measure("refused", refuse)
    rows.measure("long", dict, seconds=60)
    rows.measure("slow", lambda: {"share": 0.5, MISSED: "wanted: 0.95 | more"})
    rows.measure("slow", lambda: {"share": 0.7})  # no row is made twice in a run
    found = latest(read(tmp_path))
    assert [row["state"] for row in found] == ["failed", "skipped", "skipped", "missed"]
    assert found[0]["reason"] == "ZeroDivisionError: division by zero"
    assert found[2]["reason"].startswith("needs about 60 s")
    assert table(found).splitlines()[-1] == "| step | slow | missed | wanted: 0.95 / more; share 0.5 |"
    with (tmp_path / "gpu.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"run": "run", "part"')  # cut off
    assert len(latest(read(tmp_path))) == 4


def test_a_later_runs_skip_hides_no_result() -> None:
    def row(run: str, state: str) -> dict[str, Any]:
        return {"run": run, "part": "step", "name": "a", "state": state}

    assert latest([row("1", "passed"), row("2", "skipped")]) == [row("1", "passed")]
    assert latest([row("1", "passed"), row("2", "failed")]) == [row("2", "failed")]


WRITE = """
import sys, time
from pathlib import Path
from benchmarks.gpu.rows import Rows
rows = Rows(Path(sys.argv[1]), "step", "run", time.monotonic() + 60)
rows.measure("first", dict)
"""


@pytest.mark.parametrize(
    ("ends", "reason", "others"),
    [
        ("import os; rows.measure('bad', os.abort)", "its process ended with code -6", True),
        ("rows.measure('bad', lambda: time.sleep(600), limit=1)", "took longer than 1 s", True),
        ("rows.measure('bad', lambda: time.sleep(600))", "took longer than the part's time", False),
    ],
)
def test_a_process_that_dies_or_hangs_costs_its_row_only(
    ends: str, reason: str, others: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"{WRITE}\n{ends}\nrows.measure('last', dict)"
    monkeypatch.setattr(command, "_command", lambda *_: [sys.executable, "-c", program, str(tmp_path)])
    monkeypatch.setattr(command, "_GRACE", 2.0)
    options = argparse.Namespace(out=tmp_path, only=[], toy=True, minutes=8.0)
    command._run_part("step", "run", 60.0 if others else 3.0, options)
    found = {row["name"]: row for row in latest(read(tmp_path))}
    assert found["first"]["state"] == "passed"
    assert (found["bad"]["state"], found["bad"]["reason"]) == ("failed", reason)
    assert ("last" in found) is others  # the part is started again without the row that killed it


def test_the_command_runs_chosen_rows_and_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = "correctness:resume: byol"
    assert command.main(["--toy", "--out", str(tmp_path), "--minutes", "20", "--only", pattern]) == 0
    shown = capsys.readouterr().out
    assert "| correctness | resume: byol | passed | bit_identical True" in shown
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| machine | machine | passed |" in text and "| correctness | resume: byol | passed |" in text
    assert {row["part"] for row in read(tmp_path)} == {"machine", "correctness"}
    with pytest.raises(SystemExit, match="no part speed"):
        command.main(["--toy", "--out", str(tmp_path), "--only", "speed"])


def test_a_part_whose_packages_are_missing_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, {"run": "run", "part": "machine", "name": "machine", "state": "passed"})
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["--toy", "--out", str(tmp_path), "--part", "platform", "--run", "run", "--seconds", "60"]
    assert command.main(words) == 0
    assert read(tmp_path)[-1]["state"] == "skipped" and "ray is not installed here" in read(tmp_path)[-1]["reason"]
