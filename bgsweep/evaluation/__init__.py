"""Evaluators: from a frozen encoder to named values."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgsweep.evaluation.contact_sheet import variant_sheet as variant_sheet
    from bgsweep.evaluation.datasets.background_variants import VariantSet as VariantSet
    from bgsweep.evaluation.feature_cache import FeatureCache as FeatureCache
    from bgsweep.evaluation.features import Encode as Encode
    from bgsweep.evaluation.features import Features as Features
    from bgsweep.evaluation.features import extract as extract
    from bgsweep.evaluation.online import Report as Report
    from bgsweep.evaluation.online import check as check
    from bgsweep.evaluation.online import final as final
    from bgsweep.evaluation.ranks import Ranks as Ranks

_MODULES = {
    **{"Encode": "features", "Features": "features", "extract": "features", "FeatureCache": "feature_cache"},
    **{"Report": "online", "check": "online", "final": "online", "Ranks": "ranks"},
    **{"VariantSet": "datasets.background_variants", "variant_sheet": "contact_sheet"},
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a report needs a few, and none that needs torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
