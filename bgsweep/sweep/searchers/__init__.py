"""Searchers, one file each; `bgsweep.config.search.SEARCHERS` has their names."""

import pkgutil

from bgsweep.config import SweepConfig
from bgsweep.config.search import SEARCHERS, searcher_of_another_package
from bgsweep.sweep.searchers.base import TrialSearcher

__all__ = ["TrialSearcher", "searcher_class"]


def searcher_class(config: SweepConfig) -> type[TrialSearcher]:
    """The class that `search.algorithm` names."""
    name = config.search.algorithm
    if name not in SEARCHERS:
        return searcher_of_another_package(name)  # type: ignore[no-any-return]
    found: type[TrialSearcher] = pkgutil.resolve_name(SEARCHERS[name].path)
    return found
