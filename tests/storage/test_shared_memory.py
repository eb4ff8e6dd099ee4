"""Memory that processes share: it outlives any of them, holds no half entries, and nobody waits for it."""

import multiprocessing
import os
import pickle
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from bgsweep.storage import shared_memory as module
from bgsweep.storage.file_lock import try_lock
from bgsweep.storage.named_memory import shared_memory
from bgsweep.storage.shared_memory import SharedMemory

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")


def key(number: int) -> bytes:
    return number.to_bytes(8, "little") * 2


def opened(
    name: str | None = "a sweep", capacity: int = 1 << 20, entries: int = 100, evicts: bool = False
) -> SharedMemory:
    found = shared_memory(name, capacity, entries, evicts)
    assert found is not None
    return found


def content(memory: SharedMemory, number: int) -> list[int] | None:
    found = memory.get(key(number))
    return None if found is None else found.data.tolist()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path))


def holder(name: str, pipe: Connection) -> None:
    """A process that writes an entry, and then holds the lock for ever."""
    memory = opened(name)
    memory.put(key(1), [np.arange(5, dtype=np.uint8)], b"noted")
    pipe.recv()
    try_lock(memory._lock._file, 1.0)
    pipe.send(True)
    signal.pause()


@pytest.fixture(name="other")
def other_process() -> tuple[multiprocessing.process.BaseProcess, Connection]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=holder, args=("a sweep", there), daemon=True)
    process.start()
    return process, here


@pytest.fixture(name="in_order", params=[True, False], ids=["in order", "out of order"])
def memory_order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """As on a processor that keeps the order of loads and stores, and on another one."""
    if request.param and not module._IN_ORDER:
        pytest.skip("this processor does not")
    monkeypatch.setattr(module, "_IN_ORDER", request.param)
    return bool(request.param)


def test_processes_find_a_memory_by_its_name_and_nobody_waits_for_its_lock(
    other: tuple[multiprocessing.process.BaseProcess, Connection], in_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, pipe = other
    first = opened()
    until = time.monotonic() + 60
    while content(first, 1) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert content(first, 1) == [0, 1, 2, 3, 4]
    found = first.get(key(1))
    assert found is not None and found.meta.rstrip(b"\0") == b"noted"
    with pytest.raises(ValueError, match="read-only"):
        found.data[0] = 1
    pipe.send(True)
    pipe.recv()
    begun = time.monotonic()
    for number in range(100):  # it waits once, and not at all for the rest; readers never do where they need no lock
        assert not first.put(key(number), [np.zeros(1, np.uint8)])
        assert content(first, 1) == ([0, 1, 2, 3, 4] if in_order else None)
    assert time.monotonic() - begun < 2
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)  # the kernel releases its lock
    process.join()
    monkeypatch.setattr(first._lock, "_away_until", 0.0)
    assert first.put(key(2), [np.ones(1, np.uint8)]) and content(first, 1) == [0, 1, 2, 3, 4]
    assert opened().token == first.token  # found through this process, though the other is listed too


def test_a_memory_ends_with_its_last_process(tmp_path: Path) -> None:
    first = opened()
    token, second = first.token, pickle.loads(pickle.dumps(first))
    assert opened("another sweep").token != token and opened(None).token != token
    del first
    assert second.token == token
    second.put(key(1), [np.zeros(3, np.uint8)])
    assert content(second, 1) == [0, 0, 0]
    del second
    assert opened().token != token
    assert {path.suffix for path in (tmp_path / "memory").iterdir()} == {".users", ".lock"}


def test_what_a_killed_process_has_begun_is_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = opened(evicts=True)
    memory.claim(key(3), 7, 60)
    at = memory._first_entry(key(3)) // 8
    memory._numbers[at] += 1  # killed while it wrote the entry
    assert memory.get(key(3)) is None and memory.claim(key(3), 8, 60) and not memory.claim(key(3), 9, 60)
    assert memory._numbers[at] % 2 == 0

    def killed(self: SharedMemory, *args: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(SharedMemory, "_enter", killed)
    with pytest.raises(KeyboardInterrupt):
        memory.put(key(1), [np.ones(100, np.uint8)])
    monkeypatch.undo()
    assert memory.get(key(1)) is None
    assert memory.put(key(1), [np.full(100, 7, np.uint8)]) and content(memory, 1) == [7] * 100


def test_a_full_memory_refuses_and_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = opened(capacity=1000)
    written = [memory.put(key(number), [np.full(200, number, np.uint8)]) for number in range(1, 7)]
    assert written == [True] * 4 + [False] * 2 and memory.full
    assert [content(memory, number) for number in (1, 4, 5)] == [[1] * 200, [4] * 200, None]
    monkeypatch.setattr(module, "memory_is_free", lambda: False)
    monkeypatch.setattr(module, "_CHECKED_EVERY", 1000)
    other = opened("on a full machine", capacity=10_000)
    assert other.put(key(1), [np.zeros(500, np.uint8)]) and not other.put(key(2), [np.zeros(900, np.uint8)])


def test_in_a_ring_the_oldest_make_room() -> None:
    ring = opened(capacity=1024, entries=4, evicts=True)
    for number in range(1, 50):
        assert ring.put(key(number), [np.full(100, number, np.uint8), np.full(28, 200, np.uint8)])
        there = [each for each in range(1, number + 1) if content(ring, each) is not None]
        assert there == list(range(max(1, number - 7), number + 1))
        target = np.zeros((2, 64), np.uint8)
        assert ring.read_into(key(number), target) is not None and target[0, 0] == number and target[1, 63] == 200
    assert ring.read_into(key(49), np.zeros(5, np.uint8)) is None
    assert not ring.put(key(99), [np.zeros(2000, np.uint8)])


def test_a_ring_in_huge_pages_keeps_the_same() -> None:
    memory, other = opened(capacity=4 << 20, evicts=True), opened(capacity=4 << 20, evicts=True)
    for number in range(1, 41):  # almost three times what there is room for
        assert memory.put(key(number), [np.full(300_001, number, np.uint8)])
    there = [number for number in range(1, 41) if other.get(key(number)) is not None]
    assert there == list(range(41 - len(there), 41)) and len(there) >= 12
    assert all(set(content(other, number) or ()) == {number} for number in there)


def test_what_was_overwritten_while_it_was_read_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = opened(capacity=1024, evicts=True)
    ring.put(key(1), [np.ones(200, np.uint8)])
    still_there = SharedMemory._still_there

    def slow(self: SharedMemory, start: int) -> bool:
        monkeypatch.undo()
        for number in range(2, 9):
            self.put(key(number), [np.full(200, number, np.uint8)])
        return still_there(self, start)

    monkeypatch.setattr(SharedMemory, "_still_there", slow)
    assert ring.get(key(1)) is None


def test_peers_meet_while_they_are_seen() -> None:
    ring = opened(evicts=True)
    assert ring.meet(1, 10, 5, 60) == []
    assert ring.meet(2, 20, 7, 60) == [(10, 5)]
    assert ring.meet(1, 10, 6, 60) == [(20, 7)] and ring.meet(2, 20, 7, 60) == [(10, 6)]
    assert ring.meet(1, 10, 7, -1.0) == []
    for peer in range(100):  # more than there is room for
        ring.meet(peer + 1000, 1, 1, 60)


def test_work_is_done_by_one_until_it_is_released_or_takes_too_long() -> None:
    ring = opened(evicts=True)
    assert ring.claim(key(1), 7, 60) and ring.claim(key(1), 7, 60) and not ring.claim(key(1), 8, 60)
    assert ring.claim(key(1), 8, 0)  # whoever waits says for how long
    ring.release(key(1), 7)  # no longer its own
    assert not ring.claim(key(1), 7, 60)
    ring.release(key(1), 8)
    assert ring.claim(key(1), 7, 60)


def test_a_forked_process_writes_nothing() -> None:
    memory = opened()
    memory.put(key(1), [np.zeros(1, np.uint8)])
    child = os.fork()
    if child == 0:
        os._exit(1 if memory.put(key(2), [np.zeros(1, np.uint8)]) else 0)
    assert os.waitpid(child, 0)[1] == 0 and memory.get(key(2)) is None


def writer(name: str, number: int) -> None:
    """A process that fills a ring again and again, each entry with bytes that its key tells."""
    ring = opened(name, 64_000, 20, evicts=True)
    for step in range(3000):
        value = (step + number * 7) % 250 + 1
        ring.put(key(value), [np.full(1000 + value, value, np.uint8)], bytes([value]) * 8)


def test_readers_without_a_lock_see_whole_entries_only() -> None:
    ring = opened("a busy ring", 64_000, 20, evicts=True)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=writer, args=("a busy ring", number), daemon=True) for number in range(2)]
    for process in writers:
        process.start()
    read = 0
    while any(process.is_alive() for process in writers):
        for value in range(1, 251):
            target = np.zeros(1000 + value, np.uint8)
            if (meta := ring.read_into(key(value), target)) is not None:
                read += 1
                assert (target == value).all() and meta[:8] == bytes([value]) * 8
            if (found := ring.get(key(value))) is not None:
                assert found.data.size == 1000 + value and (found.data == value).all()
    assert read > 100 and all(process.exitcode == 0 for process in writers)
