"""A toy."""

from typing import Any

import torch.nn.functional as F

from bgsweep.config.base import Positive, Section
from bgsweep.evaluation.evaluator import EvaluatorClass, Yields, share


class ToySettings(Section):
    """The toy's only setting."""

    power: Positive = 1.0


class ToyEvaluator(EvaluatorClass):
    """Nearest class mean by cosine similarity (Mensink et al. 2013, without their metric)."""

    Settings = ToySettings

    def measure(self) -> Yields:
        cache = self.context.features
        train, test = cache.train(), self.context.test
        members = F.one_hot(train.labels, cache.classes).float().pow(self.settings.power)
        means = F.normalize(members.T @ F.normalize(train.values, dim=1), dim=1)
        yield share("top1", (F.normalize(test.values, dim=1) @ means.T).argmax(dim=1) == test.labels)

    def protocol(self) -> dict[str, Any]:
        return {"toy": "nearest class mean, cosine", "power": self.settings.power}
