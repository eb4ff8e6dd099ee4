"""Evaluators by name. Each first opens its sets, so that all that is missing is said before anything runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.listing import Listing
from bgsweep.evaluation.evaluator import Evaluator
from bgsweep.evaluation.evaluators import (
    adversarial,
    autoattack,
    detection,
    few_labels,
    fine_tuning,
    imagenet9,
    imagenet_c,
    imagenet_variants,
    linear_published,
    probes,
    shape_bias,
)
from bgsweep.evaluation.frozen_model import PerImageMetric

EvaluatorFactory = Callable[[EvalContext], Evaluator]

EVALUATORS: dict[str, EvaluatorFactory] = {
    **probes.EVALUATORS,
    **linear_published.EVALUATORS,
    **few_labels.EVALUATORS,
    **fine_tuning.EVALUATORS,
    **imagenet9.EVALUATORS,
    **imagenet_variants.EVALUATORS,
    **imagenet_c.EVALUATORS,
    **shape_bias.EVALUATORS,
    **adversarial.EVALUATORS,
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
    """One evaluator's values, in their order, the protocol that they were measured by, and `Evaluator.pictures`."""

    evaluator: str
    values: tuple[PerImageMetric, ...]
    protocol: dict[str, Any]
    pictures: Sequence[Listing] = ()


def evaluator_names(suite: str) -> list[str]:
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


def run_evaluators(
    examination: EvalContext, names: Sequence[str], say: Callable[[str], None] = lambda line: None
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
