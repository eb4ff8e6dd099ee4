"""alpha-ReQ (Agrawal et al. 2022): the power law that the eigenvalues of the features' covariance follow."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bgsweep.evaluation.metrics.base import Array, Measured, OnlineMetric, jackknife_error
from bgsweep.evaluation.metrics.inputs import validation_features

_LEAST = 1e-12  # of the largest eigenvalue; smaller ones are rounding errors
_FEWEST = 3


def decay(features: Array, first: int, last: int) -> float:
    """alpha of lambda_i = c i^-alpha, fitted to the eigenvalues `first` to `last` of the covariance of (N, D) features.

    Least squares of ln lambda_i on ln i with weights 1/i (Stringer et al. 2019), which make up for how closely the
    later ones lie on that scale. Where fewer than three of these are above rounding errors the fit begins at the first
    eigenvalue, so that features of few dimensions have a large alpha. Rotating or scaling features does not change it.
    """
    centred = features - features.mean(axis=0)
    wide = len(features) < features.shape[1]
    eigenvalues = np.linalg.eigvalsh(centred @ centred.T if wide else centred.T @ centred)[::-1]
    eigenvalues = eigenvalues[: min(len(features) - 1, features.shape[1], last)]
    largest = eigenvalues[0] if len(eigenvalues) and eigenvalues[0] > 0 else 1.0
    start = first - 1 if (eigenvalues[first - 1 :] > _LEAST * largest).sum() >= _FEWEST else 0
    if len(eigenvalues) - start < 2:
        return 0.0
    places = np.arange(start + 1, len(eigenvalues) + 1, dtype=np.float64)
    x, y = np.log(places), np.log(np.maximum(eigenvalues[start:] / largest, _LEAST))
    weights = 1 / places / (1 / places).sum()
    x, y = x - weights @ x, y - weights @ y
    return float(-(weights * x) @ y / ((weights * x) @ x))


class AlphaReQ(OnlineMetric):
    """Distance of alpha from 1, and alpha, of the encoder's features, as in the paper.

    Below 1 the features are too rough to generalise, above 1 they use few directions.

    Limits: the best alpha is only near 1, and how near differs between methods and data; the fit needs more images than
    `last`. An isotropic cloud has an alpha of 0 only with many images: sampling alone spreads eigenvalues.
    """

    def measure(self) -> Iterator[Measured]:
        settings = self.settings
        features = validation_features(self.context, settings.images)

        def alpha(rows: npt.NDArray[np.int64]) -> float:
            return decay(features[rows], settings.first, settings.last)

        found, error = alpha(np.arange(len(features))), jackknife_error(alpha, len(features))
        yield Measured("distance", abs(found - 1), error)
        yield Measured("alpha", found, error)
