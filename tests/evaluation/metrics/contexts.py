"""Contexts of an online evaluation by any encoder."""

from bgsweep.config import SuiteConfig
from bgsweep.data import Splits
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.features import Encode
from tests.evaluation.conftest import colours
from tests.evaluation.subjects import model_of


def context(splits: Splits, encode: Encode = colours) -> EvalContext:
    return EvalContext(model_of(encode), SuiteConfig(size=32), splits, split="validation")
