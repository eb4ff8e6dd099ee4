"""Intervals, differences and the verdict's sentence."""

import numpy as np
import pytest

from bgsweep.evaluation.audit.measure import Found
from bgsweep.evaluation.audit.outcome import Outcome
from bgsweep.evaluation.audit.summary import interval, table, verdict
from bgsweep.evaluation.evaluator import PerImageMetric, share


def outcome(**values: np.ndarray) -> Outcome:
    return Outcome("measured", Found([share(name.replace("__", "/"), hits) for name, hits in values.items()]))


def test_an_interval_holds_the_value_and_narrows_with_images() -> None:
    widths = []
    for count in (40, 400):
        found = interval(share("top1", np.arange(count) % 4 == 0))
        assert found.lower < 0.25 < found.upper and found.value == 0.25
        widths.append(found.upper - found.lower)
    assert widths[1] == pytest.approx(widths[0] / 10**0.5, rel=0.25)
    assert np.isnan(interval(PerImageMetric("none", np.zeros(5), np.zeros(5))).value)


def test_encoders_are_compared_with_the_first_image_by_image() -> None:
    first, second = np.arange(100) % 2 == 0, np.arange(100) % 2 == 0
    second = second | (np.arange(100) < 30)
    (row,) = table([outcome(top1=first), outcome(top1=second), Outcome("failed", reason="no memory")])
    assert row["models"][2] is None
    assert row["models"][1]["difference"]["value"] == pytest.approx(0.15)
    assert row["models"][1]["difference"]["significant"] and "difference" not in row["models"][0]


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({"variants": {"linear__bg_gap": np.arange(100) < 40}}, "leans on backgrounds"),
        ({"variants": {"linear__bg_gap": np.zeros(100)}}, "was not shown to lean on backgrounds"),
        (
            {"variants": {"linear__bg_gap": -1.0 * (np.arange(100) < 2)}},
            "accuracy is 2.0 points higher (BG-Gap -2.0, 95 %",
        ),
        ({"composites": {"bg_share": np.full(48, 0.8), "fg_share": np.full(48, 0.1)}}, "follows backgrounds more"),
        ({"composites": {"bg_share": np.full(48, 0.1), "fg_share": np.full(48, 0.8)}}, "follows foregrounds more"),
        ({"composites": {"bg_share": np.full(48, 0.5), "fg_share": np.full(48, 0.5)}}, "and foregrounds alike"),
        ({}, "cannot be judged"),
    ],
)
def test_the_verdict_is_one_sentence(measured: dict[str, dict[str, np.ndarray]], said: str) -> None:
    rows = {name: table([outcome(**values)]) for name, values in measured.items()}
    sentence = verdict(rows, 0)
    assert said in sentence and sentence.endswith(".") and ("interval" in sentence or not measured)
