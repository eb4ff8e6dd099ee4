"""Foreground and background in patch features: intersection over union of a linear read-out."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.data import Image, ImageDataset, Mask, Sample
from bgsweep.data.readable import seen
from bgsweep.evaluation.audit.layers import Layer, last_layers, watched
from bgsweep.evaluation.audit.measure import Found, Measure, NotApplicable
from bgsweep.evaluation.audit.subject import Subject, by_class
from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.evaluation.frozen_model import to_unit
from bgsweep.images.compositing import binarize
from bgsweep.images.decoding import centre_view

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Of standardised features, relative to the number of patches."""
_THRESHOLDS = tuple(number / 10 for number in range(-5, 6))
_HELD_OUT = 5  # every fifth image chooses the ridge and the threshold
_BATCH = 32
Patches = npt.NDArray[np.bool_]


def read_out(train: Tensor, masks: Patches, test: Tensor) -> Patches:
    """The patches of images (M, P, D) that a ridge regression takes for foreground (M, P).

    Ridge and threshold are those of the highest intersection over union on every fifth of the images it is trained on.

    Args:
        train, masks: patches of other images (N, P, D), and which of them are foreground (N, P).
    """
    held = np.arange(len(train)) % _HELD_OUT == 0
    if held.all() or not masks[~held].any():
        held = np.zeros(len(train), bool)
    fitted, chooses = ~held, held if held.any() else ~held
    best, ridge, threshold = -1.0, RIDGES[0], 0.0
    for each, scores in zip(RIDGES, _scores(train[fitted], masks[fitted], train[chooses], RIDGES), strict=True):
        for above in _THRESHOLDS:
            found = overlap(scores > above, masks[chooses], "iou").value
            if found > best:
                best, ridge, threshold = found, each, above
    (scores,) = _scores(train, masks, test, (ridge,))
    return np.asarray(scores > threshold)


def _scores(train: Tensor, masks: Patches, test: Tensor, ridges: Sequence[float]) -> list[npt.NDArray[np.float64]]:
    """For each ridge the scores (M, P), about -1 for background and 1 for foreground; both kinds weigh the same."""
    flat = train.flatten(0, 1)
    mean, std = flat.mean(dim=0), flat.std(dim=0).clamp_min(1e-6)

    def standardised(patches: Tensor) -> Tensor:
        rows = (patches.flatten(0, 1) - mean) / std
        return torch.cat([rows, torch.ones(len(rows), 1)], dim=1).double()

    x, foreground = standardised(train), torch.from_numpy(masks).flatten()
    wanted, share = foreground.double() * 2 - 1, foreground.double().mean().clamp(1e-6, 1 - 1e-6)
    weight = torch.where(foreground, 0.5 / share, 0.5 / (1 - share))[:, None]
    gram, right, asked = x.t() @ (x * weight), x.t() @ (wanted[:, None] * weight), standardised(test)
    unit = len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    found = [asked @ torch.linalg.solve(gram + ridge * unit, right) for ridge in ridges]
    return [np.asarray(each[:, 0].reshape(test.shape[:2])) for each in found]


def overlap(predicted: Patches, true: Patches, name: str) -> PerImageMetric:
    """Mean intersection over union of images' patches (N, P); images without foreground patches do not count."""
    both, either = (predicted & true).sum(axis=1), (predicted | true).sum(axis=1)
    counted = np.asarray(true.any(axis=1), np.float64)
    return PerImageMetric(name, np.asarray(both / np.maximum(either, 1) * counted), counted)


def foreground_map(subject: Subject) -> Found:
    """`iou`, and `position_iou`, that of the average mask of the other images, which knows nothing but positions."""
    source, train = subject.variants.source, subject.context.features.splits.train
    chosen = np.sort(by_class(np.asarray(train.labels))[: len(subject.part)])
    own, masks = _patches(subject, train, chosen)
    other, true = _patches(subject, source, subject.part)
    if not masks.any() or masks.all():
        raise NotApplicable("the masks of the images that train the read-out have no foreground or no background")
    average = masks.mean(axis=0)
    least = np.sort(average)[-max(1, round(masks.mean() * len(average)))]
    usual = np.broadcast_to((average >= least) & (average > 0), true.shape)
    return Found([overlap(read_out(own, masks, other), true, "iou"), overlap(np.asarray(usual), true, "position_iou")])


def _patches(subject: Subject, source: ImageDataset, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Patches]:
    """Features of images' patches (N, P, D), and which of them are foreground (N, P)."""
    size, network = subject.size, subject.model.network

    def square(sample: Sample) -> tuple[Image, Mask]:
        assert sample.mask is not None, "audited images have masks"
        return centre_view(sample.image, size), centre_view(binarize(sample.mask), size)

    squares = [pair for _, pair in seen(source, square, indices.tolist())]
    layer: Layer | None = None
    features, masks = [], []
    for start in range(0, len(squares), _BATCH):
        batch = squares[start : start + _BATCH]
        images = to_unit(torch.from_numpy(np.stack([image for image, _ in batch])), subject.model.device)
        if layer is None:
            layer, _ = last_layers(network, images[:1])
        with torch.no_grad():
            grid = layer.grid(watched(network, layer, images)[1]).float().cpu()
        features.append(grid.flatten(2).transpose(1, 2).clone())
        shown = torch.from_numpy(np.stack([mask for _, mask in batch])).float()[:, None] / 255
        masks.append(torch.nn.functional.adaptive_avg_pool2d(shown, (grid.shape[2], grid.shape[3])).flatten(1) > 0.5)
    return torch.cat(features), torch.cat(masks).numpy()


MEASURE = Measure(
    "foreground_map",
    "Foreground in patch features",
    "Mean intersection over union of the masks with a linear read-out of the last layer's patches, trained on the "
    "other images; and of the average mask, which knows positions alone.",
    foreground_map,
)
