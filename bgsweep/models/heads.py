"""Projection and prediction heads."""

from torch import nn


def mlp(in_dim: int, hidden_dim: int, out_dim: int, batch_norm: bool = False, out_bias: bool = True) -> nn.Sequential:
    """Two linear layers with a ReLU; ``batch_norm`` normalises the hidden layer, as in BYOL and SwAV."""
    norm = [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim), *norm, nn.ReLU(inplace=True), nn.Linear(hidden_dim, out_dim, bias=out_bias)
    )
