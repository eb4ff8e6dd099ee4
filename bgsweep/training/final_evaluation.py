"""The evaluation of a trained encoder on the test split, and the check before a sweep that it will be possible."""

import torch

from bgsweep.config import SuiteConfig, SweepConfig
from bgsweep.config.metric_names import shown_name
from bgsweep.config.metrics import section_of
from bgsweep.data import Splits, open_splits
from bgsweep.errors import UserError, warn_once
from bgsweep.evaluation import Report, VariantSet, check, final
from bgsweep.evaluation.context import EvalContext, Workers
from bgsweep.training.checkpoint import TrainedEncoder
from bgsweep.training.encode import frozen_model

_LOOKED_AT = 5000  # test images take less than a minute; larger sets are checked by the evaluation itself


def evaluate_final(
    config: SweepConfig,
    trained: TrainedEncoder,
    splits: Splits | None = None,
    workers: Workers | None = None,
    on_cpu: bool = False,
) -> Report:
    """The final evaluation of an encoder, on the split that no search has seen.

    Args:
        splits: None: those of the config's experiment, whose images may have moved since the training.
        workers: processes, each with a context of `final_context`, that encode large sets.
        on_cpu: leave GPUs alone.
    """
    return final(final_context(config, trained, splits, workers, on_cpu))


def final_context(
    config: SweepConfig,
    trained: TrainedEncoder,
    splits: Splits | None = None,
    workers: Workers | None = None,
    on_cpu: bool = False,
) -> EvalContext:
    """The context of `evaluate_final`, on this process's GPU, if it has one and the config may use it."""
    wanted = "cpu" if on_cpu else config.experiment.workers.device
    found = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not found:
        warn_once("workers.device: cuda, but torch finds no GPU here; the evaluation runs on the CPU")
    device = torch.device("cuda" if found else "cpu")
    suite = SuiteConfig(evaluate=config.measured, size=trained.experiment.views.size)
    cores = torch.get_num_threads()
    return EvalContext(
        frozen_model(trained.encoder.to(device), device),
        suite,
        splits or open_splits(config.experiment.data),
        workers,
        threads=cores if cores > 1 else 0,
    )


def check_final(config: SweepConfig, splits: Splits | None = None) -> None:
    """Check before a sweep's first trial that `evaluate_final` will be able to run after its last.

    Args:
        splits: None: those of the config's experiment.

    Raises:
        UserError: there are no classes and trials are compared by accuracy, or the test images or their masks cannot be
            used.
    """
    splits = splits or open_splits(config.experiment.data)
    if not splits.train.classes:
        _check_unlabelled(config, splits.train.name)
    check(splits, config.measured)
    test = splits.test
    if test.has_masks and len(test) <= _LOOKED_AT and len(set(test.labels.tolist())) > 1:
        VariantSet(test, splits.pools("test"), config.evaluate, config.experiment.views.size)


def _check_unlabelled(config: SweepConfig, name: str) -> None:
    """Require metrics that need no classes."""
    parts = [goal.part for goal in config.search.goals]
    needing = [goal.name for goal in config.search.goals if goal.part and section_of(goal.part).needs_classes]
    if needing:
        raise UserError(
            f"{name}: search.metric {shown_name(needing[0])} needs images in class folders; without classes compare "
            "trials by another one, such as rotation or, with masks, [swap_lidar, bg_share] (docs/metrics.md)"
        )
    if not any(parts) and not config.evaluate.metrics:
        raise UserError(
            f"{name}: without class folders nothing can be measured on the test split by search.metric alone; name "
            "evaluate.metrics, such as [rankme] (docs/metrics.md)"
        )
