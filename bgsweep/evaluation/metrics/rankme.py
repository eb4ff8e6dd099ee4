"""RankMe (Garrido, Balestriero, Najman & LeCun 2023): the effective rank of features."""

from collections.abc import Iterator

import numpy as np

from bgsweep.evaluation.metrics.base import Array, Measured, OnlineMetric, entropy_rank, jackknife_error
from bgsweep.evaluation.metrics.inputs import validation_features


def effective_rank(features: Array) -> float:
    """exp(-sum_k p_k ln p_k), p_k = s_k / sum_j s_j + 1e-7, of the singular values s_k of features (N, D).

    Not centred, as in the paper. Between 1 and min(N, D); rotating or scaling all features does not change it.
    """
    # The squares of the singular values are the eigenvalues of the smaller Gram matrix, which is ten times as quick.
    gram = features @ features.T if len(features) < features.shape[1] else features.T @ features
    return entropy_rank(np.sqrt(np.linalg.eigvalsh(gram).clip(min=0)))


class RankMe(OnlineMetric):
    """Effective rank of the encoder's features of the validation images.

    The paper's is that of the projector's output. Here it is the encoder's, as are all metrics: projectors are thrown
    away, their widths (128 to 8,192) bound the rank, and DINO's and SwAV's are prototypes.

    Limits: it says how many directions are used, not for what, so that noise raises it too; compare runs of one method
    and one encoder, with equally many images. With fewer images than dimensions it is bounded by the images. The
    error is of which images the split holds, not of the training.
    """

    def measure(self) -> Iterator[Measured]:
        features = validation_features(self.context, self.settings.images)
        error = jackknife_error(lambda rows: effective_rank(features[rows]), len(features))
        yield Measured("rank", effective_rank(features), error)
