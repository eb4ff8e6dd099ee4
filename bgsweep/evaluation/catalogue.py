"""Evaluators by name. Each first opens its sets, so that all that is missing is said before anything runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bgsweep.errors import UserError
from bgsweep.evaluation import (
    attacks,
    autoattack,
    corruptions,
    detection,
    few_labels,
    fine_tuning,
    imagenet9,
    linear_protocols,
    probes,
    shape_bias,
    shifts,
)
from bgsweep.evaluation.examination import Examination
from bgsweep.evaluation.listing import Listing
from bgsweep.evaluation.prepared import Prepared
from bgsweep.evaluation.subject import Measured

Evaluator = Callable[[Examination], Prepared]

EVALUATORS: dict[str, Evaluator] = {
    **probes.EVALUATORS,
    **linear_protocols.EVALUATORS,
    **few_labels.EVALUATORS,
    **fine_tuning.EVALUATORS,
    **imagenet9.EVALUATORS,
    **shifts.EVALUATORS,
    **corruptions.EVALUATORS,
    **shape_bias.EVALUATORS,
    **attacks.EVALUATORS,
    **autoattack.EVALUATORS,
    **detection.EVALUATORS,
}
SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("knn", "linear", "backgrounds"),
    # The abstracts name neither of the two left out, which take days on large sets and a package more.
    "paper": tuple(name for name in EVALUATORS if name not in ("autoattack", "detection")),
}


@dataclass(frozen=True)
class Result:
    """One evaluator's values, in their order, the protocol that they were measured by, and `Prepared.pictures`."""

    evaluator: str
    values: tuple[Measured, ...]
    protocol: dict[str, Any]
    pictures: Sequence[Listing] = ()


def names_of(suite: str) -> list[str]:
    """Evaluators that a suite's name, or a list of names with commas, stands for.

    Raises:
        UserError: no evaluator has such a name.
    """
    names: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in suite.split(","))):
        if name not in SUITES and name not in EVALUATORS:
            raise UserError(f"--suite: no evaluator {name!r}; there are: {', '.join((*SUITES, *EVALUATORS))}")
        names |= dict.fromkeys(SUITES.get(name, (name,)))
    if not names:
        raise UserError(f"--suite: name one or more of: {', '.join((*SUITES, *EVALUATORS))}")
    return list(names)


def examine(
    examination: Examination, names: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> list[Result]:
    """Open everything, then measure everything.

    Raises:
        UserError: a line for each evaluator that cannot run.
    """
    prepared, wrong = {}, []
    for name in names:
        try:
            prepared[name] = EVALUATORS[name](examination)
        except UserError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise UserError("\n".join(dict.fromkeys(wrong)))
    results = []
    for number, (name, one) in enumerate(prepared.items(), start=1):
        say(f"{name} ({number} of {len(prepared)})")
        values = tuple(one.measure())
        results.append(Result(name, values, one.protocol(), one.pictures))
    return results
