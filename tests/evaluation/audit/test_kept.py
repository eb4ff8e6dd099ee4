"""Nothing is lost and nothing is measured twice, whichever measure fails and whenever the process is killed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bgsweep.data import Splits
from bgsweep.evaluation.audit import noise, watermark
from bgsweep.evaluation.audit.measure import Found, Measure, NotApplicable
from bgsweep.evaluation.audit.measures import run_measures
from bgsweep.evaluation.audit.outcome import KeptOutcomes
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import share
from bgsweep.evaluation.features import Features
from bgsweep.evaluation.kept import KeptFeatures, network_digest
from tests.evaluation.audit.conftest import ENCODERS, Sees, subject


class Suite:
    """Measures that say how often they ran, of which some fail."""

    def __init__(self, errors: dict[int, BaseException]) -> None:
        self.errors, self.ran = errors, list[int]()

    def measures(self) -> list[Measure]:
        return [Measure(f"m{number}", "", "", lambda _, number=number: self._run(number)) for number in range(5)]

    def _run(self, number: int) -> Found:
        self.ran.append(number)
        if number in self.errors:
            raise self.errors[number]
        return Found([share("value", np.arange(4) < number)], {"curve": [0.5]})


def test_a_measure_that_fails_ends_no_other_and_alone_runs_again(subjects: dict[str, Subject], tmp_path: Path) -> None:
    suite, kept = Suite({2: RuntimeError("no\nmemory"), 3: NotApplicable("no such layer")}), KeptOutcomes(tmp_path)
    first = run_measures(subjects["centre"], suite.measures(), kept)
    assert [one.status for one in first.values()] == ["measured", "measured", "failed", "not applicable", "measured"]
    assert first["m2"].reason == "RuntimeError: no memory" and first["m3"].reason == "no such layer"
    suite.errors = {}
    second = run_measures(subjects["centre"], suite.measures(), kept)
    assert suite.ran == [0, 1, 2, 3, 4, 2]
    assert second["m2"].status == "measured"
    for name in ("m0", "m1", "m4"):
        before, after = first[name].found, second[name].found
        assert before is not None and after is not None and before.details == after.details
        assert np.array_equal(before.values[0].hits, after.values[0].hits)


def test_what_was_measured_before_a_kill_stays(subjects: dict[str, Subject], tmp_path: Path) -> None:
    suite, kept = Suite({3: KeyboardInterrupt()}), KeptOutcomes(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_measures(subjects["centre"], suite.measures(), kept)
    suite.errors = {}
    assert all(one.status == "measured" for one in run_measures(subjects["centre"], suite.measures(), kept).values())
    assert suite.ran == [0, 1, 2, 3, 3, 4]


class Counting(Sees):
    """Counts the images that it encodes."""

    images, limit = 0, 10**9

    def forward(self, images: Tensor) -> Tensor:
        if self.images + len(images) > self.limit:
            raise KeyboardInterrupt
        self.images += len(images)
        return super().forward(images)


def test_no_image_is_encoded_twice(constructed: Splits, tmp_path: Path) -> None:
    def encoded(limit: int, folder: Path) -> tuple[int, float]:
        network = Counting(ENCODERS["centre"])
        network.limit = limit
        one = subject(network, constructed, folder=folder)
        try:
            value = noise.noise(one).values[0].value
            watermark.watermark(one)
        except KeyboardInterrupt:
            value = float("nan")
        return network.images, value

    whole, value = encoded(10**9, tmp_path / "whole")
    assert encoded(0, tmp_path / "whole") == (0, value)
    part, _ = encoded(whole // 2, tmp_path / "part")
    rest, again = encoded(10**9, tmp_path / "part")
    assert part and again == value and part + rest == whole


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    made = Features(torch.ones(2, 3), torch.zeros(2, dtype=torch.int64))
    KeptFeatures(tmp_path).get("a", lambda: made)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    assert torch.equal(KeptFeatures(tmp_path).get("a", lambda: made).values, made.values)
    (tmp_path / "m0.json").write_text('{"status": "measured"')
    assert KeptOutcomes(tmp_path).read("m0") is None


def test_the_digest_is_of_the_weights() -> None:
    networks = [torch.nn.Linear(3, 2) for _ in range(2)]
    assert network_digest(networks[0]) != network_digest(networks[1])
    networks[1].load_state_dict(networks[0].state_dict())
    assert network_digest(networks[0]) == network_digest(networks[1])
    assert network_digest(torch.nn.Sequential(torch.nn.Linear(3, 2))) != network_digest(networks[0])
