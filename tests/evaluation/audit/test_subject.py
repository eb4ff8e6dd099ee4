"""The images that measures take, none of which is encoded twice."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bgsweep.data import Splits
from bgsweep.evaluation.audit import backgrounds, neighbours
from bgsweep.evaluation.audit.subject import Subject, by_class
from tests.evaluation.audit.conftest import CLASSES, ENCODERS, Constructed, Sees, subject


def test_each_beginning_has_each_class_s_share() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [80, 60, 40, 20]))
    order = by_class(labels)
    assert sorted(order) == list(range(200))
    for count in (10, 50, 100, 150):
        counts = np.bincount(labels[order[:count]], minlength=4)
        assert np.abs(counts - count * np.array([0.4, 0.3, 0.2, 0.1])).max() <= 1
    for label in range(4):  # of a class the earlier first
        assert (np.diff(order[labels[order] == label]) > 0).all()


def test_the_part_is_of_all_classes_and_none_is_all(constructed: Splits) -> None:
    one = subject(Sees(ENCODERS["centre"]), constructed)
    labels = np.asarray(one.variants.source.labels)
    assert np.bincount(labels[one.part], minlength=CLASSES).tolist() == [4] * CLASSES  # 16 of 24
    again = subject(Sees(ENCODERS["background"]), constructed)
    assert np.array_equal(one.part, again.part) and (np.diff(one.part) > 0).all()
    whole = Subject(one.model, one.config, constructed, True, part=None, threads=0)
    assert np.array_equal(whole.part, whole.usable)


def test_neighbours_take_the_features_of_the_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    test = Constructed("test", 6, 1)
    one = subject(Sees(ENCODERS["centre"]), Splits(Constructed("train", 6, 0), test, test))
    backgrounds.variants(one)

    def never(*_: object) -> Tensor:
        raise AssertionError("encoded again")

    object.__setattr__(one.model, "encode", never)
    monkeypatch.setattr(one, "encoded", never)
    found = neighbours.neighbours(one)
    own = torch.from_numpy(np.searchsorted(one.usable, one.part))
    assert len(found.values[1].hits) == len(own) == 16
