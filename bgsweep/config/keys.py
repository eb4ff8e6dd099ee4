"""Dotted keys of an experiment: which exist, and which values they take."""

from typing import Any, get_args

from bgsweep.config.experiment import STEPS, Experiment
from bgsweep.config.messages import keys_of, unknown_key


def check_known(key: str) -> None:
    """Raise `ValueError` for a dotted key that does not exist, or that is a section."""
    if key.startswith(STEPS):  # `check_step`, which needs the experiment
        return
    model: Any = Experiment
    for depth, part in enumerate(key.split(".")):
        known = keys_of(model)
        if part not in known:
            raise ValueError(unknown_key("space." + ".".join(key.split(".")[: depth + 1]), part, known))
        model = known[part]
    if keys_of(model) and not _takes_values(model):
        raise ValueError(
            f"space.{key}: a section, not a single value; name one of its keys: {', '.join(keys_of(model))}"
        )


def check_step(key: str, experiment: Experiment) -> None:
    """Raise `ValueError` for a key below `views.albumentations` whose transform the experiment does not have."""
    transform = key.rpartition(".")[0]
    if key.startswith(STEPS):
        try:
            found = experiment.value(transform)
        except KeyError:
            found = None
        if not isinstance(found, dict) or transform == STEPS.rstrip("."):
            raise ValueError(
                f"space.{key}: experiment.{transform} names no single transform; write {STEPS}TRANSFORM.ARGUMENT, or "
                f"{STEPS}NUMBER.TRANSFORM.ARGUMENT, with the number (from 0) of its list or, if there are two, its own"
            )


def _takes_values(annotation: Any) -> bool:
    """True for a section that plain values may replace, such as a schedule of a probability."""
    if get_args(annotation):
        return any(map(_takes_values, get_args(annotation)))
    return annotation is float


def is_whole(key: str) -> bool:
    """True if a key takes whole numbers only."""
    model: Any = Experiment
    for part in key.split("."):
        model = keys_of(model).get(part)
    kinds = {model, *get_args(model)}
    return int in kinds and float not in kinds
