"""Attribution: Grad-CAM (Selvaraju et al. 2017) on the linear probe, and its share inside the mask."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bgsweep.data import Image
from bgsweep.evaluation.audit.layers import Layer, last_layers, watched
from bgsweep.evaluation.audit.measure import Found, Measure, thumbnail
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.evaluation.evaluators.linear import linear_head
from bgsweep.evaluation.frozen_model import to_unit

_BATCH, _SHOWN = 16, 6
Maps = npt.NDArray[np.float64]


def grad_cam(values: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM (N, h, w) of a layer's values and the score's gradients there (N, D, h, w): ReLU of the weighted sum."""
    return (values * gradients.mean(dim=(2, 3), keepdim=True)).sum(dim=1).relu()


def inside(
    maps: Maps, masks: Maps, share: str = "inside", focus: str = "foreground_focus"
) -> tuple[PerImageMetric, PerImageMetric]:
    """By these names the share of each map (N, H, W) inside its mask, and ForAug's foreground focus.

    Focus is that share over the mask's share of the image: 1 where foreground and background matter alike for their
    areas. Maps that are zero everywhere count in neither.
    """
    sums, area = maps.sum(axis=(1, 2)), masks.mean(axis=(1, 2))
    counted = ((sums > 0) & (area > 0)).astype(np.float64)
    shares = (maps * masks).sum(axis=(1, 2)) / np.maximum(sums, 1e-12) * counted
    return PerImageMetric(share, shares, counted), PerImageMetric(focus, shares / np.maximum(area, 1e-12), counted)


def attribution(subject: Subject) -> Found:
    """`foreground_focus` and `inside`."""
    first = to_unit(
        torch.from_numpy(subject.variants.image("original", int(subject.part[0]))[None]), subject.model.device
    )
    _, layer = last_layers(subject.model.network, first)
    return maps_inside(subject, lambda images: _maps(subject, layer, images))


def maps_inside(subject: Subject, maps_of: Callable[[Image], Maps], **names: str) -> Found:
    """`inside`, by its ``names``, of the maps that images (N, H, W, 3) get, with some drawn over their images."""
    maps, masks, shown = [], [], list[str]()
    step = max(1, len(subject.part) // _SHOWN)
    for start in range(0, len(subject.part), _BATCH):
        batch = subject.part[start : start + _BATCH].tolist()
        images = np.stack([subject.variants.image("original", index) for index in batch])
        found = maps_of(images)
        maps.append(found)
        masks.append(np.stack([subject.variants.regions(index)[0] > 127 for index in batch]).astype(np.float64))
        rows = [row for row in range(len(batch)) if (start + row) % step == 0]
        shown += [thumbnail(_heated(images[row], found[row])) for row in rows]
    share, focus = inside(np.concatenate(maps), np.concatenate(masks), **names)
    return Found([focus, share], {"examples": shown[:_SHOWN]})


def _maps(subject: Subject, layer: Layer, images: Image) -> Maps:
    """Grad-CAM of the predicted class; without a probe of the features' own direction, brought to the images' size."""
    given = to_unit(torch.from_numpy(images), subject.model.device).requires_grad_()
    with torch.enable_grad():
        features, output = watched(subject.model.network, layer, given)
        if subject.labelled:
            logits = linear_head(subject.context).logits(features.cpu())
            score = logits.amax(dim=1).sum()
        else:
            score = (features * F.normalize(features, dim=1).detach()).sum()
        (gradients,) = torch.autograd.grad(score, output)
    found = grad_cam(layer.grid(output.detach()), layer.grid(gradients))
    enlarged = F.interpolate(found[:, None].float(), images.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
    return np.asarray(enlarged.cpu(), np.float64)


def _heated(image: Image, heat: Maps) -> Image:
    """The image under its map, warm where it is high."""
    level = np.asarray(255 * heat / max(1e-12, float(heat.max())), np.uint8)
    colours = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.asarray(cv2.addWeighted(image, 0.5, np.ascontiguousarray(colours), 0.5, 0), np.uint8)


MEASURE = Measure(
    "attribution",
    "Where predictions come from",
    "Grad-CAM of the predicted class of the linear probe at the last layer with places (without classes: of the "
    "features' length). Foreground focus is the share inside the mask over the mask's area (ForAug): 1 where "
    "foreground and background matter alike for their areas.",
    attribution,
)
