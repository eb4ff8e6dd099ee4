"""A lock that nobody waits for."""

import fcntl
import os
import time
from pathlib import Path

from bgsweep.storage.file_lock import FileLock, try_lock


def opened(folder: Path) -> int:
    return os.open(folder / "lock", os.O_RDWR | os.O_CREAT)


def test_lock_is_tried_for_a_while(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    fcntl.flock(one, fcntl.LOCK_EX)
    assert not try_lock(two, 0.01)
    fcntl.flock(one, fcntl.LOCK_UN)
    assert try_lock(two, 0.01)


def test_one_holds_it_at_a_time_and_who_did_not_get_it_does_not_wait_again(tmp_path: Path) -> None:
    first, second = FileLock(opened(tmp_path)), FileLock(opened(tmp_path))
    with first.tried() as held:
        assert held
        with second.tried() as other:
            assert not other
        begun = time.monotonic()
        for _ in range(100):
            with second.tried() as other:
                assert not other
        assert time.monotonic() - begun < 1
    second._away_until = 0.0
    with second.tried() as held:
        assert held


def test_a_forked_process_goes_on_without(tmp_path: Path) -> None:
    lock = FileLock(opened(tmp_path))
    lock._process += 1  # as after a fork, whose descriptors are the parent's
    with lock.tried() as held:
        assert not held
