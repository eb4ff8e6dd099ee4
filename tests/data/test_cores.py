from pathlib import Path

import pytest

from bgsweep.data import cores
from bgsweep.data.loader import default_loader_workers

VERSION_2 = {"cpu.max": "350000 100000", "memory.max": "1073741824"}
VERSION_1 = {
    "cpu/cpu.cfs_quota_us": "350000",
    "cpu/cpu.cfs_period_us": "100000",
    "memory/memory.limit_in_bytes": "1073741824",
}
UNLIMITED = {"cpu.max": "max 100000", "memory.max": "max", "cpu/cpu.cfs_quota_us": "-1"}


@pytest.fixture(autouse=True)
def _groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "_own_share", None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.parametrize("files", [VERSION_2, VERSION_1])
def test_a_containers_limits_count(tmp_path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    assert cores.usable_cores() == 3
    assert cores.memory_limit() == 1 << 30


def test_no_limit_is_the_machine(tmp_path: Path) -> None:
    whole = cores.memory_limit()
    for name, content in UNLIMITED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores.usable_cores() == 12
    assert cores.memory_limit() == whole > 1 << 28


def test_a_trial_leaves_the_others_their_cores() -> None:
    assert default_loader_workers() == 11
    cores.take_share(1 / 4)
    assert default_loader_workers() == 2
