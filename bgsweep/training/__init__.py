"""The loop, optimisers, schedules and checkpoints: pure PyTorch."""

from bgsweep.training.checkpoint import load_checkpoint, save_checkpoint
from bgsweep.training.device import Placement, select_device
from bgsweep.training.trainer import Trainer

__all__ = ["Placement", "Trainer", "load_checkpoint", "save_checkpoint", "select_device"]
