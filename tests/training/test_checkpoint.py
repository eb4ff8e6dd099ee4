"""Checkpoint files: whole or not at all, and nothing in them is ever run."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bgsweep.errors import UserError
from bgsweep.training import load_checkpoint, save_checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = {"experiment": {"seed": 1}, "weights": torch.arange(5)}
    save_checkpoint(tmp_path / "new" / "state.pt", state)
    loaded = load_checkpoint(tmp_path / "new" / "state.pt")
    assert loaded["experiment"] == {"seed": 1}
    assert torch.equal(loaded["weights"], state["weights"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["state.pt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"experiment": {}, "epoch": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"experiment": {}, "epoch": lambda: 2})
    assert load_checkpoint(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    """A process saves 20 MB again and again; killed at any time, what it leaves can be read."""
    path = tmp_path / "state.pt"
    script = (
        "import torch, itertools; from pathlib import Path; from bgsweep.training import save_checkpoint\n"
        f"for n in itertools.count(): save_checkpoint(Path({str(path)!r}), "
        "{'experiment': {}, 'epoch': n, 'w': torch.full((5_000_000,), float(n))}); print(n, flush=True)"
    )
    for saves in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(saves):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        state = load_checkpoint(path)
        assert bool((state["w"] == float(state["epoch"])).all())


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "pickle", "torch pickle", "other"])
def test_what_is_no_checkpoint_is_refused_in_one_line(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pt"
    if kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "truncated":
        save_checkpoint(path, {"experiment": {}, "w": torch.zeros(1000)})
        path.write_bytes(path.read_bytes()[:900])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Malicious()))
    elif kind == "torch pickle":
        torch.save({"experiment": Malicious()}, path)
    elif kind == "other":
        torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
