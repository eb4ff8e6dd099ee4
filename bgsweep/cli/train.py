"""Commands that train: `pretrain`, `sweep`, `plan` and `submit`."""

import os
import shlex
from pathlib import Path
from typing import Any

from bgsweep.addresses import check_webhook
from bgsweep.cli.common import (
    Command,
    Options,
    Result,
    add_address,
    add_config,
    add_store,
    add_weights,
    count,
    overrides,
    positive,
)
from bgsweep.cli.formatting import duration, percent, table, trial_table, with_error
from bgsweep.cli.parser import Parser
from bgsweep.errors import UserError


class Pretrain(Command):
    """Train the experiment of one file."""

    name = "pretrain"

    def arguments(self, parser: Parser) -> None:
        add_config(parser)
        add_weights(parser)
        add_store(parser)
        parser.add_argument("--fresh", action="store_true", help="start over, even if this experiment has a checkpoint")

    def run(self, options: Options) -> Result:
        from bgsweep.api import pretrain

        return pretrain(options.file, overrides(options), store=options.store, fresh=options.fresh)

    def show(self, result: Result) -> str:
        values = "  ".join(f"{name} {value:.4g}" for name, value in result["metrics"].items())
        return (
            f"{values}\ncheckpoint  {result['checkpoint']}\nMLflow run  {result['run_id']} at {result['tracking_uri']}"
        )


class Sweep(Command):
    """Search a file's space and register the best encoder."""

    name = "sweep"

    def arguments(self, parser: Parser) -> None:
        add_config(parser, optional=True)
        add_weights(parser)
        add_store(parser)
        parser.add_argument(
            "--resume",
            metavar="NAME",
            help="name of the sweep to resume, instead of a file: after its driver died, or to repeat its final "
            "evaluation; key=value as in docs/failures.md",
        )
        parser.add_argument(
            "--retry-failed", action="store_true", help="with --resume: run trials that failed for good once more"
        )
        parser.add_argument("--name", help="sweep name; default FILE-TIMESTAMP-XXXX")
        parser.add_argument(
            "--notify",
            metavar="URL",
            help="webhook that gets a sentence when the sweep ends, as Slack reads it; default $BGSWEEP_NOTIFY",
        )
        parser.add_argument(
            "--on-end",
            metavar="COMMAND",
            help="shell command to run when the sweep ends, with the verdict as JSON on its standard input",
        )

    def run(self, options: Options) -> Result:
        from bgsweep.sweep.notify import VARIABLE, announced

        url = options.notify or os.environ.get(VARIABLE)
        title = options.resume or options.name or (options.file.stem if options.file else "")
        return announced(lambda: self._run(options), title, url and check_webhook(url), options.on_end)

    def _run(self, options: Options) -> Result:
        if options.resume is not None:
            from bgsweep.api import resume

            if options.weights is not None:
                raise UserError("sweep: --from is for a new sweep; leave out one of --from and --resume")
            words = _resumed_words(options, "sweep")
            return resume(options.resume, words, store=options.store, retry_failed=options.retry_failed)
        if options.retry_failed:
            raise UserError(
                "sweep: --retry-failed needs the name of a sweep; write `bgsweep sweep --resume NAME --retry-failed`"
            )
        if options.file is None:
            raise UserError("sweep: no file is given; write `bgsweep sweep FILE` or `bgsweep sweep --resume NAME`")
        from bgsweep.api import sweep

        return sweep(options.file, overrides(options), store=options.store, name=options.name)

    def show(self, result: Result) -> str:
        """Trials; the best one beside the baseline and the untrained encoder; where everything is."""
        model, uri = result["model"], result["tracking_uri"]
        lines = [
            trial_table(result["trials"], [each["trial"] for each in result.get("pareto", ())]),
            *_confirmed(result),
            _comparison(result),
            f"MLflow store   {uri}",
            *_where_to_look(uri, result.get("run_page", "")),
            f"registered     {model['name']} version {model['version']}, alias {model['alias']}: {model['reason']}",
            f"load it        import mlflow; mlflow.set_tracking_uri({uri!r}); "
            f'encoder = mlflow.pyfunc.load_model("models:/{model["name"]}@{model["alias"]}")',
        ]
        return "\n".join(lines)


def _confirmed(result: Result) -> list[str]:
    """The trials that were trained again: what the search saw of each, and what new seeds say."""
    found = result.get("confirmation")
    if not found:
        return []
    rows = [
        [
            each["trial"] + (" (champion)" if each["trial"] == found["champion"] else ""),
            name,
            f"{one['searched']:.4g}",
            f"{one['value']:.4g} ± {one['se']:.2g}",
        ]
        for each in found["trials"]
        for name, one in each["values"].items()
    ]
    title = f"Trained again with seeds {', '.join(map(str, found['seeds']))}"
    honest = ", ".join(f"{name} {value:.4g}" for name, value in found["unbiased"].items())
    return [table(["trial", "metric", "in the search", "new seeds"], rows, title), f"without bias   {honest}"]


def _where_to_look(uri: str, page: str) -> list[str]:
    """The command that shows the runs, and the page of the sweep's."""
    if uri.startswith("http"):
        return [f"look at it     {uri}/{page}"]
    if not uri.startswith("sqlite"):
        return []
    return [
        f"look at it     mlflow ui --backend-store-uri {shlex.quote(uri)}",
        f"in a browser   http://127.0.0.1:5000/{page}",
    ]


def _resumed_words(options: Options, command: str) -> list[str]:
    """The overrides beside `--resume`: where no file is given, the first of them is taken for one."""
    words = [] if options.file is None else [str(options.file)]
    if any("=" not in word for word in words):
        raise UserError(f"{command}: both {words[0]} and --resume {options.resume} are given; leave one out")
    return [*words, *options.overrides]


def _comparison(result: Result) -> str:
    """The final evaluation: a column for each encoder."""
    names = [name for name in ("best", "baseline", "champion", "untrained") if result.get(name)]
    found = [result[name] for name in names]
    origins = [each.get("trial") or f"version {each.get('version')}" for each in found]
    header = [
        name if name == "untrained" else f"{name} ({origin})" for name, origin in zip(names, origins, strict=True)
    ]
    rows = [
        [label, *(percent(each["metrics"][key]) for each in found)]
        for label, key in (("kNN", "knn_top1"), ("linear probe", "linear_top1"))
        if result["best"]["metrics"][key] is not None
    ]
    unlabelled = [each["metrics"].get("unlabelled") or {} for each in found]
    rows += [[name, *(f"{each[name]:.4g}" for each in unlabelled)] for name in unlabelled[0]]
    for name in result["best"]["metrics"]["backgrounds"] or ():
        rows.append([f"kNN {name}", *(percent(each["metrics"]["backgrounds"][name]) for each in found)])
    for name, label in (("knn_top1", "kNN"), ("linear_top1", "linear probe"), ("bg_gap", "kNN bg_gap")):
        over: list[dict[str, Any] | None] = [each.get("seeds", {}).get(name) for each in found]
        if any(over):
            cells = (with_error(each["mean"], each["se"]) if each else "" for each in over)
            rows.append([f"{label}, mean of seeds", *cells])
    images = result["best"]["protocol"].get("test", "test split")
    return table(
        ["", *header], rows, f"Final evaluation{'' if unlabelled[0] else ', in %'} ({images}; not used by the search)"
    )


class Plan(Command):
    """Estimate the time and cost of a sweep by simulating its scheduler."""

    name = "plan"

    def arguments(self, parser: Parser) -> None:
        add_config(parser)
        parser.add_argument(
            "--gpus", type=count, required=True, help="number of GPUs; without GPUs, number of trials at a time"
        )
        parser.add_argument("--hourly-price", type=positive, help="price of one GPU for an hour, in any currency")
        parser.add_argument(
            "--epoch-seconds", type=positive, help="seconds of one epoch; default: measured here on two epochs"
        )
        parser.add_argument(
            "--images",
            type=count,
            help="number of training images: estimate epochs and what a trial needs, without data",
        )
        parser.add_argument(
            "--measured", type=Path, metavar="FILE", help="gpu.jsonl of `python -m benchmarks.gpu`: this GPU's speed"
        )

    def run(self, options: Options) -> Result:
        from bgsweep.config import load, review_search

        config = load(options.file, options.overrides)
        review_search(config)
        from bgsweep.sweep.cost import plan

        return plan(config, options.gpus, options.hourly_price, options.epoch_seconds, options.images, options.measured)

    def show(self, result: Result) -> str:
        """The measured or given times, and a line for each setting."""
        rows = [
            [
                row["setting"],
                *(duration(row[name]) for name in ("hours", "hours_low", "hours_high")),
                f"{row['gpu_hours']:.0f}" if row["gpu_hours"] >= 100 else f"{row['gpu_hours']:.3g}",
                "" if row["price"] is None else f"{row['price']:.2f}",
                f"{100 * row['utilisation']:.0f}",
                f"{row['epochs']:.0f}",
                f"{row['whole_trials']:.1f}",
            ]
            for row in result["settings"]
        ]
        header = ("", "wall time", "from", "to", "GPU-hours", "price", "in use %", "epochs", "whole trials")
        cost = result["cost"]
        each = f"{cost['epoch']:.3g} s per epoch"
        if cost["evaluation"]:
            each += f", {cost['evaluation']:.2g} s per evaluation"
        again = f" and {result['confirmations']} that confirm others" if result["confirmations"] else ""
        head = f"{result['trials']} trials{again}, {result['at_once']} at once, {each}"
        return f"{_needs(result['trial'])}{head}\n{table(header, rows, 'Expected')}"


def _needs(trial: Result | None) -> str:
    """The needs of one trial, and which of them are not met."""
    if trial is None:
        return ""
    title = f"One trial, {trial['source']} (docs/scaling.md)"
    warnings = "".join(f"warning: {line}\n" for line in trial["warnings"])
    return f"{table(('', ''), trial['shown'], title)}{warnings}\n"


class Submit(Command):
    """Submit a sweep as a Ray job."""

    name = "submit"

    def arguments(self, parser: Parser) -> None:
        parser.add_argument(
            "file", type=Path, nargs="?", help="YAML file with an `experiment:`, whose paths are the cluster's"
        )
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as for `sweep`")
        parser.add_argument("--resume", metavar="NAME", help="sweep to resume instead of a file, as for `sweep`")
        parser.add_argument("--retry-failed", action="store_true", help="with --resume, as for `sweep`")
        add_address(parser, required=True)
        parser.add_argument("--wait", action="store_true", help="follow the log until the sweep ends; show its result")
        parser.add_argument("--store", help="folder or URI that all nodes see; default: the cluster's $BGSWEEP_STORE")
        parser.add_argument("--code", action="store_true", help="run this checkout of bgsweep, for developers")
        parser.add_argument(
            "--module",
            action="append",
            default=[],
            type=Path,
            metavar="DIR",
            help="package with parts that the file names, to upload: its folder, or a wheel; repeatable",
        )
        parser.add_argument(
            "--env", action="append", default=[], metavar="NAME", help="environment variable to pass on; repeatable"
        )

    def run(self, options: Options) -> Result:
        from bgsweep.distributed.jobs import resubmit, submit

        how = (options.address, options.store, options.code, options.env, options.wait, options.module)
        if options.resume is not None:
            words = _resumed_words(options, "submit")
            return resubmit(options.resume, [*words, *["--retry-failed"][: options.retry_failed]], *how)
        if options.file is None:
            raise UserError("submit: no file is given; write `bgsweep submit FILE` or `bgsweep submit --resume NAME`")
        return submit(options.file, options.overrides, *how)

    def show(self, result: Result) -> str:
        """Commands that follow the sweep; after `--wait`, its result."""
        if "result" in result:
            return Sweep().show(result["result"])
        name, address = result["sweep"], result["address"]
        return "\n".join(
            [
                f"submitted      {name} to {address}",
                f"passed on      {', '.join(result['passed_on']) or 'no environment variable'}",
                f"status         bgsweep status {name} --address {address}",
                f"log            ray job logs --follow --address {address} {name}",
                f"stop           bgsweep stop {name} --address {address}",
            ]
        )


COMMANDS = (Pretrain(), Sweep(), Plan(), Submit())
