"""Small encoders trained side by side on a CPU: each in a process of its own, in one in turn, or as one network.

    python -m benchmarks.gpu.packed_on_cpu [--record]

The steps are those of `packed.py`: SimCLR with the small recipe's ResNet-10 of width 16 at 24 px, and a
ResNet-18 at 64 px, 64 images a step. Each process computes with one thread. The figures are steps of a trial for each
second of CPU time (of all processes, of user and system), medians over rounds in which the three ways take turns;
ratios are medians of those within a round.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.common import markdown, parser_of, report
from benchmarks.gpu.packed import ENCODERS, experiment, in_turn, stacked, trials
from benchmarks.gpu.workloads import noise
from bgsweep.methods.base import Views

SECONDS = 4.0
WAYS = {"processes": "a process each", "in turn": "one process, in turn", "stacked": "one network (vmap)"}


def work(name: str, count: int, as_one: bool, toy: bool, pipe: Connection) -> None:
    """A process that trains some trials for a while whenever it is asked; gives steps of a trial, and CPU seconds."""
    torch.set_num_threads(1)
    settings = experiment(name, toy, "cpu")
    views = Views(noise(settings, torch.device("cpu")).views, torch.zeros(settings.training.batch_size))
    rates = [0.01] * count
    methods = trials(settings, count)
    step = stacked(methods, views, rates)[0] if as_one else in_turn(methods, views, rates)
    step()
    pipe.send(None)
    while (seconds := pipe.recv()) is not None:
        steps, begun, until = 0, time.process_time(), time.process_time() + seconds
        while time.process_time() < until or not steps:
            step()
            steps += count
        pipe.send((steps, time.process_time() - begun))


class Workers:
    """The processes of one way, started and waiting."""

    def __init__(self, name: str, way: str, count: int, toy: bool) -> None:
        context, self._pipes = multiprocessing.get_context("spawn"), list[Connection]()
        number, each = (count, 1) if way == "processes" else (1, count)
        for _ in range(number):
            here, there = context.Pipe()
            context.Process(target=work, args=(name, each, way == "stacked", toy, there), daemon=True).start()
            there.close()  # so that a process that fails ends this one too
            self._pipes.append(here)
        for pipe in self._pipes:
            pipe.recv()

    def rate(self, seconds: float) -> float:
        """Steps of a trial for each second of CPU time."""
        for pipe in self._pipes:
            pipe.send(seconds / len(self._pipes))
        steps, cpu = (sum(column) for column in zip(*(pipe.recv() for pipe in self._pipes), strict=True))
        return float(steps / cpu)

    def end(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)


def measure(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The table, and the figures by name."""
    rows, figures = [], {}
    for name in ENCODERS:
        workers = {way: Workers(name, way, options.trials, options.toy) for way in WAYS}
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, each in workers.items():
                found[way].append(each.rate(options.seconds))
        for each in workers.values():
            each.end()
        ratios = {
            way: statistics.median(b / a for a, b in zip(found["processes"], rates, strict=True))
            for way, rates in found.items()
        }
        figures[name] = {way: {"rate": statistics.median(found[way]), "ratio": ratios[way]} for way in WAYS}
        rows.append([name, *(f"{statistics.median(found[way]):.2f} ({ratios[way]:.2f})" for way in WAYS)])
    columns = [f"{options.trials} trials: steps for a second of a core", *WAYS.values()]
    return f"{markdown(columns, rows)}\n\nLoad average {os.getloadavg()[1]:.0f}.", figures


def main(arguments: list[str] | None = None) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of CPU time for each way in a round")
    parser.add_argument("--toy", action="store_true", help="sizes for a test")
    options = parser.parse_args(arguments)
    text, figures = measure(options)
    report(options, "Small trials in one process", "python -m benchmarks.gpu.packed_on_cpu", text, figures)


if __name__ == "__main__":
    main()
