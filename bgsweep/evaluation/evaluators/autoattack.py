"""AutoAttack (Croce & Hein 2020) by its authors' own package: four attacks without anything to tune, L-infinity."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.listing import Listing
from bgsweep.evaluation.evaluator import Evaluator, Yields, share
from bgsweep.evaluation.evaluators.adversarial import Part, attacked_batches, attacked_head, attacked_words, targets
from bgsweep.evaluation.frozen_model import Head, to_unit

_FEWEST_CLASSES = 4  # that its loss, a ratio of the highest logits, is defined for
_QUERIES = 7000  # about what it asks of the network for each image and radius


def autoattack(context: EvalContext) -> Evaluator:
    """`autoattack_EPS_top1`: accuracy after the standard version at each radius, on the images of `attacks`."""
    settings, attacked = context.config.attacks, targets(context)
    _library()
    classes = 1000 if context.splits is None else context.features.classes
    if classes < _FEWEST_CLASSES:
        raise UserError(
            f"autoattack is defined for {_FEWEST_CLASSES} classes or more, not for {classes}; leave it out of --suite"
        )

    def measure() -> Yields:
        work = len(attacked) * len(settings.eps) * _QUERIES
        parts = [attacked[one] for one in context.slices(len(attacked), context.config.evaluate.batch_size, work)]
        found = list(context.each(partial(_stand, head=attacked_head(context), classes=classes), parts, work))
        for eps in settings.eps:
            yield share(f"autoattack_{eps:g}_top1", torch.cat([part[eps] for part in found]))

    def protocol() -> dict[str, Any]:
        return attacked_words(context, attacked) | {
            "autoattack": f"standard version of pyautoattack: APGD-CE, targeted APGD-DLR and targeted FAB against "
            f"{min(9, classes - 1)} classes, Square of 5000 queries",
            "batch_size": context.config.evaluate.batch_size,
        }

    return Evaluator(measure, protocol, [attacked] if isinstance(attacked, Listing) else ())


class Classifier(nn.Module):
    """From images in [0, 1] to logits on the images' device.

    The package takes for granted that images and their gradients are contiguous, which channels-last ones are not.
    """

    def __init__(self, network: nn.Module, head: Head) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        seen = inputs.view_as(inputs)
        if seen.requires_grad:
            seen.register_hook(lambda gradient: gradient.contiguous())
        return self.head(self.network(seen).float().cpu()).to(inputs.device)


def _stand(context: EvalContext, part: Part, head: Head, classes: int) -> dict[float, Tensor]:
    """For each radius, True for the images that are still classified rightly."""
    device, stands = context.model.device, dict[float, list[Tensor]]()
    classifier = Classifier(context.model.network, head).eval()
    for images, labels, _ in attacked_batches(context, part):
        inputs = to_unit(images, device).contiguous()
        for eps in context.config.attacks.eps:
            attacked = attack(classifier, inputs, labels.to(device), eps / 255, classes, context.config.attacks.seed)
            with torch.no_grad():
                stands.setdefault(eps, []).append(classifier(attacked).argmax(dim=1).cpu() == labels)
    return {eps: torch.cat(found) for eps, found in stands.items()}


def attack(classifier: nn.Module, inputs: Tensor, labels: Tensor, eps: float, classes: int, seed: int) -> Tensor:
    """The images (N, 3, H, W) in [0, 1], moved by at most `eps` where one of the four attacks succeeds."""
    found = _library()(classifier, norm="Linf", eps=eps, version="standard", seed=seed, device=inputs.device)
    found.verbose = False
    found.apgd_targeted.n_target_classes = found.fab.n_target_classes = min(9, classes - 1)
    with torch.random.fork_rng():  # it seeds torch's global generator
        moved: Tensor = found.run_standard_evaluation(inputs, labels, batch_size=len(inputs))[0]
    return moved


def _library() -> Any:
    try:
        return importlib.import_module("pyautoattack").AutoAttack
    except ImportError as error:
        raise UserError("autoattack needs the authors' package: pip install 'bgsweep[autoattack]'") from error


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"autoattack": autoattack}
