"""A suite of evaluators on one encoder: each result is kept when its evaluator ends, and a failure ends no other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from bgsweep import __version__
from bgsweep.errors import UnreadableImage, UserError, one_line
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import Evaluator, Result
from bgsweep.evaluation.feature_cache import NO_PIXELS, identity
from bgsweep.evaluation.kept import KeptValues, key_of, network_digest
from bgsweep.evaluation.registry import EVALUATORS
from bgsweep.storage.hashing import digest_of_states

_FORMAT = 1  # of results: raised when an evaluator measures something else under the same settings
# Settings of which no value depends.
_NO_VALUES = {"device", "workers", "threads", "bootstrap", "plugins"}


class KeptResults:
    """Results of one encoder's evaluators by their settings, images and files, in a folder.

    Those of evaluators of other packages are not kept, since nothing here tells when their code changes.

    Args:
        folder: the encoder's; None keeps nothing.
    """

    def __init__(self, folder: Path | None, context: EvalContext) -> None:
        self.folder: Path | None = None
        if folder is not None:
            self.folder = folder / _key_of_suite(context)
            self._values = KeptValues(self.folder)

    def read(self, name: str, evaluator: Evaluator) -> Result | None:
        """The result of an evaluator in an earlier call."""
        if self.folder is None or name not in EVALUATORS or not (kept := self._values.read(_file(name, evaluator))):
            return None
        values, record = kept
        return Result(name, tuple(values), record["protocol"], evaluator.listings, record["at"])

    def write(self, result: Result, evaluator: Evaluator) -> None:
        """Keep a result."""
        if self.folder is not None and result.evaluator in EVALUATORS:
            record = {"protocol": result.protocol, "at": result.at}
            self._values.write(_file(result.evaluator, evaluator), result.values, record)


def _file(name: str, evaluator: Evaluator) -> str:
    of = [[one.name, one.digest(), digest_of_states(one.paths)] for one in evaluator.listings]
    return f"{name}-{key_of(of=of)}"


def _key_of_suite(context: EvalContext) -> str:
    config, splits, head = context.config, context.splits, context.model.head
    settings = config.model_dump(mode="json", exclude={**dict.fromkeys(_NO_VALUES, True), "data": NO_PIXELS})
    files = [
        Path(file) for each in (config.sets, config.few_labels, config.groups) for file in _paths(each.model_dump())
    ]
    return key_of(
        settings=settings,
        files=digest_of_states(files),
        images=None if splits is None else [identity(each) for each in (splits.train, splits.test)],
        head=network_digest(head) if isinstance(head, nn.Module) else None,
        versions=[__version__, np.__version__, _FORMAT],
    )


def _paths(settings: Mapping[str, Any]) -> list[str]:
    return [each for each in settings.values() if isinstance(each, str)]


@dataclass
class SuiteResults:
    """Results in the suite's order, and for each evaluator that failed the reason in one line."""

    results: list[Result] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_suite(
    opened: Mapping[str, Evaluator],
    kept: KeptResults,
    say: Callable[[str], None] = lambda line: None,
    ended: Callable[[Result], None] = lambda result: None,
) -> SuiteResults:
    """Measure what is not kept, one evaluator after the other.

    Args:
        ended: called with each result as soon as it is there, whether measured now or by an earlier call.

    Raises:
        UnreadableImage: one of the user's images was deleted meanwhile.
    """
    found = SuiteResults()
    for number, (name, evaluator) in enumerate(opened.items(), start=1):
        result = kept.read(name, evaluator)
        again = result is not None
        say(f"{name} ({number} of {len(opened)}){', measured by an earlier call' if again else ''}")
        try:
            result = result or evaluator.run(name)
        except UnreadableImage:
            raise
        except UserError as error:
            found.failed[name] = str(error)
        except Exception as error:  # whatever a network or an evaluator raises: the others are worth having
            found.failed[name] = f"{type(error).__name__}: {one_line(error)}"
        if result is None:
            say(f"{name} failed: {found.failed[name]}")
            continue
        if not again:
            kept.write(result, evaluator)
        found.results.append(result)
        ended(result)
    return found
