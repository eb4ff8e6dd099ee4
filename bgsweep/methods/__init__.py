"""Self-supervised methods, one file each: modules, loss over views, and what happens after an optimiser step."""

from bgsweep.config import Experiment, MoCoV2Config
from bgsweep.errors import UserError
from bgsweep.methods.method import Method, Step
from bgsweep.methods.moco import MoCoV2
from bgsweep.models import build_encoder

__all__ = ["Method", "MoCoV2", "Step", "build_method"]


def build_method(experiment: Experiment) -> Method:
    """The experiment's method around its encoder, with fresh weights from torch's global generator."""
    config, encoder = experiment.method, build_encoder(experiment.encoder)
    match config:
        case MoCoV2Config():
            return MoCoV2(config, encoder)
    raise UserError(f"method.name: {config.name} is not built yet")
