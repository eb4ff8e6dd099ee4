"""bgsweep: self-supervised pretraining with background augmentations, and the search for their strength."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgsweep.api import evaluate as evaluate
    from bgsweep.api import export as export
    from bgsweep.api import load as load
    from bgsweep.api import load_config as load_config
    from bgsweep.api import pretrain as pretrain
    from bgsweep.api import resume as resume
    from bgsweep.api import runs as runs
    from bgsweep.config import Experiment as Experiment
    from bgsweep.config import SweepConfig as SweepConfig
    from bgsweep.errors import UserError as UserError

    Sweep = SweepConfig

# Albumentations looks for a newer version of itself on the network when it is imported; a cluster node may have none.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Damaged files are named by bgsweep itself, in one line each; OpenCV's own words would stand in between.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

__version__ = "0.1.0"

_ELSEWHERE = {
    **dict.fromkeys(("evaluate", "export", "load", "load_config", "pretrain", "resume", "runs"), "bgsweep.api"),
    **dict.fromkeys(("Experiment", "Sweep", "SweepConfig"), "bgsweep.config"),
    "UserError": "bgsweep.errors",
    "sweep": "bgsweep.sweep",  # a package that can be called: see its __init__
}
"""Module of each public name; no ``__all__``, whose names pdoc would look for in this file."""


def __getattr__(name: str) -> Any:
    """The public interface, imported on first use: `import bgsweep` must not wait for what it needs."""
    if name not in _ELSEWHERE:
        raise AttributeError(f"module 'bgsweep' has no attribute {name!r}; there are: {', '.join(sorted(_ELSEWHERE))}")
    module = importlib.import_module(_ELSEWHERE[name])
    return module if name == "sweep" else getattr(module, "SweepConfig" if name == "Sweep" else name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ELSEWHERE])
