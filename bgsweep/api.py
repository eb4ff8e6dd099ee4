"""bgsweep from Python; `import bgsweep` gives these functions, and the command line calls them."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgsweep.config import Experiment, SuiteConfig, SweepConfig, resolve, review
from bgsweep.config import load as _load_file
from bgsweep.storage.layout import checked_folder, checked_store

if TYPE_CHECKING:
    import pandas as pd

    from bgsweep.workflows.load_encoder import LoadedEncoder

Config = SweepConfig | Experiment | Mapping[str, Any] | str | Path
"""A configuration: typed, as plain sections (`{"experiment": …, "space": …}`), or the path of a YAML file."""

Store = str | Path | None
"""Folder of checkpoints and of the MLflow store, as `--store`; None: $BGSWEEP_STORE, else `bgsweep_runs`."""


def load_config(config: Config, overrides: Sequence[str] = (), *, searched: bool = True) -> SweepConfig:
    """Read and validate a configuration.

    Args:
        overrides: ``key=value`` texts, as on the command line: ``["background.remove=0.3", "search.trials=8"]``.
        searched: False ignores mistakes in `space` and `search`, which training a single experiment does not use.

    Raises:
        UserError: one line with the key, the allowed values and the one given.
    """
    if isinstance(config, str | Path):
        return _load_file(config, overrides, searched)
    if isinstance(config, Experiment):
        config = SweepConfig(experiment=config)
    tree = config.model_dump(mode="json", by_alias=True) if isinstance(config, SweepConfig) else config
    resolved = resolve(copy.deepcopy(dict(tree)), overrides, searched=searched)
    resolved.check_draws()
    return resolved


def pretrain(
    config: Config, overrides: Sequence[str] = (), *, store: Store = None, fresh: bool = False
) -> dict[str, Any]:
    """Train one experiment under an MLflow run; resume where an earlier call was interrupted.

    Args:
        overrides: as for `load_config`.
        fresh: start over, even if this experiment has a checkpoint.

    Returns:
        ``metrics`` of the last epoch, ``checkpoint``, ``run_id``, ``tracking_uri``, ``digest``.

    Raises:
        UserError: a mistake in the configuration or data, or resources that the machine lacks.
    """
    from bgsweep.workflows.pretrain import pretrain

    loaded = load_config(config, overrides, searched=False)
    review(loaded)
    return pretrain(loaded, checked_folder(store), fresh)


def sweep(
    config: Config, overrides: Sequence[str] = (), *, store: Store = None, name: str | None = None
) -> dict[str, Any]:
    """Search a configuration's space, evaluate the best trial beside the baseline, and register its encoder.

    Args:
        overrides: as for `load_config`.
        name: of the sweep; default: the configuration's with a time stamp.

    Returns:
        ``sweep``, ``tracking_uri``, ``run_page``, ``trials``, ``best``, ``baseline``, ``untrained``, ``model``; with
        several metrics also ``pareto``. All are plain values.

    Raises:
        UserError: a mistake in the configuration, the cluster is too small, or no trial was completed.
    """
    from bgsweep.sweep.driver import sweep

    return sweep(load_config(config, overrides), checked_store(store), name)


def resume(
    name: str, overrides: Sequence[str] = (), *, store: Store = None, retry_failed: bool = False
) -> dict[str, Any]:
    """Resume a sweep whose driver died, or repeat its final evaluation with other settings; returns as `sweep`.

    Args:
        retry_failed: trials that failed for good run again, from their last checkpoints.

    Raises:
        UserError: there is no such sweep, it is still running, or an override would change trials that have ended.
    """
    from bgsweep.sweep.driver import resume

    return resume(name, checked_store(store), overrides, retry_failed)


def evaluate(
    model: str | Path,
    suite: str = "quick",
    *,
    data: SuiteConfig | Mapping[str, Any] | str | Path | None = None,
    store: Store = None,
) -> dict[str, Any]:
    """Evaluate an encoder by a suite of protocols.

    Args:
        model: a checkpoint (file or folder), ``models:/NAME@ALIAS``, or what `bgsweep evaluate` takes.
        suite: ``quick``, ``paper``, or names of evaluators with commas.
        data: the suite's images and settings, typed, as plain sections or as a YAML file; None: the images that the
            model was trained on.

    Returns:
        ``model``, ``origin``, ``results`` (for each evaluator its ``values`` and ``protocol``), ``failed`` (for
        each evaluator that failed while others did not the reason), ``run_id``, ``tracking_uri``.

    Raises:
        UserError: the model cannot be loaded, or a set that the suite needs is missing.
    """
    from bgsweep.workflows.evaluate import evaluate

    return evaluate(str(model), suite, data, checked_folder(store))


def load(model: str | Path, *, size: int | None = None, store: Store = None) -> "LoadedEncoder":
    """Load an encoder as a torch module with its preprocessing, in eval mode on the CPU.

    Args:
        model: as for `evaluate`.
        size: side in pixels of the square images of its preprocessing; None: that of its training, else 224.

    Raises:
        UserError: there is no such model, or its weights do not fit the network.
    """
    from bgsweep.workflows.load_encoder import load_encoder

    return load_encoder(str(model), size, checked_folder(store))


def export(model: str | Path, to: str, folder: str | Path, *, store: Store = None) -> dict[str, Any]:
    """Write an encoder into a folder that other programs load, with its model card.

    Args:
        model: as for `evaluate`.
        to: ``torchvision`` or ``timm`` (a state dict under their names), ``safetensors``, ``onnx``, or ``hf`` (a folder
            for Hugging Face, which timm loads).
        folder: to write; it must not exist, or be empty.

    Returns:
        ``model``, ``to``, ``folder``, ``files``, ``load`` (lines of Python that load the encoder, for the folder),
        ``checked`` (how it was compared with the encoder), ``lineage``. All are plain values.

    Raises:
        UserError: the model cannot be loaded, the format has no such network, or a package is missing.
    """
    from bgsweep.workflows.export import export

    return export(str(model), to, Path(folder), checked_folder(store))


def runs(name: str, store: Store = None, epochs: bool = False) -> "pd.DataFrame":
    """The trials of a sweep as a pandas DataFrame, one row each.

    Args:
        epochs: one row for each epoch of each trial instead.

    Raises:
        UserError: the store has no such sweep.
    """
    from bgsweep.sweep.trial_table import frame

    return frame(name, checked_store(store), epochs)
