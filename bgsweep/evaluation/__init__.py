"""An encoder in, named values out."""

from bgsweep.evaluation.bench import Bench
from bgsweep.evaluation.features import Encode, Features, extract
from bgsweep.evaluation.suite import Report, check, final, online, variant_sheet
from bgsweep.evaluation.variants import VariantSet

__all__ = [
    "Bench",
    "Encode",
    "Features",
    "Report",
    "VariantSet",
    "check",
    "extract",
    "final",
    "online",
    "variant_sheet",
]
