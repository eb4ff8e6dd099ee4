"""Searchers, one file each; `bgsweep.config.search.SEARCHERS` has their names."""

import pkgutil

from bgsweep.config import SweepConfig
from bgsweep.config.search import SEARCHERS
from bgsweep.sweep.searchers.base import TrialSearcher

__all__ = ["TrialSearcher", "searcher_class"]


def searcher_class(config: SweepConfig) -> type[TrialSearcher]:
    """The class that `search.algorithm` names."""
    found: type[TrialSearcher] = pkgutil.resolve_name(SEARCHERS[config.search.algorithm].path)
    return found
