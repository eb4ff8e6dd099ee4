"""Commands and snippets work as they are printed: in a new process without an environment, from another folder."""

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from bgsweep.sweep.heartbeat import Heartbeat
from tests.command import bgsweep, fresh
from tests.docs.test_commands import PAGES, write_sample
from tests.progress import files_in, wait_for

TINY = Path(__file__).parents[1] / "tiny.yaml"
SWEEP = ["space.background.remove={uniform: [0.0, 0.8]}", "search.trials=2", "training.epochs=1"]
pytestmark = [pytest.mark.slow, pytest.mark.random_order(disabled=True)]  # the last test goes on with the sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a sweep has registered the quickstart's model."""
    made = tmp_path_factory.mktemp("a sweep") / "my runs"
    made.mkdir()
    (made / "quickstart.yaml").write_bytes(TINY.read_bytes())
    done = bgsweep(
        "sweep", "quickstart.yaml", *SWEEP, "register.name=bgsweep-quickstart", "--name", "printed", folder=made
    )
    assert done.returncode == 0, done.stderr
    (made / "printed").write_text(done.stdout, encoding="utf-8")
    return made


def line(folder: Path, label: str) -> str:
    """The line that the sweep printed after a label."""
    found = re.search(rf"^{label} +(.*)$", (folder / "printed").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, label
    return found[1]


def test_the_line_that_loads_the_encoder(folder: Path, tmp_path: Path) -> None:
    program = f"{line(folder, 'load it')}; import numpy; print(encoder.predict(numpy.ones((3, 3, 20, 20), 'f')).shape)"
    done = fresh(shlex.join(["python", "-c", program]), tmp_path)
    assert done.stdout.splitlines()[-1:] == ["(3, 32)"], done.stderr
    assert not list(tmp_path.iterdir()), "it made a store of its own"


def test_the_line_that_shows_the_store(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    path, home = f"{Path(sys.executable).parent}:/usr/bin:/bin", str(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            f"exec {line(folder, 'look at it')} --port {port}",
            shell=True,
            cwd=tmp_path,
            env={"PATH": path, "HOME": home},
            stdout=log,
            stderr=log,
        )
    try:

        def answers() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=2):
                return True
            return False

        wait_for(answers, lambda: files_in(tmp_path), lambda: (tmp_path / "log").read_text(), process)
        request = urllib.request.Request(
            f"{address}/api/2.0/mlflow/experiments/search",
            json.dumps({"max_results": 10}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert "quickstart" in [each["name"] for each in json.load(answer)["experiments"]]
    finally:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()
        process.wait()


SNIPPETS = [
    pytest.param(snippet, id=f"{page.stem}-{number}")
    for page in PAGES
    if page.stem not in ("CONTRIBUTING", "views")  # whose blocks test_contributing.py and test_views.py run
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    if "example.org" not in snippet  # needs a server of one's own: tests/tracking/test_server.py has one
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_of_the_pages(folder: Path, snippet: str) -> None:
    done = fresh(shlex.join(["python", "-c", snippet]), folder)
    assert done.returncode == 0, done.stderr


def test_the_line_that_trains_from_a_pack(folder: Path, tmp_path: Path) -> None:
    write_sample(folder)
    done = bgsweep("pack", "images", "truth", "--out", "a pack", folder=folder)
    override = re.search(r"^to train from it: (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and override is not None, done.stderr
    tiny = "data.validation=null training.epochs=1 training.batch_size=16 method.queue_size=16"
    done = fresh(f"bgsweep pretrain {TINY} {tiny} {override[1]}", tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_line_that_makes_masks_by_what_was_learnt(folder: Path, tmp_path: Path) -> None:
    write_sample(folder)
    cheap = ["side=32", "rounds=1", "epochs=1", "student_epochs=1", "batch_size=8", "device=cpu"]
    done = bgsweep("masks", "train", "images", "--out", "learnt masks.onnx", *cheap, folder=folder)
    command = re.search(r"^use it: (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and command is not None, done.stderr
    words = command[1].replace("IMAGES", shlex.quote(str(folder / "images" / "test"))).replace("MASKS", "masks")
    done = fresh(words, tmp_path)
    assert done.returncode == 0 and list((tmp_path / "masks").rglob("*.png")), done.stderr


def test_the_commands_that_follow_a_sweep_and_go_on_with_it(folder: Path, tmp_path: Path) -> None:
    """As if its driver had died just before it wrote the result."""
    path = folder / "bgsweep_runs" / "sweeps" / "printed" / "sweep.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["result"]
    manifest["owner"]["bgsweep.host"] = "another"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with Heartbeat(path.parent):
        done = bgsweep("stop", "printed", folder=folder)
        follow = re.search("`(bgsweep status .*)`", done.stdout)
        assert done.returncode == 0 and follow is not None, done.stderr
        done = fresh(f"{follow[1]} --json", tmp_path)
        assert json.loads(done.stdout)["sweeps"][0]["state"] == "running", done.stderr

    done = bgsweep("stop", "printed", folder=folder)
    resume = re.search("`(bgsweep sweep --resume .*)`", done.stderr)
    assert done.returncode == 2 and resume is not None, done.stderr
    done = fresh(resume[1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
