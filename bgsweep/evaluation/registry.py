"""Evaluators by name, and suites of them. A new evaluator is a file in `evaluators/` and a line in `EVALUATORS`."""

from collections.abc import Callable, Sequence

from pydantic import ValidationError

from bgsweep.config import plugins
from bgsweep.config.messages import reason
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import Evaluator, EvaluatorClass, Result
from bgsweep.evaluation.evaluators import (
    adversarial,
    autoattack,
    backgrounds,
    detection,
    few_labels,
    fine_tuning,
    groups,
    imagenet9,
    imagenet_c,
    imagenet_variants,
    knn,
    linear,
    linear_published,
    shape_bias,
)

EvaluatorFactory = Callable[[EvalContext], Evaluator]

EVALUATORS: dict[str, EvaluatorFactory] = {
    **knn.EVALUATORS,
    **linear.EVALUATORS,
    **backgrounds.EVALUATORS,
    **linear_published.EVALUATORS,
    **few_labels.EVALUATORS,
    **fine_tuning.EVALUATORS,
    **imagenet9.EVALUATORS,
    **imagenet_variants.EVALUATORS,
    **imagenet_c.EVALUATORS,
    **shape_bias.EVALUATORS,
    **groups.EVALUATORS,
    **adversarial.EVALUATORS,
    **autoattack.EVALUATORS,
    **detection.EVALUATORS,
}
SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("knn", "linear", "backgrounds"),
    # The paper's abstracts name none of those left out; two of them need another package and take days on large sets.
    "paper": tuple(name for name in EVALUATORS if name not in ("autoattack", "detection", "groups")),
}


def evaluator_names(suite: str) -> list[str]:
    """Names of the evaluators in a suite, or in a list of names with commas.

    Raises:
        UserError: no evaluator has such a name.
    """
    names: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in suite.split(","))):
        if name not in SUITES and name not in EVALUATORS:
            _of_another_package(name)
        names |= dict.fromkeys(SUITES.get(name, (name,)))
    if not names:
        raise UserError(f"--suite: name one or more of: {', '.join((*SUITES, *EVALUATORS))}")
    return list(names)


def _of_another_package(name: str) -> type[EvaluatorClass]:
    if ":" not in name and name not in (there := plugins.offered(plugins.EVALUATORS).names):
        raise UserError(
            f"--suite: no evaluator {name!r}; there are: {', '.join((*SUITES, *EVALUATORS, *sorted(there)))}"
        )
    found: type[EvaluatorClass] = plugins.find(plugins.EVALUATORS, name, EvaluatorClass)
    return found


def open_evaluator(name: str, context: EvalContext) -> Evaluator:
    """An evaluator by name, with all that it needs.

    Raises:
        UserError: something is missing, or its settings are wrong.
    """
    if name in EVALUATORS:
        return EVALUATORS[name](context)
    kind = _of_another_package(name)
    try:
        settings = kind.Settings.model_validate(context.config.plugins.get(name, {}))
    except ValidationError as error:
        raise UserError(f"plugins.{name}.{reason(error, kind.Settings)}") from error
    made = kind(context, settings)
    return Evaluator(made.measure, made.protocol)


def open_evaluators(context: EvalContext, names: Sequence[str]) -> dict[str, Evaluator]:
    """Evaluators by name, in that order, each with all that it needs.

    Raises:
        UserError: a line for each evaluator that cannot run.
    """
    opened, wrong = {}, []
    for name in names:
        try:
            opened[name] = open_evaluator(name, context)
        except UserError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise UserError("\n".join(dict.fromkeys(wrong)))
    return opened


def run_evaluators(context: EvalContext, names: Sequence[str]) -> list[Result]:
    """Open all evaluators, then measure; raises as `open_evaluators`, and what an evaluator raises."""
    return [evaluator.run(name) for name, evaluator in open_evaluators(context, names).items()]
