"""The metrics that need classes: kNN, and BG-Gap by kNN."""

from collections.abc import Iterator

from bgsweep.evaluation.evaluators.backgrounds import on_variants
from bgsweep.evaluation.evaluators.knn import knn
from bgsweep.evaluation.metrics.base import Measured, OnlineMetric


class KnnAccuracy(OnlineMetric):
    """Accuracy of kNN on the configured variant (`evaluate.variant`)."""

    def measure(self) -> Iterator[Measured]:
        found, *_ = knn(self.context).measure()
        yield Measured("top1", found.value)


class BGGap(OnlineMetric):
    """BG-Gap, with the two variants whose difference it is: each of the other six would be another pass."""

    def measure(self) -> Iterator[Measured]:
        found = {one.name: one.value for one in on_variants(self.context, "knn", ("mixed_same", "mixed_rand"))}
        same, rand = found["knn/mixed_same"], found["knn/mixed_rand"]
        yield from (Measured("mixed_same", same), Measured("mixed_rand", rand), Measured("bg_gap", same - rand))
