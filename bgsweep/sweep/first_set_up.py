"""Tasks before a sweep's first trial. They need torch and the data, not Ray Tune, which takes 0.6 s to import."""

from typing import Any

from bgsweep.config import Experiment, resolve
from bgsweep.distributed.resources import assigned_device
from bgsweep.errors import UserError, collected_warnings
from bgsweep.storage.uri import Uri


def set_up(tree: dict[str, Any]) -> tuple[int, list[str], dict[str, str]]:
    """Build the experiment without training it.

    Returns:
        The size of one trial's checkpoint in bytes, notes on the splits with warnings for the user, and the splits'
        fingerprints.

    Raises:
        UserError: what would fail in every trial at once, or in the final evaluation.
    """
    from bgsweep.data import notes
    from bgsweep.data.fingerprint import fingerprints
    from bgsweep.data.kept_backgrounds import check_views
    from bgsweep.distributed.view_workers import ray_feed
    from bgsweep.tracking.models import check_exportable
    from bgsweep.training.build import initial_method
    from bgsweep.training.final_evaluation import check_final
    from bgsweep.training.seeded_run import checkpoint_bytes, start

    file = resolve(tree)

    def check_encoder(experiment: Experiment) -> None:
        check_exportable(initial_method(experiment, classes=2).encoder, experiment.views.size)

    with collected_warnings() as warnings:
        run = start(file, file.search.seeds, device=assigned_device(), feed_for=ray_feed)
        if file.augments_background:
            check_views(file.experiment, run.splits.train)
        check_final(file, run.splits)
        check_encoder(file.experiment)
    if "encoder.name" in file.space.parameters:
        for name in file.space.all("encoder.name"):
            values = file.complete({"encoder.name": name}, lenient=True)
            try:
                check_encoder(file.experiment.with_values(values))
            except UserError as error:
                raise UserError(f"space.encoder.name: {name}: {error}") from error
    images = fingerprints(run.splits, ["train", "validation", "test"])
    return checkpoint_bytes(run), [*notes(file.experiment.data), *warnings], images


def keep_weights(experiment: Experiment, store: Uri, address: str) -> Experiment:
    """`tracking.encoders.with_kept_weights` as a task of its own, since it imports torch."""
    from bgsweep.tracking.encoders import with_kept_weights

    return with_kept_weights(experiment, store, address)
