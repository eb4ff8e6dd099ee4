"""Processes beside this one: they import what it imported, and several may begin in one store."""

import subprocess
import sys
from pathlib import Path

LOADER = """
from bgsweep.augment.pipeline import ViewPipeline
from bgsweep.config import Data, Experiment, Views
from bgsweep.data import open_splits
from bgsweep.data.loader import Batches

if __name__ == "__main__":
    source = open_splits(Data(resize=24)).train
    experiment = Experiment(views=Views(size=16))
    batches = Batches(source, ViewPipeline(experiment.views, experiment.background), 64, seed=0, workers=1)
    print(next(iter(batches.epoch(0))).views[0].shape[0])
"""

FIRST_START = """
import sys
from pathlib import Path
from bgsweep.tracking import Tracker, tracking_uri

with Tracker(tracking_uri(Path(sys.argv[1]))) as tracker:
    print(tracker.evaluation_run("first", {}))
"""


def test_a_folder_of_the_packages_name_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    """Such as that of the clone, seen from the folder above it."""
    (tmp_path / "run.py").write_text(LOADER)
    (tmp_path / "work" / "bgsweep").mkdir(parents=True)
    (tmp_path / "work" / "bgsweep" / "__init__.py").write_text("")
    command = [sys.executable, str(tmp_path / "run.py")]
    done = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip() == "64", done.stderr


def test_several_first_starts_share_a_new_store(tmp_path: Path) -> None:
    """As the jobs of a SLURM array do."""
    command = [sys.executable, "-c", FIRST_START, str(tmp_path / "store")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], [error for _, error in told]
    assert len({run for run, _ in told}) == 3
