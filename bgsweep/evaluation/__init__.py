"""Evaluators: from a frozen encoder to named values."""

from bgsweep.evaluation.contact_sheet import variant_sheet
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.evaluation.feature_cache import FeatureCache
from bgsweep.evaluation.features import Encode, Features, extract
from bgsweep.evaluation.online import Report, check, final, online
from bgsweep.evaluation.ranks import Ranks

__all__ = [
    "Encode",
    "FeatureCache",
    "Features",
    "Ranks",
    "Report",
    "VariantSet",
    "check",
    "extract",
    "final",
    "online",
    "variant_sheet",
]
