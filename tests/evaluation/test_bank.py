"""The images that kNN during training compares with."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bgsweep.config import Evaluate
from bgsweep.data import Sample, Splits
from bgsweep.data.datasets.wrappers import Subset, Wrapper
from bgsweep.evaluation.bank import online_bank
from bgsweep.evaluation.online import online
from tests.evaluation.subjects import model_of


def uneven(splits: Splits) -> Subset:
    """Classes of 1, 5, 9, ... images."""
    labels = splits.train.labels
    parts = [np.flatnonzero(labels == label)[: 1 + 4 * label] for label in range(10)]
    return Subset(splits.train, np.sort(np.concatenate(parts)), "uneven")


@pytest.mark.parametrize("most", [12, 60, 100, 189])
def test_classes_have_the_same_number_as_far_as_they_reach(splits: Splits, most: int) -> None:
    train = uneven(splits)
    bank = online_bank(train, Evaluate(online_bank=most))
    counts, whole = Counter(bank.labels.tolist()), Counter(train.labels.tolist())
    assert most - 10 < len(bank) == len(set(bank.ids)) <= most and len(counts) == 10
    cut = [counts[label] for label in whole if counts[label] < whole[label]]
    assert max(cut) - min(cut) <= 1 and max(cut) == max(counts.values())
    assert [bank[place].label for place in range(len(bank))] == bank.labels.tolist()


def test_small_sets_and_null_take_all(splits: Splits) -> None:
    for settings in (Evaluate(), Evaluate(online_bank=None), Evaluate(online_bank=len(splits.train))):
        assert online_bank(splits.train, settings) is splits.train


def test_the_draw_is_the_same_every_time_and_another_for_another_seed(splits: Splits) -> None:
    one, same, other = (online_bank(splits.train, Evaluate(online_bank=50, seed=seed)) for seed in (0, 0, 1))
    assert list(one.ids) == list(same.ids) != list(other.ids)
    # A class keeps its draw where another class gets more images or goes.
    label = int(one.labels[0])
    part = Subset(splits.train, np.flatnonzero(splits.train.labels >= label), "fewer classes")
    again = online_bank(part, Evaluate(online_bank=5 * (10 - label)))
    assert set(again.ids) >= {name for name, own in zip(one.ids, one.labels, strict=True) if own == label}


def test_a_run_compares_with_the_bank_and_records_its_size(splits: Splits) -> None:
    settings = Evaluate(online_bank=30, variant="only_fg")
    found = online(model_of(), splits, settings, 32)
    assert found.pop("knn_bank") == 30
    bank = online_bank(splits.train, settings)
    assert found == online(model_of(), replace(splits, train=bank, kept={}), settings, 32)
    assert found != online(model_of(), splits, Evaluate(variant="only_fg"), 32)


def test_masks_are_read_for_background_variants_in_the_first_evaluation_and_never_those_of_the_bank(
    splits: Splits,
) -> None:
    read: Counter[str] = Counter()

    class Watched(Wrapper):
        def __getitem__(self, index: int) -> Sample:
            sample = self.dataset[index]

            def load() -> np.ndarray:
                read[sample.id] += 1
                assert sample.mask is not None
                return sample.mask

            return Sample(sample.id, sample.image, sample.label, load)

    watched = Splits(Watched(splits.train), Watched(splits.validation), splits.test)
    assert online(model_of(), watched, Evaluate(), 32) == online(model_of(), splits, Evaluate(), 32)
    assert not read
    settings = Evaluate(variant="only_fg")
    first = online(model_of(), watched, settings, 32)
    known = dict(read)
    assert set(read) == set(splits.validation.ids) and max(read.values()) == 2, "looked at, then composited"
    assert online(model_of(), watched, settings, 32) == first == online(model_of(), splits, settings, 32)
    assert read == known


def test_threads_change_nothing(splits: Splits) -> None:
    settings = Evaluate(bg_gap=True, batch_size=32)
    fresh = [Splits(splits.train, splits.validation, splits.test) for _ in range(2)]
    one, several = (online(model_of(), each, settings, 32, threads=n) for each, n in zip(fresh, (0, 3), strict=True))
    assert one == several
