"""Few labels, fine-tuned: all of the encoder's weights trained on one or ten percent of the training images."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgsweep.data import ImageDataset
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.crops import shuffled, squares_words, test_squares, training_crops
from bgsweep.evaluation.evaluator import Evaluator, Yields, tops
from bgsweep.evaluation.evaluators.few_labels import labelled
from bgsweep.evaluation.frozen_model import to_unit
from bgsweep.seeding import Draw, rng_key


@dataclass(frozen=True)
class FineTuning:
    """SGD with momentum 0.9 on random resized crops and flips; the last epoch counts.

    Both rates, of the encoder and of the new classifier, are divided by 5 after 60 % and 80 % of the epochs.
    """

    source: str
    lr: float
    head_lr: float
    epochs: int = 20
    batch_size: int = 256
    weight_decay: float = 0.0

    def factor(self, epoch: int) -> float:
        """Factor of both learning rates in an epoch."""
        passed: int = sum(epoch >= round(share * self.epochs) for share in (0.6, 0.8))
        return float(0.2**passed)


FINE_TUNINGS = {
    0.01: FineTuning("SwAV's eval_semisup.py for 1 %", lr=0.02, head_lr=5.0),
    0.1: FineTuning("SwAV's eval_semisup.py for 10 %", lr=0.01, head_lr=0.2),
}


def fine_tuned(context: EvalContext, name: str, share: float, protocol: FineTuning) -> Evaluator:
    """`NAME_top1` and `NAME_top5` of a copy of the encoder, trained as a whole on the few labelled images."""
    cache, seen = context.features, context.config.preprocessing
    part, how = labelled(context, share)

    def measure() -> Yields:
        network = fine_tune(context, part, protocol)
        logits, labels = [], []
        with torch.inference_mode():
            for images, known in test_squares(cache.source, seen, context.config.evaluate.batch_size):
                inputs = to_unit(torch.from_numpy(images), context.model.device)
                logits.append(network(inputs).float().cpu())
                labels.append(torch.from_numpy(known))
        yield from tops(name, torch.cat(logits), torch.cat(labels))

    def words() -> dict[str, Any]:
        return asdict(protocol) | {
            "momentum": 0.9,
            "train": f"{how}, random resized crops of {seen.crop} px and flips",
            "test": f"{cache.source.name}: {len(cache.source)} images, {squares_words(seen)}",
            "network": "all weights trained, float32, in one process; BatchNorm learns from each batch",
            "seed": context.config.evaluate.seed,
        }

    return Evaluator(measure, words)


def fine_tune(context: EvalContext, part: ImageDataset, protocol: FineTuning) -> nn.Module:
    """A copy of the encoder with a new classifier, trained, in eval mode. The encoder itself stays as it is."""
    model, seed = context.model, context.config.evaluate.seed
    width = model.encode(
        torch.zeros(1, context.config.preprocessing.crop, context.config.preprocessing.crop, 3, dtype=torch.uint8)
    )
    with torch.random.fork_rng():
        # Draws the classifier's first weights, and dropout where the encoder has any.
        torch.manual_seed(rng_key(seed, 0, "fine-tuning", Draw.PROBE_WEIGHTS))
        trunk = copy.deepcopy(model.network).requires_grad_(True)
        head = nn.Linear(width.shape[1], context.features.classes).to(model.device)
        network = nn.Sequential(trunk, head).train()
        groups = [
            {"params": list(trunk.parameters()), "lr": protocol.lr},
            {"params": list(head.parameters()), "lr": protocol.head_lr},
        ]
        optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=protocol.weight_decay)
        for epoch in range(protocol.epochs):
            for group, lr in zip(optimizer.param_groups, (protocol.lr, protocol.head_lr), strict=True):
                group["lr"] = lr * protocol.factor(epoch)
            for images, labels in _epoch(context, part, protocol, epoch):
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()
    return network.eval()


def _epoch(
    context: EvalContext, part: ImageDataset, protocol: FineTuning, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    seed, device = context.config.evaluate.seed, context.model.device
    batches = shuffled(len(part), seed, epoch, protocol.batch_size)
    if len(batches) > 1 and len(batches[-1]) == 1:  # BatchNorm has no statistics of one image
        batches.pop()
    for images, labels in training_crops(
        part, batches, context.config.preprocessing.crop, seed, epoch, context.config.threads
    ):
        yield to_unit(torch.from_numpy(images), device), torch.from_numpy(labels).to(device)


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {
    name: partial(fine_tuned, name=name, share=share, protocol=FINE_TUNINGS[share])
    for name, share in (("finetune_1", 0.01), ("finetune_10", 0.1))
}
