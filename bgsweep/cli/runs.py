"""Commands about sweeps, from `status` to `rm`."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from bgsweep.cli.common import (
    Command,
    Options,
    Result,
    add_address,
    add_store,
    add_sweep,
    count,
    positive,
    store,
    store_folder,
)
from bgsweep.cli.formatting import local_time, size, table, trial_table
from bgsweep.cli.parser import Parser
from bgsweep.errors import UserError

WATCHED_EVERY = 5.0
_TOO_LONG = ("sweep", "digest", "run_id", "checkpoint")  # for a terminal
_GOING_ON = ("running", "pending")


class Status(Command):
    """List the sweeps of a store, or the trials of one."""

    name = "status"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("name", nargs="?", help="sweep name; default: all sweeps")
        parser.add_argument(
            "--watch",
            type=positive,
            nargs="?",
            const=WATCHED_EVERY,
            metavar="SECONDS",
            help="show it again and again until nothing runs, or Ctrl-C; default every %(const)s s",
        )
        add_store(parser)
        add_address(parser)

    def run(self, options: Options) -> Result:
        return self._watched(options) if options.watch else self._now(options)

    def _watched(self, options: Options) -> Result:
        """The last status; those before go to stderr, a terminal's screen being cleared for each."""
        result, before = self._now(options), ""
        with contextlib.suppress(KeyboardInterrupt):
            while any(sweep["state"] in _GOING_ON for sweep in result["sweeps"]):
                text = self.show(result)
                if sys.stderr.isatty():
                    clock = time.strftime("%H:%M:%S")
                    print(f"\x1b[2J\x1b[H{text}\n{clock}, every {options.watch:g} s; Ctrl-C ends", file=sys.stderr)
                elif text != before:
                    print(text, file=sys.stderr, flush=True)
                before = text
                time.sleep(options.watch)
                result = self._now(options)
        return result

    def _now(self, options: Options) -> Result:
        if options.address:
            from bgsweep.distributed import jobs

            return jobs.status(options.name, options.store and str(options.store), options.address)
        from bgsweep.sweep.control import status

        return status(options.name, store(options))

    def show(self, result: Result) -> str:
        """A line for each sweep; if there is only one, its trials too."""
        rows = []
        for sweep in result["sweeps"]:
            states = [trial["status"] for trial in sweep["trials"]]
            counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
            rows.append([sweep["sweep"], local_time(sweep["began"]), sweep["state"], counts or "no trial yet"])
        if not rows:
            return "no sweep in this store"
        listed = table([""] * 4, rows).rstrip("\n")
        if len(rows) > 1:
            return listed
        (sweep,) = result["sweeps"]
        budget = sweep.get("budget")  # none in the answer of an older version
        told = [budget["told"]] if budget else []
        return "\n".join([listed, *told, trial_table(sweep["trials"])])


class Runs(Command):
    """Show a sweep's trials as a table, or write them as CSV or Parquet."""

    name = "runs"

    def arguments(self, parser: Parser) -> None:
        add_sweep(parser)
        parser.add_argument("--csv", type=Path, metavar="FILE", help="CSV file to write")
        parser.add_argument("--parquet", type=Path, metavar="FILE", help="Parquet file to write")
        parser.add_argument("--epochs", action="store_true", help="a row for each epoch of each trial")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.sweep.trial_table import rows_of, write_csv, write_parquet

        rows = rows_of(options.name, store(options), options.epochs)
        written = []
        for path, write in ((options.csv, write_csv), (options.parquet, write_parquet)):
            if path is not None:
                write(rows, path)
                written.append(str(path))
        return {"sweep": options.name, "written": written, "rows": rows}

    def show(self, result: Result) -> str:
        rows = result["rows"]
        if result["written"]:
            return f"wrote {' and '.join(result['written'])}: {len(rows)} rows"
        if not rows:
            return "no trial yet"
        shown = [column for column in rows[0] if column not in _TOO_LONG]
        cells = [[_cell(row[column]) for column in shown] for row in rows]
        return table([column.removeprefix("params.").removeprefix("metrics.") for column in shown], cells)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class Stop(Command):
    """Stop a sweep and evaluate its finished trials."""

    name = "stop"

    def arguments(self, parser: Parser) -> None:
        add_sweep(parser)
        add_store(parser)
        add_address(parser)

    def run(self, options: Options) -> Result:
        if options.address:
            from bgsweep.distributed import jobs

            return jobs.stop(options.name, options.store and str(options.store), options.address)
        from bgsweep.sweep.control import stop

        return stop(options.name, store(options))

    def show(self, result: Result) -> str:
        return f"{result['sweep']} is stopping; `{result['follow']}` shows its progress"


class Report(Command):
    """Write a sweep's results as one HTML page."""

    name = "report"

    def arguments(self, parser: Parser) -> None:
        add_sweep(parser)
        parser.add_argument("--out", type=Path, default=Path("report.html"), help="page to write; default %(default)s")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.sweep.report import report

        return report(options.name, store(options), options.out)

    def show(self, result: Result) -> str:
        told = [line for lines in result["sentences"].values() for line in lines]
        return "\n".join([*told, f"wrote {result['page']}: open it in a browser"])


class Policy(Command):
    """Write a sweep's learnt augmentation policy as a JSON file."""

    name = "policy"

    def arguments(self, parser: Parser) -> None:
        add_sweep(parser)
        parser.add_argument("--trial", help="trial such as t03; default: the best finished one")
        parser.add_argument("--out", type=Path, default=Path("policy.json"), help="file to write; default %(default)s")
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.sweep.policy import policy

        return policy(options.name, store(options), options.out, options.trial)

    def show(self, result: Result) -> str:
        return f"wrote {result['policy']}: the augmentation policy of {result['trial']}"


class Collect(Command):
    """Remove checkpoints of trials that are not among the best of their sweep, or unused results of evaluations."""

    name = "gc"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument("name", nargs="?", help="sweep name; default: all sweeps that are not running")
        parser.add_argument("--keep", type=count, metavar="K", help="in place of the sweep's search.keep_checkpoints")
        parser.add_argument(
            "--evaluations",
            type=positive,
            metavar="DAYS",
            help="instead of checkpoints: features and results of evaluate, compare and audit that none of them has "
            "read for so many days",
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would be removed, and remove nothing")
        add_store(parser)

    def run(self, options: Options) -> Result:
        if options.evaluations is not None:
            if options.name or options.keep:
                raise UserError("--evaluations: these are of no sweep; leave the sweep's name and --keep out")
            from bgsweep.evaluation.kept import remove_unused

            return remove_unused(store_folder(options), options.evaluations, options.dry_run)
        from bgsweep.sweep.collect import collect

        return collect(options.name, store(options), options.keep, options.dry_run)

    def show(self, result: Result) -> str:
        """A line for each sweep, and with `--dry-run` for each checkpoint."""
        word = "would be removed" if result["dry_run"] else "removed"
        if "files" in result:
            return f"{result['files']} files of evaluations, {size(result['bytes'])}, {word}"
        lines = [each["checkpoint"] for each in result["removed"]] if result["dry_run"] else []
        found = result["removed"]
        for sweep in dict.fromkeys(each["sweep"] for each in found):
            sizes = [each["bytes"] for each in found if each["sweep"] == sweep]
            lines.append(f"{sweep}: {len(sizes)} checkpoints, {size(sum(sizes))}, {word}")
        lines += [f"{sweep}: running; its driver removes checkpoints by itself" for sweep in result["running"]]
        return "\n".join(lines) or "nothing to remove"


class Sync(Command):
    """Write to MLflow what is missing of a sweep, from its journal."""

    name = "sync"

    def arguments(self, parser: Parser) -> None:
        add_sweep(parser)
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.sweep.sync import sync

        return sync(options.name, store(options))

    def show(self, result: Result) -> str:
        return f"{result['sweep']}: {result['epochs']} epochs were missing at {result['tracking_uri']}"


class Remove(Command):
    """Remove a sweep's journal and checkpoints; its MLflow runs and registered models stay."""

    name = "rm"

    def arguments(self, parser: Parser) -> None:
        add_sweep(parser)
        add_store(parser)

    def run(self, options: Options) -> Result:
        from bgsweep.sweep.collect import remove

        return remove(options.name, store(options))

    def show(self, result: Result) -> str:
        return f"removed {result['sweep']}, {size(result['bytes'])}; its MLflow runs and models are kept"


COMMANDS = (Status(), Runs(), Stop(), Report(), Policy(), Collect(), Remove(), Sync())
