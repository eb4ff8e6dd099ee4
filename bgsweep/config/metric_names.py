"""Metric names: `<split>/<evaluator>/<value>`, such as `validation/knn/top1` and `test/linear/bg_gap`.

The split comes first, because the same evaluators measure both: a value that a search chose by (validation) is never
taken for one of images that it has not seen (test). MLflow's pages group metrics by what is before the last slash, so
that all values of an evaluator on a split are side by side. What training itself measures (`loss`) has no evaluator
and keeps its plain name.

For one release MLflow and `--json` have every metric under its earlier name, too, and `search.metric` takes both.
Journals and checkpoints keep the earlier names, so that every version reads them.
"""

import re
from collections.abc import Mapping

RENAMED = {
    "knn_top1": "validation/knn/top1",
    "mixed_same": "validation/knn/mixed_same",
    "mixed_rand": "validation/knn/mixed_rand",
    "bg_gap": "validation/knn/bg_gap",
    "test/knn_top1": "test/knn/top1",
    "test/linear_top1": "test/linear/top1",
    # Tags of registered versions:
    "test_knn_top1": "test/knn/top1",
    "test_linear_top1": "test/linear/top1",
    "test_bg_gap": "test/knn/bg_gap",
}
"""Names of runs' metrics: earlier -> present."""

_SUFFIX = re.compile(r"(.+?)(_se|/seed_\d+)?")  # of a trial with several seeds


def metric_name(evaluator: str, value: str, split: str = "test") -> str:
    """The name of a value that an evaluator of `bgsweep evaluate` yields.

    A value with a slash says itself what it is measured by: `knn/bg_gap` of `backgrounds` is `test/knn/bg_gap`.
    """
    if "/" in value:
        return f"{split}/{value}"
    # The published settings of kNN yield `knn_top1` as well.
    return f"{split}/{evaluator}/{value.removeprefix(f'{evaluator}_').removeprefix('knn_')}"


def trial_name(name: str) -> str:
    """The name in journals of a metric of the online evaluation, which is given by either name."""
    return next((old for old, new in RENAMED.items() if new == name and new.startswith("validation/")), name)


def shown_name(name: str) -> str:
    """The present name of a run's metric."""
    return RENAMED.get(name, name)


def validated(name: str) -> bool:
    """True for a value that was measured on the validation split, such as ``knn_top1`` and ``bg_gap_se``."""
    base = _SUFFIX.fullmatch(name).group(1)  # type: ignore[union-attr]  # any name but "" matches
    return shown_name(base).startswith("validation/")


def with_new_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """A run's metrics under their earlier names, as given, and their present ones."""
    found = dict(metrics)
    for name, value in metrics.items():
        base, suffix = _SUFFIX.fullmatch(name).groups()  # type: ignore[union-attr]  # any name but "" matches
        if base in RENAMED:
            found[RENAMED[base] + (suffix or "")] = value
    return found
