"""The benchmark of evaluations at toy size: both algorithms agree, and each part gives its figures."""

import argparse
from pathlib import Path

import pytest

from bgsweep.evaluation import features as storage

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_parts_give_figures_and_both_ways_of_knn_the_same_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(storage, "IN_MEMORY", storage.IN_MEMORY)  # which the benchmark sets
    import evaluation as benchmark

    sizes = {"classes": 12, "per_class": 30, "queries": 600, "asked": 300, "width": 16}
    options = argparse.Namespace(**sizes, rounds=1, probe_rows=900, limit_mib=0)
    near = benchmark.knn_rows(options)
    assert near["agree"] == 1.0 and near["before_s"] > 0 and near["after_s"] > 0
    before, after = (benchmark.probe_rows(options, earlier) for earlier in (True, False))
    assert before["features_mib"] == 900 * 16 * 4 / 2**20 and after["features_mib"] == 0  # in a file
    assert before["images_s"] > 0 and after["images_s"] > 0
