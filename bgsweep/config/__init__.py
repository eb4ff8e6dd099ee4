"""What a run is: typed, frozen sections read from YAML, validated once here, and trusted by everything further in."""

from bgsweep.config.evaluate import Evaluate, Knn, Linear, Register
from bgsweep.config.experiment import (
    Background,
    Data,
    Encoder,
    Experiment,
    MaskNoise,
    Optimizer,
    Shortcut,
    Training,
    Views,
    Workers,
)
from bgsweep.config.methods import BYOLConfig, MethodConfig, MoCoV2Config, SupervisedConfig, SwAVConfig
from bgsweep.config.search import Distribution, Search, Space
from bgsweep.config.study import SweepFile, load, resolve

__all__ = [
    "BYOLConfig",
    "Background",
    "Data",
    "Distribution",
    "Encoder",
    "Evaluate",
    "Experiment",
    "Knn",
    "Linear",
    "MaskNoise",
    "MethodConfig",
    "MoCoV2Config",
    "Optimizer",
    "Register",
    "Search",
    "Shortcut",
    "Space",
    "SupervisedConfig",
    "SwAVConfig",
    "SweepFile",
    "Training",
    "Views",
    "Workers",
    "load",
    "resolve",
]
