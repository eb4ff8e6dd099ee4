"""Files in memory in huge pages hold what was written, for all who map them, and are freed."""

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bgsweep.storage.huge_pages import HUGE, MappedFile, whole_pages

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
SIZE = 2 * HUGE + 5000  # the end is less than a huge page


@pytest.fixture(name="file")
def memory_file() -> Iterator[int]:
    file = os.memfd_create("bgsweep-test")
    os.ftruncate(file, SIZE)
    yield file
    os.close(file)


def in_huge_pages() -> int:
    """Bytes of files in memory that this process has mapped in huge pages."""
    found = re.findall(r"^ShmemPmdMapped:\s+(\d+) kB", Path("/proc/self/smaps").read_text(), re.M)
    return sum(map(int, found)) << 10


def test_what_is_written_stays_and_is_seen_by_all_who_map_it(file: int) -> None:
    one, other = MappedFile(file, SIZE), MappedFile(file, SIZE)
    drawn = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    np.frombuffer(one.bytes, np.uint8)[:] = drawn
    writing = threading.Event()

    def count() -> None:  # while its page is exchanged for another
        place = np.frombuffer(other.bytes, np.uint8)
        for number in range(100_000):
            place[7] = number % 256
            writing.set()

    thread = threading.Thread(target=count)
    thread.start()
    writing.wait()
    one.ask_for_huge(0, SIZE)
    thread.join()
    drawn[7] = 99_999 % 256
    assert np.array_equal(np.frombuffer(other.bytes, np.uint8), drawn)
    assert np.array_equal(np.frombuffer(one.bytes, np.uint8), drawn)


def test_pages_are_huge_where_linux_can(file: int) -> None:
    before = in_huge_pages()
    mapped = MappedFile(file, SIZE)
    mapped.ask_for_huge(0, SIZE)
    if mapped._refused:
        pytest.skip("this Linux has no huge pages to give")
    other = MappedFile(file, SIZE)
    assert sum(mapped.bytes[::4096]) + sum(other.bytes[::4096]) == 0
    assert in_huge_pages() - before == 2 * 2 * HUGE


def test_a_mapping_ends_with_the_last_reference_to_its_bytes(file: int) -> None:
    mapped = MappedFile(file, SIZE)
    part = np.frombuffer(mapped.bytes, np.uint8)[5:10]
    del mapped
    part[:] = 3
    assert "bgsweep-test" in Path("/proc/self/maps").read_text()
    del part
    assert "bgsweep-test" not in Path("/proc/self/maps").read_text()


def test_only_files_of_a_huge_page_and_more_are_rounded_up() -> None:
    assert [whole_pages(size) for size in (100, HUGE, HUGE + 1)] == [100, HUGE, 2 * HUGE]
