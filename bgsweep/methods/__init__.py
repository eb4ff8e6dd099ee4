"""Self-supervised methods, one file each: modules, loss over views, updates after an optimiser step."""

from collections.abc import Mapping

from torch import Tensor

from bgsweep.config import Experiment
from bgsweep.config.methods import MethodSection
from bgsweep.config.plugins import UnknownPart, imported
from bgsweep.methods.base import Method, Step, Views
from bgsweep.methods.byol import BYOL
from bgsweep.methods.dino import DINO
from bgsweep.methods.moco import MoCoV2
from bgsweep.methods.simclr import SimCLR
from bgsweep.methods.supervised import Supervised
from bgsweep.methods.swav import SwAV
from bgsweep.methods.vicreg import VICReg
from bgsweep.models import build_encoder

__all__ = [
    "BYOL",
    "DINO",
    "Method",
    "MethodSection",
    "MoCoV2",
    "SimCLR",
    "Step",
    "Supervised",
    "SwAV",
    "VICReg",
    "Views",
    "build_method",
]


def build_method(experiment: Experiment, classes: int, weights: Mapping[str, Tensor] | None = None) -> Method:
    """The experiment's method around its encoder, with fresh weights from torch's global generator.

    The encoder's weights are drawn first, so that they are the same for every method. A method that needs labels gets
    ``classes``, their number. The encoder gets the ``weights``, if there are any, before a method copies it as its
    momentum or target network.
    """
    config = experiment.method
    encoder = build_encoder(experiment.encoder, experiment.views.sizes)
    if weights is not None:
        encoder.load_state_dict(weights)
    make = imported(config.implementation, config.name)
    method: Method = make(config, encoder, classes) if config.needs_labels else make(config, encoder)
    if not isinstance(method, Method):
        raise UnknownPart(f"method.name: {config.implementation} is not a class derived from bgsweep.methods.Method")
    return method
