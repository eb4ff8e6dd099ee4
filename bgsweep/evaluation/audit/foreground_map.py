"""Foreground and background in patch features: intersection over union of a linear read-out."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.data import Image, ImageDataset, Mask, Sample
from bgsweep.data.readable import seen
from bgsweep.evaluation.audit.layers import Layer, last_layers, watched
from bgsweep.evaluation.audit.measure import Found, Measure, NotApplicable
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.evaluation.frozen_model import to_unit
from bgsweep.images.compositing import binarize
from bgsweep.images.decoding import centre_view

RIDGE = 1e-2
"""Of standardised features, relative to the number of patches."""
_BATCH = 32
Patches = npt.NDArray[np.bool_]


def read_out(train: Tensor, foreground: Tensor, test: Tensor) -> Tensor:
    """True for the patches (M, D) that a ridge regression on other patches (N, D) takes for foreground (N,).

    Both kinds weigh the same in it, so that small foregrounds are not all missed.
    """
    mean, std = train.mean(dim=0), train.std(dim=0).clamp_min(1e-6)
    x = torch.cat([(train - mean) / std, torch.ones(len(train), 1)], dim=1).double()
    wanted = foreground.double() * 2 - 1
    share = foreground.double().mean().clamp(1e-6, 1 - 1e-6)
    weight = torch.where(foreground, 0.5 / share, 0.5 / (1 - share))[:, None]
    gram = x.t() @ (x * weight) + RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, x.t() @ (wanted[:, None] * weight))
    asked = torch.cat([(test - mean) / std, torch.ones(len(test), 1)], dim=1).double()
    found: Tensor = (asked @ solution)[:, 0] > 0
    return found


def overlap(predicted: Patches, true: Patches, name: str) -> PerImageMetric:
    """Mean intersection over union of images' patches (N, P); images without foreground patches do not count."""
    both, either = (predicted & true).sum(axis=1), (predicted | true).sum(axis=1)
    counted = np.asarray(true.any(axis=1), np.float64)
    return PerImageMetric(name, np.asarray(both / np.maximum(either, 1) * counted), counted)


def foreground_map(subject: Subject) -> Found:
    """`iou`, and `position_iou`, that of the average mask of the other images, which knows nothing but positions."""
    source, train = subject.variants.source, subject.context.features.splits.train
    chosen = np.arange(len(train))[: len(subject.part)]
    own, masks = _patches(subject, train, chosen)
    other, true = _patches(subject, source, subject.part)
    if not masks.any() or masks.all():
        raise NotApplicable("the masks of the images that train the read-out have no foreground or no background")
    found = read_out(own.flatten(0, 1), torch.from_numpy(masks).flatten(), other.flatten(0, 1))
    average = masks.mean(axis=0)
    least = np.sort(average)[-max(1, round(masks.mean() * len(average)))]
    usual = np.broadcast_to((average >= least) & (average > 0), true.shape)
    predicted = np.asarray(found).reshape(true.shape)
    return Found([overlap(predicted, true, "iou"), overlap(np.asarray(usual), true, "position_iou")])


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
