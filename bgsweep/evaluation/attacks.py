"""FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018) in an L-infinity ball, in pixel space.

Pictures lie in [0, 1] and the network normalises them itself, so that a radius means the same for every network.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.augment.randomness import address
from bgsweep.config import Attacks
from bgsweep.data.derived import Subset
from bgsweep.evaluation.examination import Examination
from bgsweep.evaluation.listing import Listing, spread_evenly, squares
from bgsweep.evaluation.prepared import Prepared
from bgsweep.evaluation.shifts import labelled_validation
from bgsweep.evaluation.subject import Yields, share
from bgsweep.evaluation.suite import linear_words
from bgsweep.evaluation.variants import centre_pictures

Logits = Callable[[Tensor], Tensor]
"""From pictures (N, 3, H, W) in [0, 1] to logits (N, C) on the labels' device, differentiable."""

STEP = 2.5
"""Radii that PGD's steps add up to."""


@dataclass(frozen=True)
class Attacked:
    """Pictures after an attack (N, 3, H, W), and which of them (N,) are classified wrongly."""

    pictures: Tensor
    defeated: Tensor


def fgsm(logits: Logits, pictures: Tensor, labels: Tensor, eps: float) -> Attacked:
    """One step of the whole radius, in [0, 1], along the sign of the loss's gradient."""
    gradient, _ = _gradient(logits, pictures, labels)
    moved = (pictures + eps * gradient.sign()).clamp(0, 1)
    with torch.no_grad():
        return Attacked(moved, logits(moved).argmax(dim=1) != labels)


def pgd(logits: Logits, pictures: Tensor, labels: Tensor, eps: float, steps: int, noise: Tensor) -> Attacked:
    """Projected steps of 2.5 eps / steps along the sign of the loss's gradient.

    A picture that is classified wrongly after some step stays as it is then.

    Args:
        noise: uniform in [0, 1), of the pictures' shape: where in the ball each starts.
    """
    lower, upper = (pictures - eps).clamp(0, 1), (pictures + eps).clamp(0, 1)
    found = torch.minimum(torch.maximum(pictures + eps * (2 * noise - 1), lower), upper)
    defeated = torch.zeros(len(labels), dtype=torch.bool)
    for step in range(steps + 1):
        rows = (~defeated).nonzero()[:, 0]
        if not len(rows):
            break
        there = rows.to(pictures.device)
        gradient, predicted = _gradient(logits, found[there], labels[rows])
        wrong = predicted != labels[rows]
        defeated[rows[wrong]] = True
        if step < steps:
            moved = found[there] + STEP * eps / steps * gradient.sign()
            moved = torch.minimum(torch.maximum(moved, lower[there]), upper[there])
            found[there] = torch.where(wrong.to(moved.device).view(-1, 1, 1, 1), found[there], moved)
    return Attacked(found, defeated)


def _gradient(logits: Logits, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of the cross-entropy to the pictures, and the classes predicted on the way."""
    pictures = pictures.detach().requires_grad_()
    with torch.enable_grad():
        outputs = logits(pictures)
        # A sum, so that a picture's gradient is the same whatever batch it is in.
        loss = F.cross_entropy(outputs, labels, reduction="sum")
        return torch.autograd.grad(loss, pictures)[0], outputs.detach().argmax(dim=1)


def attacks(exam: Examination) -> Prepared:
    """Accuracy before and after FGSM and PGD at each radius: `clean_top1`, `fgsm_EPS_top1`, `pgd_EPS_top1`.

    The pictures are those of the user's test split with its linear probe; where no photographs are named, ImageNet's
    validation set with the model's own classifier. A picture that is wrong from the start counts as defeated.
    """
    settings = exam.file.attacks
    listing = None
    if exam.splits is None:
        exam.check_classifier()
        listing = labelled_validation(exam)
    else:
        _ = exam.bench

    def measure() -> Yields:
        head = exam.linear.logits if listing is None else exam.classifier[0]

        def logits(pictures: Tensor) -> Tensor:
            return head(exam.subject.network(pictures).float().cpu())

        stands: dict[str, list[Tensor]] = {}
        for images, labels, names in _pictures(exam, listing):
            pictures = images.to(exam.subject.device).permute(0, 3, 1, 2).float().div(255)
            for name, survived in _attack(logits, pictures, labels, names, settings):
                stands.setdefault(name, []).append(survived)
        for name, parts in stands.items():
            yield share(f"{name}_top1", torch.cat(parts))

    def protocol() -> dict[str, Any]:
        own = linear_words(exam.linear, exam.file.evaluate.linear) if listing is None else {}
        where = exam.bench.source.name if listing is None else listing.name
        return own | {
            "pictures": f"{len(_chosen(exam, listing))} of {where}",
            "classifier": "linear probe" if listing is None else exam.classifier[1],
            "norm": "L-infinity in pixel space, pictures in [0, 1], radii in 1/255; normalised by the model",
            "pgd": f"{settings.steps} steps of {STEP:g} eps / {settings.steps}, {settings.restarts} random starts; any "
            "step that changes the class counts",
            "seed": settings.seed,
        }

    return Prepared(measure, protocol)


def _attack(
    logits: Logits, pictures: Tensor, labels: Tensor, names: list[str], settings: Attacks
) -> Iterator[tuple[str, Tensor]]:
    """Which pictures still stand, at first and after each attack at each radius."""
    with torch.no_grad():
        right = logits(pictures).argmax(dim=1) == labels
    yield "clean", right
    for eps in settings.eps:
        yield f"fgsm_{eps:g}", right & ~fgsm(logits, pictures, labels, eps / 255).defeated
        standing = right.clone()
        for restart in range(settings.restarts):
            rows = standing.nonzero()[:, 0]
            if len(rows):
                starts = [_noise(settings.seed, restart, names[row], pictures) for row in rows.tolist()]
                there = rows.to(pictures.device)
                attacked = pgd(logits, pictures[there], labels[rows], eps / 255, settings.steps, torch.stack(starts))
                standing[rows] = ~attacked.defeated
        yield f"pgd_{eps:g}", standing


def _noise(seed: int, restart: int, name: str, pictures: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(address(seed, restart, name, -1) >> 1)
    return torch.rand(pictures.shape[1:], generator=generator).to(pictures.device)


def _chosen(exam: Examination, listing: Listing | None) -> npt.NDArray[np.int64]:
    """Indices of the attacked pictures, spread evenly over the set."""
    count = len(exam.bench.source) if listing is None else len(listing.paths)
    return spread_evenly(count, exam.file.attacks.images)


def _pictures(exam: Examination, listing: Listing | None) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
    """Batches of uint8 pictures with labels and names."""
    chosen, size = _chosen(exam, listing), exam.file.evaluate.batch_size
    if listing is not None:
        part = listing.spread(exam.file.attacks.images)
        for number, images in enumerate(part.batches(squares(exam.file.pictures), size, exam.file.threads)):
            names = [path.name for path in part.paths[number * size :][: len(images)]]
            labels = part.labels[number * size :][: len(images)]
            yield torch.from_numpy(images), torch.from_numpy(labels), names
        return
    bench = exam.bench
    first = 0
    for images, labels in centre_pictures(Subset(bench.source, chosen, bench.source.name), bench.size, size):
        names = [str(number) for number in range(first, first + len(images))]
        first += len(images)
        yield torch.from_numpy(images), torch.from_numpy(labels), names


EVALUATORS: dict[str, Callable[[Examination], Prepared]] = {"attacks": attacks}
