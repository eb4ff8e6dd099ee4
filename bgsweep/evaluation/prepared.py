"""An evaluator that has opened its sets and can be run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bgsweep.evaluation.subject import Yields


@dataclass(frozen=True)
class Prepared:
    """`measure` yields the values; `protocol`, asked afterwards, says how they were measured."""

    measure: Callable[[], Yields]
    protocol: Callable[[], dict[str, Any]]
