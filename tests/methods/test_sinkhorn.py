"""Sinkhorn's codes: even over the prototypes, whole for every sample, and finite whatever the scores."""

import pytest
import torch
import torch.nn.functional as F

from bgsweep.methods.sinkhorn import sinkhorn


def cosines(samples: int, prototypes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    first, second = (F.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (samples, prototypes))
    return first @ second.t()


def reference(scores: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """The published procedure word by word, in double precision: a (K, B) matrix, rows to 1/K, then columns to 1/B."""
    matrix = torch.exp(scores.double() / epsilon).t()
    prototypes, samples = matrix.shape
    matrix /= matrix.sum()
    for _ in range(iterations):
        for row in range(prototypes):
            matrix[row] /= matrix[row].sum() * prototypes
        for column in range(samples):
            matrix[:, column] /= matrix[:, column].sum() * samples
    return (matrix * samples).t()


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 0.5])
@pytest.mark.parametrize(("samples", "prototypes", "iterations"), [(12, 5, 3), (4, 30, 1), (7, 7, 10)])
def test_codes_equal_the_published_procedure(samples: int, prototypes: int, iterations: int, epsilon: float) -> None:
    scores = cosines(samples, prototypes)
    expected = reference(scores, epsilon, iterations).float()
    torch.testing.assert_close(sinkhorn(scores, epsilon, iterations), expected, rtol=1e-3, atol=1e-6)


def test_marginals_are_even() -> None:
    codes = sinkhorn(cosines(24, 6), 0.05, 200)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(24))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((6,), 24 / 6), rtol=1e-3, atol=0)


def test_alike_scores_give_uniform_codes() -> None:
    torch.testing.assert_close(sinkhorn(torch.full((8, 5), 0.7), 0.05, 3), torch.full((8, 5), 0.2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("epsilon", [0.01, 0.03, 0.1, 1.0])
def test_neither_overflows_nor_stalls(epsilon: float, scale: float, dtype: torch.dtype) -> None:
    codes = sinkhorn((cosines(32, 200) * scale).to(dtype), epsilon, 3)
    assert codes.dtype == torch.float32
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(32))


def test_small_epsilon_still_shares_the_prototypes_out() -> None:
    """All samples like the first prototype best, by far more than float32 can hold in exp(score / epsilon)."""
    scores = cosines(40, 10) * 0.05
    scores[:, 0] = 1.0
    assert scores.div(0.01).exp().isinf().any()
    taken = sinkhorn(scores, 0.01, 50).sum(dim=0)
    torch.testing.assert_close(taken, torch.full((10,), 4.0), rtol=0.2, atol=0)
