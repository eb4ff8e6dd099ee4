"""The linear evaluations of MoCo, SwAV and BYOL to the letter: new crops of every image in every epoch.

They cost as many passes through the encoder as they have epochs; `linear` costs one.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.crops import Kind, shuffled, squares_words, test_squares, training_crops
from bgsweep.evaluation.evaluator import Evaluator, Yields, tops
from bgsweep.evaluation.features import Features, extract
from bgsweep.seeding import Draw, rng_key


@dataclass(frozen=True)
class Protocol:
    """A published linear evaluation: SGD with momentum 0.9 on random resized crops and flips; the last epoch counts.

    Attributes:
        lr: at this batch size.
        schedule: `steps` divides the rate by 10 after 60 % and 80 % of the epochs; `epoch_cosine` and `step_cosine`
            go down to zero, by the epoch or by the step.
        weights: standard deviation of the initial weights (normal); None takes 1 / sqrt(features), cut at two of them.
        preprocessing: how images are cropped and resized, whatever the config says of interpolation.
    """

    source: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    nesterov: bool
    schedule: Literal["steps", "epoch_cosine", "step_cosine"]
    weights: float | None
    preprocessing: Kind = "torchvision"

    def rate(self, epoch: int, progress: float) -> float:
        """The learning rate in an epoch, and at a share of all steps."""
        if self.schedule == "steps":
            passed = sum(epoch >= round(share * self.epochs) for share in (0.6, 0.8))
            return self.lr * 0.1**passed
        done = epoch / self.epochs if self.schedule == "epoch_cosine" else progress
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))


PROTOCOLS = {
    "linear_moco": Protocol("MoCo's main_lincls.py", 100, 256, 30.0, 0.0, False, "steps", 0.01),
    "linear_swav": Protocol("SwAV's eval_linear.py", 100, 256, 0.3, 1e-6, False, "epoch_cosine", 0.01),
    "linear_byol": Protocol("BYOL's linear evaluation", 80, 1024, 0.8, 0.0, True, "step_cosine", None, "byol"),
}


def published(context: EvalContext, name: str, protocol: Protocol) -> Evaluator:
    """A published linear evaluation of the user's images: `NAME_top1` and `NAME_top5` on the test split."""
    cache = context.features

    def measure() -> Yields:
        layer = published_layer(context, name, protocol)
        test = context.once(("squares", protocol.preprocessing), lambda: _test(context, protocol.preprocessing))
        with torch.no_grad():
            yield from tops(name, layer(test.values), test.labels)

    def words() -> dict[str, Any]:
        seen = context.config.preprocessing
        return {
            **asdict(protocol),
            "momentum": 0.9,
            "train": f"{cache.splits.train.name}: {len(cache.splits.train)} images, random resized crops of "
            f"{seen.crop} px and flips",
            "test": f"{cache.source.name}: {len(cache.source)} images, {squares_words(seen, protocol.preprocessing)}",
            "features": "encoder output, float32, eval mode",
            "seed": context.config.evaluate.seed,
        }

    return Evaluator(measure, words)


def published_layer(context: EvalContext, name: str, protocol: Protocol | None = None) -> nn.Linear:
    """The layer of a published linear evaluation, trained once for all evaluators."""
    layer: nn.Linear = context.once(("layer", name), lambda: fit(context, protocol or PROTOCOLS[name]))
    return layer


def _test(context: EvalContext, kind: Kind) -> Features:
    return extract(
        context.model.encode,
        test_squares(context.features.source, context.config.preprocessing, context.config.evaluate.batch_size, kind),
        len(context.features.source),
    )


def fit(context: EvalContext, protocol: Protocol) -> nn.Linear:
    """Train the linear layer; crops, flips and order are addressed by the seed, the epoch and the image."""
    cache, seed = context.features, context.config.evaluate.seed
    layer: nn.Linear | None = None
    steps = protocol.epochs * math.ceil(len(cache.splits.train) / protocol.batch_size)
    step = 0
    for epoch in range(protocol.epochs):
        for features, labels in _epoch(context, protocol, epoch):
            if layer is None:
                layer = _layer(features.shape[1], cache.classes, protocol.weights, seed)
                optimizer = torch.optim.SGD(
                    layer.parameters(),
                    lr=protocol.lr,
                    momentum=0.9,
                    weight_decay=protocol.weight_decay,
                    nesterov=protocol.nesterov,
                )
            optimizer.param_groups[0]["lr"] = protocol.rate(epoch, step / steps)
            optimizer.zero_grad()
            F.cross_entropy(layer(features), labels).backward()
            optimizer.step()
            step += 1
    assert layer is not None, "a split has at least two images"
    return layer


def _layer(features: int, classes: int, deviation: float | None, seed: int) -> nn.Linear:
    layer = nn.Linear(features, classes)
    generator = torch.Generator().manual_seed(rng_key(seed, 0, "linear", Draw.PROBE_WEIGHTS) >> 1)
    nn.init.zeros_(layer.bias)
    if deviation is None:
        scale = features**-0.5
        nn.init.trunc_normal_(layer.weight, 0.0, scale, -2 * scale, 2 * scale, generator=generator)
    else:
        nn.init.normal_(layer.weight, 0.0, deviation, generator=generator)
    return layer


def _epoch(context: EvalContext, protocol: Protocol, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and labels of the training images' crops, in batches."""
    count = len(context.features.splits.train)
    batches = shuffled(count, context.config.evaluate.seed, epoch, protocol.batch_size)
    if not context.shared_out(count):
        yield from _see(context, batches, epoch, protocol.preprocessing)
        return
    for part in context.each(partial(_see_one, epoch=epoch, kind=protocol.preprocessing), batches, count):
        yield from part


def _see_one(context: EvalContext, batch: npt.NDArray[np.int64], epoch: int, kind: Kind) -> list[tuple[Tensor, Tensor]]:
    return list(_see(context, [batch], epoch, kind))


def _see(
    context: EvalContext, batches: list[npt.NDArray[np.int64]], epoch: int, kind: Kind
) -> Iterator[tuple[Tensor, Tensor]]:
    source, seed = context.features.splits.train, context.config.evaluate.seed
    size, threads = context.config.preprocessing.crop, context.config.threads
    for images, labels in training_crops(source, batches, size, seed, epoch, threads, kind):
        # Encoders give tensors of inference mode, which no gradient may pass.
        yield context.model.encode(torch.from_numpy(images)).clone(), torch.from_numpy(labels)


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {
    name: partial(published, name=name, protocol=protocol) for name, protocol in PROTOCOLS.items()
}
