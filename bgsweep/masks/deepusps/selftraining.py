"""Masks learned from handcrafted ones without labels, after DeepUSPS (Nguyen et al. 2019).

For each handcrafted method a network learns its masks. The moving average of the predictions over the epochs, aligned
with the images' edges by GrabCut, is the target of the next round. A student network then learns the refined masks of
all methods. (GrabCut replaces DeepUSPS's dense CRF.)
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bgsweep.config import Experiment, MaskTraining, Workers
from bgsweep.masks.deepusps.augment import TrainingAugmentation
from bgsweep.masks.deepusps.network import SaliencyNetwork, saliency_loss
from bgsweep.masks.grabcut import grabcut, otsu
from bgsweep.masks.network import network_input
from bgsweep.seeding import Draw, rng_key
from bgsweep.training.device import select_device

Bytes = npt.NDArray[np.uint8]


class Stage(NamedTuple):
    """A round of training on one method's masks, or (`method` is None) the training of the student."""

    method: str | None
    round: int
    epochs: int


class SelfTraining:
    """The training of all networks, one epoch at a time.

    Resuming between any two epochs gives the same student as an uninterrupted run (on a CPU).

    Args:
        config: lengths, sizes, seed.
        backbone: initial weights of every network.
        images: N x side x side x 3, RGB.
        masks: for each method N x side x side, 0 to 255, binarised by Otsu's threshold.

    Raises:
        UserError: the backbone is not a ResNet, or a GPU is configured and there is none.
    """

    def __init__(self, config: MaskTraining, backbone: nn.Module, images: Bytes, masks: Mapping[str, Bytes]) -> None:
        self.config = config
        self._placement = select_device(Experiment(workers=Workers(device=config.device)))
        self._images, self._augmentation = images, TrainingAugmentation()
        torch.manual_seed(rng_key(config.seed, 0, "", Draw.MASK_WEIGHTS))
        self._start = SaliencyNetwork(backbone)
        self.stages = [Stage(name, number, config.epochs) for name in masks for number in range(config.rounds)]
        self.stages.append(Stage(None, 0, config.student_epochs))
        self.foregrounds = {name: np.stack([_threshold(mask) for mask in found]) for name, found in masks.items()}
        """The masks of each method after its last finished round."""
        self.stage = self.epoch = 0
        self._begin_stage()

    @property
    def finished(self) -> bool:
        """True after the student's last epoch."""
        return self.stage == len(self.stages)

    @property
    def epochs_left(self) -> int:
        """The number of epochs of all stages that are left."""
        return sum(stage.epochs for stage in self.stages[self.stage :]) - self.epoch

    def step_epoch(self) -> float:
        """Train one epoch of the current stage; returns its mean loss."""
        stage = self.stages[self.stage]
        draws = np.random.default_rng(rng_key(self.config.seed, self.epoch, "", Draw.MASK_ORDER, self.stage))
        order = draws.permutation(len(self._images))
        size = self.config.batch_size
        steps = len(order) // size  # images left over are drawn in other epochs
        losses = []
        self.network.train()
        for step in range(steps):
            done = (self.epoch + step / steps) / stage.epochs
            for group in self._optimizer.param_groups:
                group["lr"] = self.config.lr * (1 - done) ** 0.9
            indices = order[step * size : (step + 1) * size]
            losses.append(self._step(indices, stage.method))
        self.epoch += 1
        if self.epoch == stage.epochs:
            self._end_stage(stage)
        return float(np.mean(losses))

    @torch.inference_mode()
    def predict(self, image: Bytes) -> npt.NDArray[np.float32]:
        """The current network's saliency of one image: height x width, 0 to 1."""
        self.network.eval()
        entry = torch.from_numpy(network_input(image, (self.config.side,) * 2))[None]
        level: npt.NDArray[np.float32] = self.network(entry.to(self._placement.device)).sigmoid()[0, 0].cpu().numpy()
        return level

    def state_dict(self) -> dict[str, Any]:
        """The complete state of the training."""
        return {
            "stage": self.stage,
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": torch.from_numpy(self._average),
            "seen": torch.from_numpy(self._seen),
            "masks": {name: torch.from_numpy(np.packbits(mask)) for name, mask in self.foregrounds.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state that `state_dict` returned."""
        self.stage, self.epoch = state["stage"], state["epoch"]
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average, self._seen = state["average"].numpy(), state["seen"].numpy()
        for name, mask in self.foregrounds.items():
            packed = state["masks"][name].numpy()
            self.foregrounds[name] = np.unpackbits(packed, count=mask.size).astype(bool).reshape(mask.shape)

    def _step(self, indices: npt.NDArray[np.int64], method: str | None) -> float:
        wanted = [method] if method else list(self.foregrounds)
        examples = [
            self._augmentation.apply(
                self._images[index],
                np.stack([self.foregrounds[name][index] for name in wanted]),
                rng_key(self.config.seed, self.epoch, str(index), Draw.MASK_VIEW, self.stage),
                cropped=method is None,  # predictions for whole images are averaged over epochs
            )
            for index in indices
        ]
        device = self._placement.device
        batch = torch.from_numpy(np.stack([example.pixels for example in examples]))
        with self._placement.context():
            logits = self.network(batch.to(device, memory_format=self._placement.memory_format))
        # One loss against the mean of the methods' masks, so that the student learns the foreground of the majority.
        # The mean of one loss for each, as in DeepUSPS, is least where only some of them see foreground.
        masks = torch.from_numpy(np.stack([example.masks for example in examples])).to(device)
        targets = masks.mean(dim=1, keepdim=True)
        loss = saliency_loss(logits, targets)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        if method:
            self._remember(indices, np.array([example.mirrored for example in examples]), logits.detach())
        return loss.item()

    def _remember(self, indices: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_], logits: Tensor) -> None:
        """Update the moving average of the predictions over the epochs; those of training cost no further pass."""
        levels = logits.float().sigmoid().cpu().numpy()[:, 0]
        levels[mirrored] = levels[mirrored, :, ::-1]
        keep = self.config.momentum
        self._average[indices] = keep * self._average[indices] + (1 - keep) * levels
        self._seen[indices] += 1

    def _begin_stage(self) -> None:
        """Reset the network at the first round of a method and for the student; later rounds continue with it."""
        if self.finished:
            return
        if self.stages[self.stage].round == 0:
            self.network = SaliencyNetwork(self._start.backbone)
            self.network.load_state_dict(self._start.state_dict())
            self.network.to(self._placement.device).to(memory_format=self._placement.memory_format)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=self.config.lr)
        self._average = np.zeros(self._images.shape[:3], np.float16)
        self._seen = np.zeros(len(self._images), np.int64)

    def _end_stage(self, stage: Stage) -> None:
        if stage.method:
            mask = self.foregrounds[stage.method]
            for index in np.flatnonzero(self._seen):
                weight = 1 - self.config.momentum ** int(
                    self._seen[index]
                )  # bias correction, as in Adam: the average starts at zero
                level = self._average[index].astype(np.float64) / weight
                mask[index] = grabcut(self._images[index], level) > 127
        self.stage, self.epoch = self.stage + 1, 0
        self._begin_stage()


def _threshold(mask: Bytes) -> npt.NDArray[np.bool_]:
    """A mask binarised by Otsu's threshold, since the methods' soft maps have different ranges."""
    found: npt.NDArray[np.bool_] = mask > 255 * otsu(mask / 255)
    return found
