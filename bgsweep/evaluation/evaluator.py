"""An evaluator that has opened its sets and can be run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bgsweep.evaluation.datasets.listing import Listing
from bgsweep.evaluation.frozen_model import Yields


@dataclass(frozen=True)
class Evaluator:
    """`measure` yields the values; `protocol`, asked afterwards, says how they were measured.

    `pictures` are the published ones that they are of; where there are none, it is the user's test photographs.
    """

    measure: Callable[[], Yields]
    protocol: Callable[[], dict[str, Any]]
    pictures: Sequence[Listing] = ()
