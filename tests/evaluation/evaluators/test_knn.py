"""kNN against the slow, obvious way."""

import math

import pytest
import torch
import torch.nn.functional as F

from bgsweep.config import Knn
from bgsweep.evaluation.evaluators import knn as module
from bgsweep.evaluation.evaluators.knn import knn_predict
from bgsweep.evaluation.features import Features


def slow(bank: Features, queries: torch.Tensor, k: int, temperature: float, classes: int) -> list[int]:
    entries = F.normalize(bank.values, dim=1)
    predicted = []
    for query in F.normalize(queries, dim=1):
        similarities = [(float(entry @ query), -place) for place, entry in enumerate(entries)]
        nearest = sorted(similarities, reverse=True)[:k]
        votes = [0.0] * classes
        for similarity, place in nearest:
            votes[int(bank.labels[-place])] += math.exp((similarity - nearest[0][0]) / temperature)
        predicted.append(votes.index(max(votes)))
    return predicted


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (5, 0.07), (20, 0.07), (7, 1e-3), (500, 0.2)])
@pytest.mark.parametrize("repeated", [False, True], ids=["distinct", "with ties"])
def test_equals_the_slow_way(k: int, temperature: float, repeated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(k)
    values = torch.randn(30, 8).repeat(4, 1) if repeated else torch.randn(120, 8)
    bank, queries = Features(values, torch.randint(0, 5, (120,))), torch.randn(40, 8)
    expected = slow(bank, queries, k, temperature, 5)
    # One product of the whole bank may differ from single ones in the last bit, which decides ties: round them alike.
    assert _agree(knn_predict(bank, queries, Knn(k=k, temperature=temperature), 5).tolist(), expected, repeated)
    monkeypatch.setattr(module, "_BANK", 33)
    monkeypatch.setattr(module, "_QUERIES", 7)
    assert _agree(knn_predict(bank, queries, Knn(k=k, temperature=temperature), 5).tolist(), expected, repeated)


def _agree(found: list[int], expected: list[int], ties: bool) -> bool:
    """Equal; where entries are the same up to the last bit of a product, all but a few."""
    differing = sum(a != b for a, b in zip(found, expected, strict=True))
    return differing <= (len(expected) // 8 if ties else 0)


def test_of_equally_near_entries_the_earlier_votes() -> None:
    bank = Features(torch.tensor([[1.0, 0.0]] * 6), torch.tensor([3, 3, 1, 1, 1, 1]))
    assert knn_predict(bank, torch.tensor([[2.0, 0.0]]), Knn(k=3), 4).tolist() == [3]


def test_length_of_features_does_not_matter() -> None:
    torch.manual_seed(0)
    bank, queries = Features(torch.randn(50, 6), torch.arange(50) % 4), torch.randn(30, 6)
    longer = Features(bank.values * torch.rand(50, 1).add(0.5), bank.labels)
    assert torch.equal(knn_predict(bank, queries, Knn(k=5), 4), knn_predict(longer, queries * 7, Knn(k=5), 4))
