"""The loop, optimisers, schedules and checkpoints: pure PyTorch."""

from bgsweep.training.checkpoint import load_checkpoint, save_checkpoint
from bgsweep.training.device import Placement, place
from bgsweep.training.trainer import Pretraining

__all__ = ["Placement", "Pretraining", "load_checkpoint", "place", "save_checkpoint"]
