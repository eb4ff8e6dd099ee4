"""Review of a valid file: settings that contradict one another, or that have no effect."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from bgsweep.config.base import Section
from bgsweep.config.metric_names import shown_name
from bgsweep.config.metrics import Mode
from bgsweep.config.search import Search, exhaustive
from bgsweep.config.sweep import SweepConfig
from bgsweep.errors import UserError

_log = logging.getLogger(__name__)


class _Rule(NamedTuple):
    """A key that has an effect only if one of some other keys has a fitting value."""

    key: str
    needs: tuple[str, ...]
    fits: Callable[[Any], bool]
    words: str


def _positive(value: Any) -> bool:
    if isinstance(value, dict):  # a schedule
        return _positive(value["from"]) or _positive(value["to"])
    # None is a limit that is not set.
    return value is not None and bool((max(value) if isinstance(value, tuple | list) else value) > 0)


def _draws(algorithm: str) -> bool:
    return not exhaustive(algorithm)


_AUGMENTED = ("background.remove", "background.random", "background.swap")

_EXPERIMENT = (
    _Rule("background.fill", ("background.remove",), _positive, "background.remove is 0"),
    _Rule("background.donor", ("background.random", "background.swap"), _positive, "background.random is 0"),
    *(
        _Rule(f"background.{name}", ("background.swap",), _positive, "background.swap is 0")
        for name in ("swap_form", "swap_negative")
    ),
    *(
        _Rule(f"background.{name}", _AUGMENTED, _positive, "there is no background augmentation")
        for name in ("foreground_scale", "foreground_position", "blend", "mask_blur")
    ),
    _Rule("background.min_area", _AUGMENTED, _positive, "there is no background augmentation"),
    _Rule("background.max_area", _AUGMENTED, _positive, "there is no background augmentation"),
    _Rule("background.most_kept", _AUGMENTED, _positive, "there is no background augmentation"),
    _Rule("background.apply_to", ("views.small_crops",), _positive, "views.small_crops is 0"),
    _Rule("views.small_size", ("views.small_crops",), _positive, "views.small_crops is 0"),
    _Rule("views.small_scale", ("views.small_crops",), _positive, "views.small_crops is 0"),
    _Rule("views.jitter", ("views.jitter_p",), _positive, "views.jitter_p is 0"),
    _Rule("views.blur_sigma", ("views.blur",), _positive, "views.blur is 0"),
    *(
        _Rule(
            f"views.{name}",
            ("views.albumentations",),
            (lambda steps: steps is None),
            "views.albumentations replaces it",
        )
        for name in ("jitter", "jitter_p", "gray", "blur", "blur_sigma", "solarize", "color")
    ),
    _Rule("data.holdout", ("data.validation", "data.test"), lambda split: split is None, "all splits are named"),
    _Rule("data.pack_cache_gb", ("data.pack",), lambda pack: "://" in (pack or ""), "data.pack is not a URI"),
    _Rule("optimizer.trust", ("optimizer.name",), "lars".__eq__, "only lars has it"),
    _Rule("optimizer.betas", ("optimizer.name",), "adamw".__eq__, "only adamw has it"),
    _Rule("optimizer.momentum", ("optimizer.name",), "adamw".__ne__, "adamw takes betas"),
    _Rule("optimizer.clip_each", ("optimizer.clip_norm",), _positive, "optimizer.clip_norm is not set"),
    _Rule("workers.gpus", ("workers.device",), "cpu".__ne__, "workers.device is cpu"),
    _Rule("method.queue_start", ("method.queue_size",), _positive, "method.queue_size is 0"),
)

_SEARCH = (
    _Rule("search.reduction", ("search.scheduler",), "asha".__eq__, "search.scheduler is not asha"),
    _Rule("search.perturb_epochs", ("search.scheduler",), "pbt".__eq__, "search.scheduler is not pbt"),
    _Rule("search.grace_epochs", ("search.stops_early",), bool, "nothing stops trials early"),
    _Rule("search.seed", ("search.algorithm",), _draws, "a grid draws nothing"),
    _Rule("search.trials", ("search.algorithm",), _draws, "the grid decides how many there are"),
    _Rule("search.gpus", ("workers.count",), (1).__eq__, "trials of several workers take workers.gpus"),
    _Rule("search.gpus", ("workers.device",), "cpu".__ne__, "workers.device is cpu"),
)


def review(config: SweepConfig) -> None:
    """Warn of settings of the experiment that have no effect."""
    for line in _without_effect(config, _EXPERIMENT):
        _log.warning("%s", line)


def review_search(config: SweepConfig) -> None:
    """As `review`, for the whole config; also refuse a search that makes no sense.

    Raises:
        UserError: the search makes no sense.
    """
    if reason := next(_contradictions(config), None):
        raise UserError(reason)
    for line in (*_without_effect(config, _EXPERIMENT + _SEARCH), *_doubtful(config)):
        _log.warning("%s", line)


def _without_effect(config: SweepConfig, rules: Iterable[_Rule]) -> Iterator[str]:
    for rule in rules:
        section, _, leaf = rule.key.partition(".")
        owner: Section = getattr(config if section == "search" else config.experiment, section)
        if leaf not in type(owner).model_fields:
            continue
        searched = rule.key in config.space.parameters
        if not searched and getattr(owner, leaf) == type(owner).model_fields[leaf].default:
            continue
        if not any(rule.fits(value) for need in rule.needs for value in _possible(config, need)):
            yield f"{'space.' if searched else ''}{rule.key} has no effect: {rule.words}"


def _possible(config: SweepConfig, key: str) -> Iterator[Any]:
    """Values of a key in the experiment or in a trial."""
    section, _, leaf = key.partition(".")
    if section == "search":
        yield getattr(config.search, leaf)
        return
    if config.experiment.has(key):
        yield config.experiment.value(key)
    for name in (key, f"{key}.from", f"{key}.to"):
        for distribution in config.space.parameters.get(name, ()):
            yield from distribution.extremes()


def _contradictions(config: SweepConfig) -> Iterator[str]:
    """Settings that are certainly a mistake, each with a fix."""
    search, experiment = config.search, config.experiment
    proposed = search.trials - search.baseline - len(config.space.points)
    if not search.exhaustive and combinations(config) == 1 and proposed > 1:
        what = "nothing is searched" if not config.space.parameters else "every searched key has one value only"
        yield (
            f"space: {what}, so that {proposed} trials would be the same; name keys to search, such as `space: "
            "{background.remove: {uniform: [0, 0.5]}}`, or train the experiment once by `bgsweep pretrain`"
        )
    for metric, mode in _against(search):
        if metric in ("loss", "knn_top1"):
            extreme = "lowest" if mode == "min" else "highest"
            yield f"search.mode: the best {shown_name(metric)} is the {extreme}; set it to {mode}, or leave it out"
    if experiment.workers.device == "cuda" and experiment.workers.count == 1 and search.gpus == 0:
        yield "search.gpus: 0 gives trials no GPU, and workers.device asks for cuda; leave it out"


def _doubtful(config: SweepConfig) -> Iterator[str]:
    """Settings that are probably a mistake."""
    if config.search.stops_early and config.search.grace_epochs > config.experiment.training.epochs:
        yield (
            f"search.grace_epochs: {config.search.grace_epochs} is above training.epochs "
            f"{config.experiment.training.epochs}, so that no trial is stopped early"
        )
    search, epochs = config.search, config.experiment.training.epochs
    if search.stops_early and config.evaluate.every >= epochs > 1 and search.metrics != ("loss",):
        yield (
            f"search.scheduler: {search.scheduler} stops no trial: evaluate.every {config.evaluate.every} leaves one "
            f"evaluation, at the end of {epochs} epochs"
        )
    if config.experiment.optimizer.warmup_epochs >= epochs:
        yield (
            f"optimizer.warmup_epochs: {config.experiment.optimizer.warmup_epochs:g} is not below training.epochs "
            f"{epochs}, so that training ends before the rate has reached optimizer.lr"
        )
    if not search.exhaustive and (missing := search.baseline + len(config.space.points) - search.trials) > 0:
        yield f"search.trials: {search.trials} leaves out {missing} of space.points"
    count = combinations(config)
    if 1 < count < (proposed := search.trials - search.baseline) and not search.exhaustive:
        yield (
            f"search.trials: the space has {count:g} combinations for {proposed} trials, so that some are trained more "
            "than once; search.algorithm: grid takes each once"
        )
    for metric, mode in _against(search):
        if metric not in ("loss", "knn_top1"):
            extreme = "highest" if mode == "min" else "lowest"
            yield f"search.mode: trials with the {extreme} {shown_name(metric)} win, which is the worst"


def _against(search: Search) -> list[tuple[str, Mode]]:
    """The metrics of which the worst values win, with the direction that is better."""
    return [(goal.name, goal.mode) for goal in search.goals if (search.signs[goal.name] > 0) != (goal.mode == "max")]


def combinations(config: SweepConfig) -> float:
    """Number of different trials in the space, counting dependent keys as if they always applied."""
    options = [config.space.all(key) for key in config.space.parameters]
    if any(each.bounds for each in config.space.distributions()):
        return math.inf
    return math.prod(len({repr(option) for option in each}) for each in options)
