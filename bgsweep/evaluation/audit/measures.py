"""The measures of an audit, in the page's order. A new one is a file in this folder and a line here."""

from collections.abc import Callable, Sequence
from time import perf_counter, time

from bgsweep.errors import UserError, one_line
from bgsweep.evaluation.audit import (
    attention,
    attribution,
    backgrounds,
    composites,
    foreground_map,
    groups,
    neighbours,
    noise,
    placement,
    watermark,
)
from bgsweep.evaluation.audit.measure import Measure, NotApplicable
from bgsweep.evaluation.audit.outcome import KeptOutcomes, Outcome
from bgsweep.evaluation.audit.subject import Subject

MEASURES: tuple[Measure, ...] = (
    backgrounds.MEASURE,
    composites.MEASURE,
    groups.MEASURE,
    noise.MEASURE,
    placement.MEASURE,
    watermark.MEASURE,
    attribution.MEASURE,
    attention.MEASURE,
    foreground_map.MEASURE,
    neighbours.MEASURE,
)


def run_measures(
    subject: Subject,
    measures: Sequence[Measure],
    kept: KeptOutcomes,
    measured: Callable[[Measure, Outcome], None] = lambda measure, outcome: None,
) -> dict[str, Outcome]:
    """Outcomes of all measures by name; what is kept is not measured again, and each is kept when it ends.

    A measure that fails ends no other.

    Args:
        measured: called with each outcome as soon as it is there, whether measured now or kept.
    """
    outcomes = {}
    for measure in measures:
        outcome = kept.read(measure.name)
        if outcome is None:
            outcome = _run(measure, subject)
            kept.write(measure.name, outcome)
        outcomes[measure.name] = outcome
        measured(measure, outcome)
    return outcomes


def _run(measure: Measure, subject: Subject) -> Outcome:
    if measure.labels and not subject.labelled:
        return Outcome("not applicable", reason="it needs images in class folders")
    began = perf_counter()
    try:
        found = measure.run(subject)
    except NotApplicable as reason:
        return Outcome("not applicable", reason=str(reason))
    except UserError as error:
        return Outcome("failed", reason=str(error))
    except Exception as error:  # any error of a network that we do not know: the other measures are worth having
        return Outcome("failed", reason=f"{type(error).__name__}: {one_line(error)}")
    return Outcome("measured", found, seconds=perf_counter() - began, at=int(time() * 1000))
