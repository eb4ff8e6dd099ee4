"""Projection and prediction heads."""

from itertools import pairwise

from torch import nn


def mlp(
    in_dim: int,
    hidden_dim: int,
    out_dim: int,
    batch_norm: bool = False,
    out_bias: bool = True,
    layers: int = 2,
    gelu: bool = False,
) -> nn.Sequential:
    """Linear layers with a ReLU or GELU between them; ``batch_norm`` normalises before it, as in BYOL and SwAV."""
    hidden: list[nn.Module] = []
    for before, after in pairwise([in_dim, *[hidden_dim] * (layers - 1)]):
        norm = [nn.BatchNorm1d(after)] if batch_norm else []
        hidden += [nn.Linear(before, after), *norm, nn.GELU() if gelu else nn.ReLU(inplace=True)]
    return nn.Sequential(*hidden, nn.Linear(hidden_dim, out_dim, bias=out_bias))
