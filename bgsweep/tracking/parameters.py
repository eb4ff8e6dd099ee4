"""Settings of an experiment as parameters of MLflow's runs and models."""

import json
from collections.abc import Mapping
from typing import Any

from bgsweep.config import Experiment
from bgsweep.config.base import dotted

KEY_PARAMETERS = (
    *("seed", "data.images", "method.name", "encoder.name", "training.epochs", "training.batch_size", "optimizer.lr"),
    *("background.remove", "background.random", "background.swap"),
)
"""Keys of an experiment that a trial's run always has as parameters, beside those that are searched."""

_LENGTH = 6000  # MLflow's limit


def shown_parameters(experiment: Experiment, searched: Mapping[str, Any]) -> dict[str, Any]:
    """`KEY_PARAMETERS` of an experiment and its searched values, under dotted keys."""
    keys = {*KEY_PARAMETERS, *searched}
    whole = dotted(experiment.model_dump(mode="json"))
    found = {key: value for key, value in whole.items() if any(f"{key}.".startswith(f"{one}.") for one in keys)}
    # Values that cannot be trained are in no experiment.
    return found | {
        key: value for key, value in searched.items() if not experiment.has(key) or experiment.value(key) != value
    }


def parameter_texts(tree: Mapping[str, Any]) -> dict[str, str]:
    """Settings as MLflow's parameters: under dotted keys, and cut to the length that it accepts."""
    texts = {key: one if isinstance(one, str) else json.dumps(one) for key, one in dotted(tree).items()}
    return {key: text[:_LENGTH] for key, text in texts.items()}
