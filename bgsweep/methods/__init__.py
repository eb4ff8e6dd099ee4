"""Self-supervised methods, one file each: modules, loss over views, updates after an optimiser step."""

from collections.abc import Mapping

from torch import Tensor

from bgsweep.config import (
    BYOLConfig,
    DINOConfig,
    Experiment,
    MoCoV2Config,
    SimCLRConfig,
    SupervisedConfig,
    SwAVConfig,
    VICRegConfig,
)
from bgsweep.methods.base import Method, Step
from bgsweep.methods.byol import BYOL
from bgsweep.methods.dino import DINO
from bgsweep.methods.moco import MoCoV2
from bgsweep.methods.simclr import SimCLR
from bgsweep.methods.supervised import Supervised
from bgsweep.methods.swav import SwAV
from bgsweep.methods.vicreg import VICReg
from bgsweep.models import build_encoder

__all__ = ["BYOL", "DINO", "Method", "MoCoV2", "SimCLR", "Step", "Supervised", "SwAV", "VICReg", "build_method"]


def build_method(experiment: Experiment, classes: int, weights: Mapping[str, Tensor] | None = None) -> Method:
    """The experiment's method around its encoder, with fresh weights from torch's global generator.

    The encoder's weights are drawn first, so that they are the same for every method. Only the supervised method uses
    ``classes``, their number. The encoder gets the ``weights``, if there are any, before a method copies it as its
    momentum or target network.
    """
    config = experiment.method
    encoder = build_encoder(experiment.encoder, experiment.views.sizes)
    if weights is not None:
        encoder.load_state_dict(weights)
    match config:
        case MoCoV2Config():
            return MoCoV2(config, encoder)
        case BYOLConfig():
            return BYOL(config, encoder)
        case SwAVConfig():
            return SwAV(config, encoder)
        case SimCLRConfig():
            return SimCLR(config, encoder)
        case VICRegConfig():
            return VICReg(config, encoder)
        case DINOConfig():
            return DINO(config, encoder)
        case SupervisedConfig():
            return Supervised(config, encoder, classes)
