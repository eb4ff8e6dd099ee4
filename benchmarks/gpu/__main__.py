"""Measurements on one GPU in minutes: correctness, speed, the whole pipeline, the platform and a first result.

    python -m benchmarks.gpu --out FOLDER [--minutes 8] [--only PART[:ROW] …] [--skip PART …] [--toy]

Parts, most telling first: `correctness`, `step`, `whole`, `platform`, `packed`, `science`. Each runs in a process of
its own with a share of the minutes, so that a crash, a hang or full memory ends nothing but its row; so does a row that
takes several times as long as expected. What a part does not need goes to those after it. Rows are appended to
FOLDER/gpu.jsonl as they are made; FOLDER/gpu.md is the table of all rows so far, and FOLDER/PART.log has a part's
messages. `packed` is about small encoders. It and the first three parts need neither Ray nor MLflow; nothing needs the
internet. `science` needs an archive or folder of Imagenette with masks: `--imagenette PATH` or $BGSWEEP_IMAGENETTE;
FOLDER/science has its curves. Repeat one part with more time by `--only step --minutes 10`, one row by
`--only "step:resnet50 swav"`.
"""

import argparse
import contextlib
import importlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import TABLE, Rows, append, latest, read, table

PARTS = {"correctness": 1.9, "step": 1.9, "whole": 1.7, "platform": 2.0, "packed": 1.0, "science": 2.5}
"""Each part with its share of the minutes; `science` has one only where there are images for it."""

MINUTES = 8.0
IMAGENETTE = "BGSWEEP_IMAGENETTE"
ROOT = Path(__file__).parents[2]
_LATE = "took longer than the part's time"
_GRACE = 20.0  # seconds that a row may take beyond its part's time before the part is ended
_STARTS = 4  # of one part, each without the rows in which the one before died


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        return _part(options)
    if options.imagenette:
        os.environ[IMAGENETTE] = str(Path(options.imagenette).resolve())
    run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
    deadline = time.monotonic() + 60 * options.minutes
    chosen = [part for part in PARTS if _wanted(part, options)]
    for index, part in enumerate(chosen):
        shares = [PARTS[each] for each in chosen[index:] if each == part or _ready(each)]
        seconds = (deadline - time.monotonic()) * shares[0] / sum(shares)
        print(f"{part}: {max(0.0, seconds):.0f} s", file=sys.stderr, flush=True)
        _run_part(part, run, seconds, options)
        print(table(latest(row for row in read(options.out) if (row["run"], row["part"]) == (run, part))), flush=True)
        _write_table(options.out)
    rows = latest(row for row in read(options.out) if row["run"] == run)
    bad = [row for row in rows if row["state"] in ("failed", "missed")]
    print(f"\n{len(rows)} rows, {len(bad)} failed or missed; table: {options.out / TABLE}", flush=True)
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of the results; default build/gpu")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"of all parts together; default {MINUTES:g}")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART[:ROW]", help="parts, or rows by pattern")
    parser.add_argument("--skip", nargs="+", default=[], choices=PARTS, metavar="PART", help="parts to leave out")
    parser.add_argument("--imagenette", metavar="PATH", help=f"archive or folder for `science`; default ${IMAGENETTE}")
    parser.add_argument("--toy", action="store_true", help="rehearse on the CPU, at sizes that take seconds")
    for internal, kind in (("part", str), ("run", str), ("seconds", float)):
        parser.add_argument(f"--{internal}", type=kind, help=argparse.SUPPRESS)
    return parser


def _wanted(part: str, options: argparse.Namespace) -> bool:
    unknown = {each.partition(":")[0] for each in options.only} - PARTS.keys()
    if unknown:
        sys.exit(f"--only: no part {min(unknown)}; there are {', '.join(PARTS)}")
    return part not in options.skip and (not options.only or bool(_patterns(part, options)))


def _ready(part: str) -> bool:
    return part != "science" or bool(os.environ.get(IMAGENETTE))


def _patterns(part: str, options: argparse.Namespace) -> list[str]:
    """The patterns of a part's rows that `--only` names; `*` for all."""
    named = [each.partition(":") for each in options.only]
    return [pattern or "*" for name, _, pattern in named if name == part]


def _run_part(part: str, run: str, seconds: float, options: argparse.Namespace) -> None:
    """Run a part in processes of its own until it ends by itself or its time is over."""
    deadline = time.monotonic() + seconds
    for _ in range(_STARTS):
        reason = _process(part, run, deadline - time.monotonic(), options)
        dead = _begun(part, run, options)
        for row in dead:
            append(options.out, {**row, "state": "failed", "reason": reason})
        if reason and not dead and reason != _LATE:
            _fail(part, run, f"{reason}; see {part}.log", options)
        if not dead or reason in ("", _LATE):
            return


def _begun(part: str, run: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The row that a part is making, if any."""
    rows = [row for row in latest(read(options.out)) if (row["run"], row["part"]) == (run, part)]
    return [row for row in rows if row["state"] == "begun"]


def _fail(part: str, run: str, reason: str, options: argparse.Namespace) -> None:
    Rows(options.out, part, run, 0.0).write(part, "failed", reason=reason)


def _process(part: str, run: str, seconds: float, options: argparse.Namespace) -> str:
    """Run a part in one process; the reason for which it ended before its last row, empty if it did not."""
    with (options.out / f"{part}.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            _command(part, run, seconds, options),
            cwd=ROOT,
            env=_environment(part),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return _watch(process, part, run, time.monotonic() + max(0.0, seconds) + _GRACE, options)
        finally:
            _end(process)


def _watch(process: subprocess.Popen[bytes], part: str, run: str, deadline: float, options: argparse.Namespace) -> str:
    """Wait until a part ends, its time is over, or one of its rows takes longer than it may."""
    name, began = "", 0.0
    slower = max(1.0, options.minutes / MINUTES)  # limits are an H100's; whoever gives more time may have less speed
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(0.5)
            return f"its process ended with code {code}" if code else ""
        for row in _begun(part, run, options):
            if row["name"] != name:
                name, began = row["name"], time.monotonic()
            elif time.monotonic() - began > slower * row["limit"]:
                return f"took longer than {slower * row['limit']:.0f} s"
    return _LATE


def _command(part: str, run: str, seconds: float, options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(options.out.resolve()), "--part", part]
    command += ["--run", run, "--seconds", f"{seconds:.1f}", *(["--toy"] if options.toy else [])]
    patterns = _patterns(part, options)
    command += ["--only", *patterns] if patterns else []
    return command


def _environment(part: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # Deterministic cuBLAS for `resume`, and no TF32, which would hide other differences to the CPU.
    exact = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NVIDIA_TF32_OVERRIDE": "0"} if part == "correctness" else {}
    return {**os.environ, "PYTHONPATH": path, "NO_ALBUMENTATIONS_UPDATE": "1", **exact}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a part: its process, and those that it started, Ray's among them."""
    below = []
    with contextlib.suppress(ImportError):
        import psutil

        with contextlib.suppress(psutil.Error):
            below = psutil.Process(process.pid).children(recursive=True)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    for child in below:
        with contextlib.suppress(psutil.Error):
            child.kill()


def _part(options: argparse.Namespace) -> int:
    """In the part's own process: make its rows."""
    rows = Rows(options.out, options.part, options.run, time.monotonic() + options.seconds, options.only)
    try:
        module = importlib.import_module(f"benchmarks.gpu.{options.part}")
        if not any(row["run"] == options.run and row["part"] == "machine" for row in read(options.out)):
            _machine(options)
        module.run(rows, options.toy)
    except ModuleNotFoundError as error:
        rows.write(options.part, "skipped", reason=f"{error.name} is not installed here")
    return 0


def _machine(options: argparse.Namespace) -> None:
    import torch

    from benchmarks.gpu.timing import device_row
    from benchmarks.gpu.workloads import device_of

    device = torch.device(device_of(options.toy))
    Rows(options.out, "machine", options.run, 0.0).write("machine", "passed", device_row(device))


def _write_table(folder: Path) -> None:
    (folder / TABLE).write_text(table(latest(read(folder))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part that runs is ended too
    sys.exit(main())
