"""Sinkhorn-Knopp: scores to codes that share the batch out evenly over the prototypes."""

import torch
from torch import Tensor

from bgsweep.methods.distributed import gather


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft assignments (B, K) of B samples to K prototypes from their scores (SwAV, section 3.2, eq. 3 to 5).

    Each row sums to 1, each column to about B / K, the closer the more iterations. With several workers each gives its
    part of the batch and gets that part's rows, and the columns are even over all of them. Computed on logarithms in
    float32: exp(score / epsilon) itself would overflow, or leave samples without any prototype, at small epsilon.
    """
    logs = scores.float() / epsilon
    for _ in range(iterations):
        logs = logs - gather(logs.logsumexp(dim=0, keepdim=True)).logsumexp(dim=0)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()
