"""The trainables that Ray Tune runs: in a reused actor if one device is enough, else on Ray Train."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT
from ray.util.placement_group import PlacementGroup, placement_group

from bgsweep.config import SweepConfig, resolve
from bgsweep.distributed.bundles import Resources, group_arguments
from bgsweep.distributed.dashboard import unique
from bgsweep.distributed.resources import assigned_device
from bgsweep.distributed.train import one_worker, train
from bgsweep.errors import Stopped, collected_warnings, warn_once
from bgsweep.storage.layout import by_ray_train, ray_train_folder, still_there
from bgsweep.storage.uri import Uri, downloaded
from bgsweep.sweep.searcher import CHECKPOINT, EPOCHS, VALUES, named

TITLE = "Trial of "
"""With the sweep's name behind it, the title of a trial's actor in Ray's dashboard and of its process."""

# CPUs of a trial that only waits for its Ray Train workers: Tune gives every trial some.
WAITING_CPUS = 0.01


class TrialResources(tune.PlacementGroupFactory):
    """Resources of a trial, whose placement groups have names in Ray's dashboard."""

    def __init__(self, name: str, bundles: Sequence[Resources]) -> None:
        super().__init__(**group_arguments(bundles))
        self._name = name

    def to_placement_group(self) -> PlacementGroup:
        bound: Any = self._bound
        group: PlacementGroup = placement_group(*bound.args, **{**bound.kwargs, "name": unique(self._name)})
        return group

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrialResources) and self._name == other._name and super().__eq__(other)

    def __hash__(self) -> int:
        return hash((self._name, super().__hash__()))  # type: ignore[no-untyped-call]


class InProcessTrial(tune.Trainable):
    """One trial in one actor; Tune reuses the actor, with its imports and decoded images, for the next trial.

    ``tree``, the sweep's config as plain data, ``sweep``, its name, and ``board``, name and namespace of its
    `TrialBoard`, are set by `trainable`.
    """

    tree: dict[str, Any]
    sweep: str
    board: tuple[str, str]
    run: Any = None
    missed: list[dict[str, float]]

    def __repr__(self) -> str:
        """The actor in Ray's dashboard: the trial with which it began."""
        return f"{self.sweep}: {self.began_with} and later trials"

    def setup(self, config: dict[str, Any]) -> None:
        name = named(config)
        self.began_with = getattr(self, "began_with", name)
        print(f"trial {name} of sweep {self.sweep}", flush=True)  # into the actor's log
        with collected_warnings() as self.warnings:
            self._set_up(config)

    def _set_up(self, config: dict[str, Any]) -> None:
        # Imported by the trial's process only: each process that imports torch takes half a gigabyte.
        from bgsweep.data.sharing import Sharing, share_within
        from bgsweep.distributed.pulse import Pulse
        from bgsweep.distributed.resources import machine_share
        from bgsweep.distributed.view_workers import ray_feed
        from bgsweep.training.run import limit_threads
        from bgsweep.training.seeded_run import start

        file = trial_file(self.tree, config[VALUES])
        limit_threads(file.search.cpus, machine_share())
        share_within(Sharing(repr(self.board), named(config), file.search.share_views))
        self.pulse = Pulse(self.board, named(config), self._where)
        self.run = start(file, file.search.seeds, device=assigned_device(), feed_for=ray_feed, asked=self.pulse)
        self.foreign = file.search.scheduler == "pbt"
        self.stands, self.missed = False, []
        given = config[CHECKPOINT]
        # Begun anew, a trial of a population would be another one: restoring it says that its checkpoint is gone.
        checkpoint = given and (still_there(given) or (given if self.foreign else None))
        if checkpoint:
            with downloaded(checkpoint) as folder:
                self.run.restore(folder, self.foreign)
            # What the journal of a driver that died does not know of a checkpoint that is newer than the one it names.
            if not self.foreign:
                self.missed = [metrics for metrics in self.run.history if metrics["epoch"] > config[EPOCHS]]
            # A resumed trial of a population reports its epoch first: it may have to wait at its generation's end.
            self.stands = self.foreign and bool(self.run.metrics)
        elif given:
            warn_once(f"{named(config)}: its checkpoint {given} is gone, so it begins anew")

    def _where(self) -> str:
        from bgsweep.distributed.pulse import in_words

        return in_words(self.run.position)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # Before the next model is built: beside it the last one would take half of the trial's share of a GPU.
        del self.run
        gc.collect()
        # True lets Tune reuse the actor: 12 trials that import torch took 10.6 s instead of 16.9 s.
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next online evaluation or checkpoint.

        ``history`` has each epoch's metrics, ``warnings`` what is new.
        """
        with collected_warnings() as warnings:
            result = self._step()
        told, self.warnings = [*self.warnings, *warnings], []
        return {**result, "warnings": told}

    def _step(self) -> dict[str, Any]:
        self.pulse.begin()
        if self.run.finished or self.stands or self.missed:  # finished: the driver died after its last checkpoint
            history, self.stands, self.missed = self.missed or [self.run.metrics], False, []
            return {**history[-1], "history": history, "done": self.run.finished}
        metrics = self.run.config.search.metrics
        history = []
        due = False
        # Not one epoch at a time: schedulers and the searcher can use only epochs that have the searched metrics.
        while not (due or (history and all(name in history[-1] for name in metrics))):
            try:
                history.append(self.run.step_epoch())
                due = self.run.checkpoint_due()
            except Stopped:  # asked for a checkpoint of its position, which is within an epoch
                self.pulse.done()
                due = True
            self.pulse()
        last = history[-1] if history else {"epoch": self.run.metrics.get("epoch", 0)}
        return {**last, "history": history, "done": self.run.finished, SHOULD_CHECKPOINT: due}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        self.run.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.run.restore(Path(checkpoint), self.foreign)
        self.stands, self.missed = False, []


def trainable(config: SweepConfig, sweep: Uri, board: tuple[str, str]) -> Any:
    """The trainable that Tune runs for each trial of the sweep in a folder, with the resources that it needs.

    A trial of several workers only waits for Ray Train, whose own placement group holds what the workers need.
    """
    tree, name = dump(config), str(sweep).rpartition("/")[2]
    title = TITLE + name.replace(".", "_")  # Ray takes what stands after a dot
    if config.experiment.workers.count == 1:
        # One request for all trials: Tune reuses an actor only for a trial that requests the same.
        resources = TrialResources(f"{name}: trials", [one_worker(config)])
        request = classmethod(lambda cls, proposal: resources)
        given = {"tree": tree, "sweep": name, "board": board, "default_resource_request": request}
        return type(title, (InProcessTrial,), given)

    def on_ray_train(proposal: dict[str, Any]) -> None:
        train_on_ray(tree, sweep, proposal, board)

    # Tune's default is a whole CPU for each trial's function, which would starve the workers on a small cluster.
    waiting = {"CPU": WAITING_CPUS}
    bound = tune.with_resources(on_ray_train, lambda proposal: TrialResources(f"{name}: {named(proposal)}", [waiting]))
    # Tune would do the same, and Ray's dashboard show each trial as "ImplicitFunc".
    made = tune.trainable.wrap_function(bound, title)
    made.__name__ = made.__qualname__ = title
    return made


def train_on_ray(tree: dict[str, Any], sweep: Uri, proposal: dict[str, Any], board: tuple[str, str]) -> None:
    """Train a trial on Ray Train, and report to Tune each epoch that has the searched metrics or a checkpoint."""
    config = trial_file(tree, proposal[VALUES])
    history: list[dict[str, Any]] = []
    reported: dict[str, Any] = {}

    def report(metrics: dict[str, Any], checkpoint: Uri | None) -> None:
        history.append(metrics)
        if checkpoint or all(name in metrics for name in config.search.metrics):
            tell(checkpoint)

    def tell(checkpoint: Uri | None) -> None:
        nonlocal reported
        reported = history[-1] if history else {"epoch": reported.get("epoch", 0)}
        told = {"history": list(history), "warnings": list(warnings), "checkpoint": str(checkpoint or "")}
        tune.report({**reported, **told})
        history.clear()
        warnings.clear()

    experiment, seeds = config.experiment, config.search.seeds
    name, last = named(proposal), proposal[CHECKPOINT]
    folder = ray_train_folder(sweep, name, experiment.digest, last)
    # Of a trial that had one worker: Ray Train does not know it.
    start = last if last and not by_ray_train(last) else None
    with collected_warnings() as warnings:
        checkpoint = train(config, folder, report, seeds, start, (board, name), tell, proposal[EPOCHS])
    if not reported:
        # The driver died between the last checkpoint and the trial's end: Ray Train finds nothing left to do, and Tune
        # ends the whole search with an error over a trial that reports nothing.
        from bgsweep.training.seeded_run import saved_metrics

        report(saved_metrics(checkpoint, experiment.seed, seeds), checkpoint)


def dump(config: SweepConfig) -> dict[str, Any]:
    """A sweep's config as plain data, which `resolve` reads."""
    return config.model_dump(mode="json", by_alias=True)


def trial_file(tree: dict[str, Any], values: dict[str, Any]) -> SweepConfig:
    """The sweep's config with one trial's values in its experiment."""
    return resolve(tree).with_values(values)
