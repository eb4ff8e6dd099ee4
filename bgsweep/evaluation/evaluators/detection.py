"""Detection transfer: torchvision's Faster R-CNN (Ren et al. 2015) fine-tuned from the encoder.

The defaults are MoCo's protocol on PASCAL VOC (He et al. 2020): a ResNet's first four stages before the regions (C4),
its last one behind them with a BatchNorm more, all weights trained, BatchNorm's statistics estimated anew at the end.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.resnet import ResNet
from torchvision.ops import MultiScaleRoIAlign

from bgsweep.config import Detection
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.boxes import Annotated, BoxSet, read_coco, read_voc
from bgsweep.evaluation.datasets.crops import shuffled
from bgsweep.evaluation.datasets.downloads import path_of
from bgsweep.evaluation.datasets.listing import Listing, read_rgb
from bgsweep.evaluation.evaluator import Evaluator, PerImageMetric, Yields
from bgsweep.evaluation.evaluators.average_precision import Found, average_precisions, cocotools
from bgsweep.evaluation.frozen_model import FrozenModel, to_unit
from bgsweep.seeding import Draw, rng_key

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]

_DROPS = (3 / 4, 11 / 12)  # 18,000 and 22,000 of 24,000 steps


def detection(context: EvalContext) -> Evaluator:
    """`detection_ap`, `detection_ap50` and `detection_ap75` on the test split, by pycocotools."""
    settings = context.config.detection
    resnet_of(context.model)
    cocotools()
    train, test = opened(context)

    def measure() -> Yields:
        detector = fine_tune(context, train)
        found = [_found(detector, one, context.model.device) for one in test.images]
        for name, value in average_precisions(test.images, found, len(test.classes)).items():
            yield PerImageMetric(f"detection_{name}", np.array([value]), np.ones(1))

    def protocol() -> dict[str, Any]:
        return settings.model_dump(mode="json", exclude={"train", "test"}) | {
            "train": f"{train.name}: {len(train.images)} images, flipped by halves",
            "test": f"{test.name}: {len(test.images)} images, {len(test.classes)} classes",
            "network": "torchvision's Faster R-CNN, all weights trained in one process, SGD with momentum 0.9",
            "batch_norm": f"learns from each batch; statistics anew of {_precise(settings)} batches for the test",
            "metric": "COCO's average precision by pycocotools; VOC's difficult objects are ignored",
            "seed": context.config.evaluate.seed,
        }

    objects = np.array([len(one.labels) for one in test.images])
    return Evaluator(measure, protocol, [Listing(test.name, [one.path for one in test.images], objects)])


def opened(context: EvalContext) -> tuple[BoxSet, BoxSet]:
    """The training and the test images.

    Raises:
        UserError: they are missing, or do not fit together.
    """
    sets, settings = context.config.sets, context.config.detection
    if sets.voc is not None and sets.coco is not None:
        raise UserError("sets.voc and sets.coco: name one of them; detection is measured on one set at a time")
    if sets.coco is not None:
        root = path_of(sets, "coco")
        train = read_coco(root, settings.train or ("train2017",))
        test = read_coco(root, (settings.test or "val2017",))
        if train.classes != test.classes:
            raise UserError(f"{root}: the categories of training and test differ; take the published annotations")
    else:
        root = path_of(sets, "voc")
        train = read_voc(root, settings.train or ("VOC2007/trainval", "VOC2012/trainval"))
        test = read_voc(root, (settings.test or "VOC2007/test",), train.classes)
    kept = [one for one in train.images if (~one.ignored).any()]
    if not kept or not test.images:
        raise UserError(f"{root}: no images with objects in {train.name if not kept else test.name}; name other splits")
    return BoxSet(train.name, kept, train.classes), test


def resnet_of(model: FrozenModel) -> ResNet:
    """The torchvision ResNet in an encoder.

    Raises:
        UserError: it is another network.
    """
    found = next((module for module in model.network.modules() if isinstance(module, ResNet)), None)
    if found is None:
        raise UserError("only ResNets of torchvision can be made into detectors; leave this evaluator out")
    return found


def build_detector(resnet: ResNet, classes: int, settings: Detection) -> FasterRCNN:
    """Faster R-CNN on a copy of a ResNet, its other weights from torch's global generator; class 0 is background."""
    trunk = copy.deepcopy(resnet).requires_grad_(True)
    make = _with_c4 if settings.body == "c4" else _with_fpn
    shorter = list(settings.shorter)
    # torchvision takes the last of these sizes for the test.
    shorter += [] if shorter[-1] == settings.test_shorter else [settings.test_shorter]
    others = {"min_size": shorter, "max_size": settings.longer, "box_batch_size_per_image": settings.regions}
    return make(trunk, classes, others)


def _with_c4(trunk: ResNet, classes: int, others: dict[str, Any]) -> FasterRCNN:
    stages = [trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool, trunk.layer1, trunk.layer2, trunk.layer3]
    body = nn.Sequential(*stages)
    body.out_channels = _channels(trunk.layer3)  # type: ignore[assignment]  # torchvision looks for it there
    width = _channels(trunk.layer4)
    return FasterRCNN(
        body,
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=0),
        box_head=nn.Sequential(trunk.layer4, nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        box_predictor=FastRCNNPredictor(width, classes + 1),
        rpn_pre_nms_top_n_train=12_000,
        rpn_pre_nms_top_n_test=6_000,
        **others,
    )


def _with_fpn(trunk: ResNet, classes: int, others: dict[str, Any]) -> FasterRCNN:
    layers = [trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4]
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    body = nn.Sequential(OrderedDict((name, getattr(trunk, name)) for name in names))
    returned = {f"layer{stage + 1}": str(stage) for stage in range(4)}
    widths = [_channels(layer) for layer in layers]
    pyramid = BackboneWithFPN(body, returned, widths, 256, norm_layer=nn.BatchNorm2d)
    head = FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=nn.BatchNorm2d)
    return FasterRCNN(pyramid, box_head=head, box_predictor=FastRCNNPredictor(1024, classes + 1), **others)


def _channels(stage: nn.Module) -> int:
    """Channels that come out of a stage of residual blocks, whose last BatchNorm is at its end or at its shortcut's."""
    return [module.num_features for module in stage.modules() if isinstance(module, nn.BatchNorm2d)][-1]


def fine_tune(context: EvalContext, train: BoxSet) -> FasterRCNN:
    """A detector made of the encoder and trained, in eval mode. The encoder itself stays as it is."""
    settings, device = context.config.detection, context.model.device
    with torch.random.fork_rng():
        torch.manual_seed(rng_key(context.config.evaluate.seed, 0, "detection", Draw.PROBE_WEIGHTS))
        detector = build_detector(resnet_of(context.model), len(train.classes), settings).to(device).train()
        optimizer = torch.optim.SGD(
            detector.parameters(), lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay
        )
        batches = _batches(context, train, settings.steps + _precise(settings))
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * rate(step, settings)
            optimizer.zero_grad()
            loss: Tensor = sum(detector(*_to(next(batches), device)).values())
            if not loss.isfinite():
                raise UserError(f"detection: training diverged after {step} steps; lower detection.lr")
            loss.backward()
            optimizer.step()
        _estimate_statistics(detector, batches, device)
    return detector.eval()


def rate(step: int, settings: Detection) -> float:
    """Factor of the learning rate: from a thousandth to 1 while it warms up, a tenth after each drop."""
    warm = min(1.0, 0.001 + 0.999 * step / settings.warmup)
    return warm * 0.1 ** sum(step >= round(share * settings.steps) for share in _DROPS)


def _precise(settings: Detection) -> int:
    """Batches that BatchNorm's statistics are estimated of; MoCo's 200, unless training itself is shorter."""
    return min(settings.steps, 200)


@torch.no_grad()
def _estimate_statistics(detector: nn.Module, batches: Iterator[Batch], device: torch.device) -> None:
    """BatchNorm's statistics as plain means over some batches, in place of those that lag behind the weights."""
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean
    for batch in batches:
        detector(*_to(batch, device))


def _batches(context: EvalContext, train: BoxSet, count: int) -> Iterator[Batch]:
    """So many training batches, the next one read while the last one is in use."""
    size, seed = context.config.detection.batch_size, context.config.evaluate.seed
    with ThreadPoolExecutor(context.config.threads) as pool:
        waiting: list[Future[tuple[Tensor, dict[str, Tensor]]]] = []
        for part in _parts(len(train.images), min(size, len(train.images)), seed, count + 1):
            ready = [one.result() for one in waiting]
            waiting = [pool.submit(_example, train.images[index], seed, epoch) for index, epoch in part]
            if ready:
                images, targets = zip(*ready, strict=True)
                yield list(images), list(targets)


def _parts(images: int, size: int, seed: int, count: int) -> Iterator[list[tuple[int, int]]]:
    """So many batches of images' numbers with their epoch; an epoch's last batch is left out if it is not full."""
    made, epoch = 0, 0
    while made < count:
        for part in shuffled(images, seed, epoch, size):
            if len(part) == size and made < count:
                made += 1
                yield [(int(index), epoch) for index in part]
        epoch += 1


def _example(one: Annotated, seed: int, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
    image, boxes = _image(one), torch.from_numpy(one.boxes[~one.ignored])
    if rng_key(seed, epoch, one.path.name, Draw.DETECTION_FLIP) % 2:
        image = image.flip(2)
        boxes = torch.stack([image.shape[2] - boxes[:, 2], boxes[:, 1], image.shape[2] - boxes[:, 0], boxes[:, 3]], 1)
    return image, {"boxes": boxes, "labels": torch.from_numpy(one.labels[~one.ignored] + 1)}


def _image(one: Annotated) -> Tensor:
    return to_unit(torch.from_numpy(np.array(read_rgb(one.path)))[None], torch.device("cpu"))[0]


def _to(batch: Batch, device: torch.device) -> Batch:
    images, targets = batch
    moved = [{name: value.to(device) for name, value in one.items()} for one in targets]
    return [image.to(device) for image in images], moved


@torch.inference_mode()
def _found(detector: FasterRCNN, one: Annotated, device: torch.device) -> Found:
    (found,) = detector([_image(one).to(device)])
    boxes, labels, scores = (found[name].cpu().numpy() for name in ("boxes", "labels", "scores"))
    return Found(boxes, labels - 1, scores)


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"detection": detection}
