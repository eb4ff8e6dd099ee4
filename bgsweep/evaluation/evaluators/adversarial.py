"""FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018) in an L-infinity ball, in pixel space.

Images lie in [0, 1] and the network normalises them itself, so that a radius means the same for every network.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.config import Attacks
from bgsweep.data.order import spread_evenly
from bgsweep.data.readable import readable
from bgsweep.evaluation.classifier import classifier, require_classifier
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.listing import Listing, Squares, preprocessing_words
from bgsweep.evaluation.evaluator import Evaluator, Yields, share
from bgsweep.evaluation.evaluators.imagenet_variants import labelled_validation
from bgsweep.evaluation.evaluators.linear import linear_head, linear_protocol
from bgsweep.evaluation.frozen_model import Head, to_unit
from bgsweep.images.decoding import centre_view
from bgsweep.seeding import Draw, rng_key

Part = Listing | npt.NDArray[np.int64]
"""Files, or numbers of the user's test images."""
Logits = Callable[[Tensor], Tensor]
"""From images (N, 3, H, W) in [0, 1] to logits (N, C) on the labels' device, differentiable."""

STEP = 2.5
"""Radii that PGD's steps add up to."""


@dataclass(frozen=True)
class Attacked:
    """Images after an attack (N, 3, H, W), and which of them (N,) are classified wrongly."""

    inputs: Tensor
    defeated: Tensor


def fgsm(logits: Logits, inputs: Tensor, labels: Tensor, eps: float) -> Attacked:
    """One step of the whole radius, in [0, 1], along the sign of the loss's gradient."""
    gradient, _ = _gradient(logits, inputs, labels)
    moved = (inputs + eps * gradient.sign()).clamp(0, 1)
    with torch.no_grad():
        return Attacked(moved, logits(moved).argmax(dim=1) != labels)


def pgd(logits: Logits, inputs: Tensor, labels: Tensor, eps: float, steps: int, noise: Tensor) -> Attacked:
    """Projected steps of 2.5 eps / steps along the sign of the loss's gradient.

    An image that is classified wrongly after some step stays as it is then.

    Args:
        noise: uniform in [0, 1), of the images' shape: where in the ball each starts.
    """
    lower, upper = (inputs - eps).clamp(0, 1), (inputs + eps).clamp(0, 1)
    found = torch.minimum(torch.maximum(inputs + eps * (2 * noise - 1), lower), upper)
    defeated = torch.zeros(len(labels), dtype=torch.bool)
    for step in range(steps + 1):
        rows = (~defeated).nonzero()[:, 0]
        if not len(rows):
            break
        there = rows.to(inputs.device)
        gradient, predicted = _gradient(logits, found[there], labels[rows])
        wrong = predicted != labels[rows]
        defeated[rows[wrong]] = True
        if step < steps:
            moved = found[there] + STEP * eps / steps * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, lower[there]), upper[there])
            found[there] = torch.where(wrong.to(moved.device).view(-1, 1, 1, 1), found[there], moved)
    return Attacked(found, defeated)


def _gradient(logits: Logits, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the cross-entropy with respect to the images, and the predicted classes."""
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad():
        outputs = logits(inputs)
        # A sum, so that an image's gradient is the same whatever batch it is in.
        loss = F.cross_entropy(outputs, labels, reduction="sum")
        return torch.autograd.grad(loss, inputs)[0], outputs.detach().argmax(dim=1)


def attacks(context: EvalContext) -> Evaluator:
    """Accuracy before and after FGSM and PGD at each radius: `clean_top1`, `fgsm_EPS_top1`, `pgd_EPS_top1`.

    The images are those of the user's test split with its linear probe; where no images are named, ImageNet's
    validation set with the model's own classifier. An image that is wrong from the start counts as defeated.
    """
    settings, attacked = context.config.attacks, targets(context)
    work = len(attacked) * len(settings.eps) * settings.steps * settings.restarts

    def measure() -> Yields:
        parts = [attacked[one] for one in context.slices(len(attacked), context.config.evaluate.batch_size, work)]
        found = list(context.each(partial(_stand, head=attacked_head(context)), parts, work))
        for name in found[0]:
            yield share(f"{name}_top1", torch.cat([part[name] for part in found]))

    def protocol() -> dict[str, Any]:
        return attacked_words(context, attacked) | {
            "fgsm": "one step of the whole radius",
            "pgd": f"{settings.steps} steps of {STEP:g} eps / {settings.steps}, {settings.restarts} random starts; any "
            "step that changes the class counts",
        }

    return Evaluator(measure, protocol, [attacked] if isinstance(attacked, Listing) else ())


def targets(context: EvalContext) -> Part:
    """The images that attacks are tried on: of the user's test split, else of ImageNet's validation set.

    Raises:
        UserError: there are neither, or nothing that classifies them.
    """
    wanted = context.config.attacks.images
    if context.splits is None:
        require_classifier(context)
        return labelled_validation(context).spread(wanted)
    return spread_evenly(len(context.features.source), wanted)


def attacked_head(context: EvalContext) -> Head:
    """The classifier on the encoder that is attacked."""
    return linear_head(context).logits if context.splits is not None else classifier(context)[0]


def attacked_words(context: EvalContext, attacked: Part) -> dict[str, Any]:
    """Protocol common to all attacks."""
    settings = context.config.attacks
    if isinstance(attacked, Listing):
        name, head = attacked.name, classifier(context)[1]
        own: dict[str, Any] = {"preprocessing": preprocessing_words(context.config.preprocessing)}
    else:
        name, head = context.features.source.name, "linear probe"
        own = context.features.protocol() | linear_protocol(linear_head(context), context)
    return own | {
        "images": f"{len(attacked)} of {name}",
        "classifier": head,
        "norm": "L-infinity in pixel space, images in [0, 1], radii in 1/255; normalised by the model",
        "radii": list(settings.eps),
        "seed": settings.seed,
    }


def _stand(context: EvalContext, part: Part, head: Head) -> dict[str, Tensor]:
    """For each attack, True for the images that are still classified rightly."""

    def logits(inputs: Tensor) -> Tensor:
        return head(context.model.network(inputs).float().cpu())

    stands: dict[str, list[Tensor]] = {}
    for images, labels, names in attacked_batches(context, part):
        inputs = to_unit(images, context.model.device)
        for name, survived in _attack(logits, inputs, labels, names, context.config.attacks):
            stands.setdefault(name, []).append(survived)
    return {name: torch.cat(found) for name, found in stands.items()}


def _attack(
    logits: Logits, inputs: Tensor, labels: Tensor, names: list[str], settings: Attacks
) -> Iterator[tuple[str, Tensor]]:
    """True for the images that are still classified rightly, at first and after each attack at each radius."""
    with torch.no_grad():
        right = logits(inputs).argmax(dim=1) == labels
    yield "clean", right
    for eps in settings.eps:
        yield f"fgsm_{eps:g}", right & ~fgsm(logits, inputs, labels, eps / 255).defeated
        standing = right.clone()
        for restart in range(settings.restarts):
            rows = standing.nonzero()[:, 0]
            if len(rows):
                starts = [_noise(settings.seed, restart, names[row], inputs) for row in rows.tolist()]
                there = rows.to(inputs.device)
                attacked = pgd(logits, inputs[there], labels[rows], eps / 255, settings.steps, torch.stack(starts))
                standing[rows] = ~attacked.defeated
        yield f"pgd_{eps:g}", standing


def _noise(seed: int, restart: int, name: str, inputs: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(rng_key(seed, restart, name, Draw.ATTACK) >> 1)
    return torch.rand(inputs.shape[1:], generator=generator).to(inputs.device)


def attacked_batches(context: EvalContext, part: Part) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
    """Batches of uint8 images with labels and names."""
    size = context.config.evaluate.batch_size
    if isinstance(part, Listing):
        for number, images in enumerate(
            part.batches(Squares(context.config.preprocessing), size, context.config.threads)
        ):
            batch = part[number * size : (number + 1) * size]
            yield torch.from_numpy(images), torch.from_numpy(batch.labels), [path.name for path in batch.paths]
        return
    seen = readable(context.features.source, part.tolist())
    while batch_of := list(islice(seen, size)):
        images = np.stack([centre_view(sample.image, context.features.size) for _, sample in batch_of])
        labels = torch.tensor([sample.label for _, sample in batch_of])
        yield torch.from_numpy(images), labels, [sample.id for _, sample in batch_of]


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"attacks": attacks}
