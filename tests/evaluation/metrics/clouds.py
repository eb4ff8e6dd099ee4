"""Random features, and the same ones rotated."""

import numpy as np


def cloud(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def turned(features: np.ndarray) -> np.ndarray:
    return features @ np.linalg.qr(cloud(features.shape[-1], features.shape[-1], seed=9))[0]
