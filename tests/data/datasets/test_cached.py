"""Decoded images are kept once for all processes of a sweep on a machine, and are those that the files give."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bgsweep.data.datasets import cached
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.cached import Cached
from bgsweep.data.datasets.wrappers import Wrapper
from bgsweep.data.sample import Sample
from bgsweep.data.sharing import Sharing, share_within
from bgsweep.errors import collected_warnings
from bgsweep.images.compositing import largest_background_rectangle


class Counted(Wrapper):
    """The bundled images, which says how often it was asked for one."""

    def __init__(self) -> None:
        super().__init__(EmbeddedSample("test"))
        self.decoded = 0

    def __getitem__(self, index: int) -> Sample:
        self.decoded += 1
        return super().__getitem__(index)


@pytest.fixture(name="sweep", autouse=True)
def in_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("BGSWEEP_CACHE", str(tmp_path))
    share_within(Sharing("a sweep"))
    cached._opened.cache_clear()
    yield "a sweep"
    share_within(None)
    cached._opened.cache_clear()


def other_process() -> None:
    """Forget what this process has open, as far as this room can: another one would find it by its name only."""
    cached._opened.cache_clear()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")
def test_trials_of_a_sweep_decode_each_image_once_together() -> None:
    one, other, plain = Counted(), Counted(), EmbeddedSample("test")
    first, second = Cached(one), Cached(other)
    for index in range(10):
        image = first[index]
        if index < 5:
            assert image.mask is not None and image.background_rect is not None
            assert image.inpainted_background.shape == image.image.shape
    other_process()
    for index in range(10):
        found, expected = second[index], plain[index]
        assert (found.id, found.label) == (expected.id, expected.label)
        np.testing.assert_array_equal(found.image, expected.image)
        assert other.decoded == 0
        if index < 5:
            np.testing.assert_array_equal(found.mask, expected.mask)
            assert found.background_rect == largest_background_rectangle(expected.mask)
            np.testing.assert_array_equal(found.inpainted_background, expected.inpainted_background)
            assert other.decoded == 0
    np.testing.assert_array_equal(second[9].mask, plain[9].mask)  # which nobody has asked for yet
    assert (one.decoded, other.decoded) == (10, 1)


def test_other_sweeps_and_other_settings_do_not_share() -> None:
    Cached(Counted(), "resize: 40")[0]
    for sweep, mark in (("a sweep", "resize: 41"), ("another", "resize: 40"), (None, "resize: 40")):
        share_within(None if sweep is None else Sharing(sweep))
        other_process()
        counted = Counted()
        Cached(counted, mark)[0]
        assert counted.decoded == 1


def test_a_copy_in_a_loader_process_reads_what_this_one_has_decoded() -> None:
    share_within(None)
    dataset = Cached(Counted())
    dataset[3].mask  # noqa: B018 - decodes it
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[3].image, dataset[3].image)
    np.testing.assert_array_equal(copy[3].mask, dataset[3].mask)
    assert copy.dataset.decoded == dataset.dataset.decoded == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("room", [None, 0.0])
def test_images_that_find_no_room_are_decoded_as_without_a_cache(
    room: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if room is None:  # a system without such memory, where the process keeps them for itself
        monkeypatch.setattr(cached, "shared_memory", lambda *_, **__: None)
    else:
        monkeypatch.setattr(cached, "memory_limit", lambda: 60_000)
    counted, plain = Counted(), EmbeddedSample("test")
    dataset = Cached(counted)
    with collected_warnings() as warnings:
        for index in [0, 1, 2, 0, 1, 2]:
            np.testing.assert_array_equal(dataset[index].image, plain[index].image)
            np.testing.assert_array_equal(dataset[index].mask, plain[index].mask)
    if room is None:
        assert counted.decoded == 3 and not warnings
    else:
        assert counted.decoded > 3 and "data.cache takes at most half" in warnings[0]
