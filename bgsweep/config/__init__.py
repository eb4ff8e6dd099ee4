"""Configuration: typed, frozen sections read from YAML, validated once here and trusted by everything else."""

from bgsweep.config.data import Data, MaskNoise, Shortcut
from bgsweep.config.evaluation import (
    Attacks,
    Corruptions,
    Detection,
    Evaluate,
    EvaluationWorkers,
    FewLabels,
    Knn,
    Linear,
    Preprocessing,
    Register,
    Sets,
    SuiteConfig,
)
from bgsweep.config.experiment import Experiment
from bgsweep.config.load import image_columns, load, load_suite, mask_format, mask_training, resolve
from bgsweep.config.mask_format import MaskFormat
from bgsweep.config.masks import MaskTraining
from bgsweep.config.methods import (
    BYOLConfig,
    DINOConfig,
    MethodConfig,
    MoCoV2Config,
    SimCLRConfig,
    SupervisedConfig,
    SwAVConfig,
    VICRegConfig,
)
from bgsweep.config.metrics import METRICS
from bgsweep.config.review import review, review_search
from bgsweep.config.search import Budget, Search
from bgsweep.config.space import Distribution, Space
from bgsweep.config.sweep import SweepConfig
from bgsweep.config.training import Encoder, Optimizer, Training, Workers
from bgsweep.config.views import Background, Views

__all__ = [
    "METRICS",
    "Attacks",
    "BYOLConfig",
    "Background",
    "Budget",
    "Corruptions",
    "DINOConfig",
    "Data",
    "Detection",
    "Distribution",
    "Encoder",
    "Evaluate",
    "EvaluationWorkers",
    "Experiment",
    "FewLabels",
    "Knn",
    "Linear",
    "MaskFormat",
    "MaskNoise",
    "MaskTraining",
    "MethodConfig",
    "MoCoV2Config",
    "Optimizer",
    "Preprocessing",
    "Register",
    "Search",
    "Sets",
    "Shortcut",
    "SimCLRConfig",
    "Space",
    "SuiteConfig",
    "SupervisedConfig",
    "SwAVConfig",
    "SweepConfig",
    "Training",
    "VICRegConfig",
    "Views",
    "Workers",
    "image_columns",
    "load",
    "load_suite",
    "mask_format",
    "mask_training",
    "resolve",
    "review",
    "review_search",
]
