"""`bgsweep`, with notes on what its training processes do and when, which campaign.py reads.

    python benchmarks/watched.py NOTES STEPS pretrain FILE …

NOTES is a folder; each training process writes a file of JSON lines there: when it was called, had opened the images
and made each step, with its loss, how long an evaluation took, and memory after a few steps. Where an epoch is short,
steps after the first STEPS take half a second, so that its end does not come before a signal.
"""

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MEMORY_AT = 4  # steps, when the loader's memory is in use
SHORT = 1000  # steps of an epoch


def watch(folder: str, quick: int) -> None:
    """Note what this process trains from now on; of a short epoch, `quick` steps are not held up."""
    from bgsweep.data import open_splits
    from bgsweep.training import run
    from bgsweep.training.trainer import Trainer

    def note(event: str, **values: Any) -> None:
        with (Path(folder) / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "time": time.time(), "cpu": time.process_time(), **values}) + "\n")

    step, evaluate = Trainer._step, run.Run.evaluate
    made = 0

    @functools.wraps(open_splits)
    def opened(*arguments: Any) -> Any:
        splits = open_splits(*arguments)
        note("opened", images=len(splits.train))
        return splits

    @functools.wraps(step)
    def stepped(self: Trainer, batch: Any, number: int) -> Any:
        nonlocal made
        metrics = step(self, batch, number)
        made += 1
        if made == MEMORY_AT:
            note("memory", **_memory())
        loss, steps = float(metrics["loss"]), self.batches.steps_per_epoch
        note("step", epoch=self.epoch, step=self.step, rank=self.rank, loss=loss, steps=steps)
        if steps < SHORT and made >= quick:
            time.sleep(0.5)
        return metrics

    @functools.wraps(evaluate)
    def evaluated(self: run.Run) -> dict[str, float]:
        began = time.time()
        values = evaluate(self)
        note("evaluation", seconds=time.time() - began, values=values)
        return values

    for owner, name, watched in (
        (run, "open_splits", opened),
        (Trainer, "_step", stepped),
        (run.Run, "evaluate", evaluated),
    ):
        setattr(owner, name, watched)
    note("called")


def _memory() -> dict[str, Any]:
    """Private bytes of this process and of its largest loader process."""
    import psutil

    own = psutil.Process()
    loaders = [each for each in own.children(recursive=True) if not each.children() and each.memory_info().rss > 150e6]
    return {"own": own.memory_full_info().uss, "loader": max(each.memory_full_info().uss for each in loaders)}


def main() -> None:
    from bgsweep.cli.main import run
    from bgsweep.distributed import train

    folder, quick, here = sys.argv[1], int(sys.argv[2]), train._train_here
    sys.argv = ["bgsweep", *sys.argv[3:]]

    def worker(config: dict[str, Any]) -> None:
        from bgsweep.distributed import train  # that of Ray Train's process, which is not watched yet

        watch(folder, quick)
        train._worker(config)

    def watched_here(*arguments: Any) -> Any:
        watch(folder, quick)
        return here(*arguments)

    for name, watched in (("_worker", worker), ("_train_here", watched_here)):
        setattr(train, name, watched)
    run()


if __name__ == "__main__":
    main()
