"""Sweeps over images some of which cannot be read."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import bgsweep
from tests.inputs import write_images


@pytest.mark.faults
def test_links_to_nowhere_in_every_split_are_told_of_and_cost_neither_trials_nor_the_end(tmp_path: Path) -> None:
    """One of the trials has a rate at which the loss is no number: that would be so again, and is not retried."""
    write_images(tmp_path)
    lost = [sorted((tmp_path / "photos" / split).rglob("*.jpg"))[1] for split in ("train", "validation", "test")]
    for path in lost:
        path.unlink()
        path.symlink_to("lost.jpg")
    space = ["space.optimizer.lr={choice: [0.03, 1.0e+30]}", "space.points=[{optimizer.lr: 1.0e+30}]"]
    search = ["search.trials=2", "search.scheduler=none", "search.max_failures=5", "data.loader_workers=1"]
    ended = bgsweep("sweep", "mine.yaml", *space, *search, "--json", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    for path in lost:
        named = f"{path.relative_to(tmp_path)}: cannot be read (a symbolic link to lost.jpg, which does not exist)"
        assert 1 <= ended.stderr.count(named) <= 2, ended.stderr  # once as an image of a view, once as one of kNN's
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert found["model"]["version"] == 1
    assert [(trial["status"], trial["failures"]) for trial in found["trials"]] == [("completed", 0), ("failed", 1)]
    assert found["trials"][0]["metrics"]["unreadable"] == 1
