"""Files and folders that are there whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bgsweep.storage.atomic import remove_partial, replacing, replacing_folder, write_whole


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_takes_its_name_when_it_is_written(durable: bool, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with replacing(path, durable) as partial:
        partial.write_text("whole")
        assert not path.exists() and partial.parent == path.parent
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_is_renamed_has_reached_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a crash of the machine could leave the new name on an empty file."""
    calls: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr("os.fsync", lambda descriptor: (calls.append("sync"), real_sync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("rename"), real_replace(self, to))[1])
    write_whole(tmp_path / "file", b"data")
    assert calls == ["sync", "rename", "sync"]
    calls.clear()
    write_whole(tmp_path / "file", b"data", durable=False)
    assert calls == ["rename"]


def test_a_folder_takes_its_name_when_it_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    left = tmp_path / ".folder.partial"
    left.mkdir()
    (left / "old").touch()
    with replacing_folder(target) as partial:
        partial.mkdir()
        (partial / "file").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["file"]
    with pytest.raises(ValueError), replacing_folder(tmp_path / "other") as partial:
        partial.mkdir()
        raise ValueError
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from bgsweep.storage.atomic import replacing\n"
        f"with replacing(Path({str(tmp_path / 'a' / 'file')!r})) as partial:\n"
        "    partial.write_text('half'); print('written', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list((tmp_path / "a").iterdir())) == 1 and not (tmp_path / "a" / "file").exists()
    remove_partial(tmp_path)
    assert not list((tmp_path / "a").iterdir())
