"""bgsweep: self-supervised pretraining with background augmentations, and the search for their strength."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgsweep.api import evaluate, load, load_config, pretrain, resume, runs
    from bgsweep.config import Experiment, SweepConfig
    from bgsweep.config import SweepConfig as Sweep
    from bgsweep.errors import UserError

# Albumentations looks for a newer version of itself on the network when it is imported; a cluster node may have none.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Damaged files are named by bgsweep itself, in one line each; OpenCV's own words would stand in between.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

__version__ = "0.1.0"

__all__ = [
    "Experiment",
    "Sweep",
    "SweepConfig",
    "UserError",
    "evaluate",
    "load",
    "load_config",
    "pretrain",
    "resume",
    "runs",
    "sweep",
]

_ELSEWHERE = {
    "Experiment": "bgsweep.config:Experiment",
    "Sweep": "bgsweep.config:SweepConfig",
    "SweepConfig": "bgsweep.config:SweepConfig",
    "UserError": "bgsweep.errors:UserError",
    "sweep": "bgsweep.sweep:",  # a package that can be called: see its __init__
}


def __getattr__(name: str) -> Any:
    """The public interface, imported on first use: `import bgsweep` must not wait for what it needs."""
    if name not in __all__:
        raise AttributeError(f"module 'bgsweep' has no attribute {name!r}; there are: {', '.join(__all__)}")
    module, _, attribute = _ELSEWHERE.get(name, f"bgsweep.api:{name}").partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
