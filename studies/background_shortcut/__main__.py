"""`python -m studies.background_shortcut FILE`: train what is missing, judge what is new, write the page."""

import argparse
import datetime
import os
import platform
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from bgsweep.cli import process
from bgsweep.errors import UserError
from bgsweep.storage.layout import DEFAULT_STORE
from studies.background_shortcut.plan import FormName, Planned, planned, read_study


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 with a line `error: …` for an error the user can fix."""
    parser = argparse.ArgumentParser(prog="python -m studies.background_shortcut", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for all runs, e.g. data.images=my_images")
    forms = parser.add_mutually_exclusive_group()
    for form in get_args(FormName):
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form)
    parser.add_argument("--store", type=Path, default=Path(DEFAULT_STORE))
    parser.add_argument(
        "--out", type=Path, help="page to write (default: docs/study-methods.md, of a form docs/study-FORM.md)"
    )
    options = parser.parse_intermixed_args(arguments)
    options.out = options.out or Path(f"docs/study-{options.form or 'methods'}.md")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; call this again to go on", file=sys.stderr)
        return 130
    return 0


def _run(options: Any) -> None:
    from studies.background_shortcut.conduct import judged, train_missing
    from studies.background_shortcut.figures import draw
    from studies.background_shortcut.findings import by_run, page, write

    study = read_study(options.file, options.form, options.overrides)
    runs = planned(study, options.file.parent)
    checkpoints = train_missing(runs, options.store)
    seeds = trained_seeds(study.seeds, [run for run in runs if run.experiment.digest not in checkpoints])
    if len(seeds) < 2:
        raise UserError(
            f"{len(seeds)} of {len(study.seeds)} seeds have all their runs; call this again to train the rest"
        )
    runs = [run for run in runs if run.seed in seeds]
    found = by_run(runs, [judged(run, checkpoints[run.experiment.digest], options.store) for run in runs])
    command = " ".join(["make study", *([f"ARGS=--{options.form}"] if options.form else []), *options.overrides])
    machine = f"{os.cpu_count()} cores ({platform.machine()})"
    said = f"Measured on {datetime.date.today().isoformat()} with `{command}` on {machine}."
    if seeds != study.seeds:
        said += f" Seeds {_listed(seeds)} of {_listed(study.seeds)}: the others have runs that are not trained yet."
        study = study.model_copy(update={"seeds": seeds})
    draw(study, found, runs[0], options.out.with_suffix(""))
    write(options.out, page(study, found, said, options.out.stem))
    print(f"wrote {options.out}")


def trained_seeds(seeds: Sequence[int], missing: Sequence[Planned]) -> tuple[int, ...]:
    """Those of which no run is missing, so that all arms can be compared."""
    return tuple(seed for seed in seeds if seed not in {run.seed for run in missing})


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


if __name__ == "__main__":
    process.run(main)
