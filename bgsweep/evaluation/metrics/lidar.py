"""LiDAR (Thilak et al. 2024): the effective rank of the discriminant matrix of a surrogate classification."""

from collections.abc import Iterator

import numpy as np
from scipy.linalg import solve_triangular

from bgsweep.evaluation.metrics.base import Array, Measured, OnlineMetric, entropy_rank, jackknife_error
from bgsweep.evaluation.metrics.inputs import view_features

_DELTA = 1e-4  # the paper's


def discriminant_rank(features: Array) -> float:
    """exp of the entropy of the eigenvalues of W^(-1/2) B W^(-1/2), from features (classes, members, D).

    B is the covariance of the classes' means; W is the mean covariance within classes, plus 1e-4 times the identity.
    Between 1 and min(classes - 1, D). Features are scaled first to a mean variance of 1, which the paper does not do:
    without it the constant would count for more where an encoder's features are small. Rotating or scaling all of them
    does not change it.
    """
    classes, members, width = features.shape
    means = features.mean(axis=1)
    between = (means - means.mean(axis=0)) / np.sqrt(classes)
    within = (features - means[:, None]).reshape(-1, width) / np.sqrt(classes * members)
    variance = ((between**2).sum() + (within**2).sum()) / width
    if variance <= np.finfo(np.float64).tiny:
        return 1.0
    spread = within.T @ within / variance + _DELTA * np.eye(width)
    # The eigenvalues of W^(-1/2) B W^(-1/2) are the squared singular values of L^(-1) A, with W = L L', B = A A'.
    whitened = solve_triangular(np.linalg.cholesky(spread), between.T / np.sqrt(variance), lower=True)
    gram = whitened.T @ whitened if classes < width else whitened @ whitened.T
    return entropy_rank(np.linalg.eigvalsh(gram).clip(min=0))


class LiDAR(OnlineMetric):
    """Rank of the discriminant between images, each of which is a class whose members are its views.

    The paper's is of the projector's output; here it is the encoder's (see `RankMe`). The paper takes about 1,000
    images with 50 views; fewer give lower values, so that only values of the same numbers compare.

    Limits: it rewards telling single images apart, which is not what all tasks need, and what tells images apart may be
    their background. Bounded by the number of images.
    """

    def measure(self) -> Iterator[Measured]:
        views = [view_features(self.context, self.settings.images, view) for view in range(self.settings.views)]
        # Views beside each other for each image: reshaped from one view after another, classes would be mixed up.
        features = np.stack(views, axis=1)
        error = jackknife_error(lambda rows: discriminant_rank(features[rows]), len(features))
        yield Measured("rank", discriminant_rank(features), error)
