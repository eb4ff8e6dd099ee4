"""A metric of the online evaluation."""

from collections.abc import Iterator

import numpy as np

from bgsweep.evaluation.metrics import Measured, OnlineMetric


class Spread(OnlineMetric):
    """The features' mean distance from their mean."""

    def measure(self) -> Iterator[Measured]:
        features = self.context.images.variant("original").values.numpy()
        apart = np.linalg.norm(features - features.mean(axis=0), axis=1) ** self.settings.power
        yield Measured("mean", float(apart.mean()), float(apart.std() / len(apart) ** 0.5))
        yield Measured("largest", float(apart.max()))
