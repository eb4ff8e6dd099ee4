"""The rotation probe of SelfAugment (Reed et al. 2021): does a linear probe tell by how much an image was rotated?"""

from collections.abc import Iterator

import numpy as np
import torch

from bgsweep.config.evaluation import Linear
from bgsweep.data import Image
from bgsweep.evaluation.evaluators.linear import fit_linear
from bgsweep.evaluation.features import Features
from bgsweep.evaluation.metrics.base import Array, Measured, OnlineMetric, mean_and_error
from bgsweep.evaluation.metrics.inputs import chosen
from bgsweep.images.decoding import centre_view

TURNS = 4


def rotation_hits(features: Array, settings: Linear, device: torch.device | None = None) -> Array:
    """The share (N,) of each image's four rotations that a probe predicts rightly which has not seen the image.

    Args:
        features: (N, 4, D), of images rotated by 0, 90, 180 and 270 degrees.
        settings: of the softmax regression, which is fitted to one half of the images and asked about the other.
    """
    count = len(features)
    half, hits = np.arange(count) % 2, np.zeros(count)
    for asked in range(2):
        fitted = torch.from_numpy(features[half != asked]).float().flatten(0, 1)
        head = fit_linear(Features(fitted, torch.arange(TURNS).repeat(len(fitted) // TURNS)), settings, TURNS, device)
        predicted = head.logits(torch.from_numpy(features[half == asked]).float()).argmax(dim=2)
        hits[half == asked] = (predicted == torch.arange(TURNS)).double().mean(dim=1).numpy()
    return hits


class Rotation(OnlineMetric):
    """Accuracy of a linear probe on the encoder's features, .25 by chance.

    SelfAugment trains the probe on the frozen encoder over the training images, and reports a rank correlation above
    .94 with supervised accuracy over augmentation policies of one method. Here it is fitted to one half of the images
    and asked about the other, and the other way round, so that it needs the validation split alone.

    Limits: images that are as likely one way up as another, such as those from above, tell nothing; an encoder that is
    trained to ignore rotations is marked down for it. The sky above and the ground below are background: an encoder
    that sees the background alone can do well.
    """

    def measure(self) -> Iterator[Measured]:
        source, size = self.context.images.source, self.context.config.size
        indices = chosen(self.context, self.settings.images, 4)

        def image(number: int) -> Image:
            upright = centre_view(source[indices[number // TURNS]].image, size)
            return np.ascontiguousarray(np.rot90(upright, number % TURNS))

        found = self.context.made(("rotation", len(indices)), TURNS * len(indices), image).numpy()
        probe = Linear(epochs=self.settings.epochs, lrs=(0.03, 0.1), weight_decays=(1e-4, 1e-2))
        hits = rotation_hits(found.reshape(len(indices), TURNS, -1), probe, self.context.model.device)
        yield Measured("top1", *mean_and_error(hits))
