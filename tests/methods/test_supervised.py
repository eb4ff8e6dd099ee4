"""The supervised baseline: its loss over both views, what learns, and labels that are not there."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bgsweep.config import Encoder, SupervisedConfig, resolve
from bgsweep.data import open_splits
from bgsweep.data.sample import UNLABELLED
from bgsweep.errors import UserError
from bgsweep.methods.base import Views
from bgsweep.methods.supervised import Supervised
from bgsweep.models import build_encoder, to_unit
from bgsweep.training import Trainer, select_device

TINY = [
    "data={images: sample, resize: 24, cache: true, loader_workers: 0}",
    "views={size: 16}",
    "method={name: supervised}",
    "encoder={name: resnet10, width: 8, stem: small}",
    "training={epochs: 4, batch_size: 80, precision: fp32}",
    "optimizer={lr: 0.1}",
    "workers={device: cpu}",
]


def make(**changes: object) -> Supervised:
    torch.manual_seed(0)
    config = SupervisedConfig.model_validate({"name": "supervised", **changes})
    return Supervised(config, build_encoder(Encoder(name="resnet10", width=8, stem="small")), classes=5)


def batch() -> Views:
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=generator) for _ in range(2)]
    return Views(pictures, torch.tensor([0, 4, 2, 2, 1, 3]))


def test_loss_is_the_mean_over_both_views() -> None:
    method, views = make().eval(), batch()  # in eval mode BatchNorm treats each view by itself
    each = [
        F.cross_entropy(method.classifier(method.encoder(to_unit(images))), views.labels) for images in views.images
    ]
    step = method(views)
    torch.testing.assert_close(step.loss, (each[0] + each[1]) / 2)
    assert 0 <= step.metrics["train_top1"] <= 1


def test_smoothed_labels_keep_their_share_for_all_classes() -> None:
    method, views = make(label_smoothing=0.2).eval(), batch()
    logs = method.classifier(method.encoder(to_unit(torch.cat(views.images)))).log_softmax(dim=1)
    wanted = F.one_hot(views.labels.repeat(2), 5) * 0.8 + 0.2 / 5
    torch.testing.assert_close(method(views).loss, -(wanted * logs).sum(dim=1).mean())


def test_every_parameter_learns() -> None:
    method = make()
    method(batch()).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())


def test_learns_the_embedded_sample_and_knows_its_classes() -> None:
    torch.set_num_threads(1)
    experiment = resolve({}, TINY).experiment
    training = Trainer(experiment, open_splits(experiment.data).train, select_device(experiment))
    assert training.state_dict()["classes"] == 10
    curve = [training.step_epoch() for _ in range(8)]
    assert curve[-1]["loss"] < curve[0]["loss"] < 3
    assert curve[-1]["train_top1"] > 0.2  # chance is 0.1


@dataclass
class Unlabelled:
    """The embedded sample with three labels taken away."""

    def __post_init__(self) -> None:
        self.whole = open_splits(resolve({}, TINY).experiment.data).train
        self.name, self.classes, self.ids, self.has_masks = "pictures", self.whole.classes, self.whole.ids, True
        self.labels = np.where(np.arange(len(self.whole)) < 3, UNLABELLED, self.whole.labels)

    def __len__(self) -> int:
        return len(self.whole)


def test_images_without_labels_are_refused_before_training() -> None:
    experiment = resolve({}, TINY).experiment
    with pytest.raises(UserError, match="3 of 960 images in pictures have none"):
        Trainer(experiment, Unlabelled(), select_device(experiment))
