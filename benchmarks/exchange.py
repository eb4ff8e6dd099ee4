"""CPU time that the exchange of gradients between two workers costs a step, by the options of PyTorch's DDP.

    python benchmarks/exchange.py [--size 96] [--steps 3] [--rounds 3] [--record]

Two processes of one thread train the experiment of benchmarks/around.py from one batch in memory, without Ray, by each
form in turn, round after round. CPU seconds are those of a step in the first process with all its threads, which other
programs change less than the wall's; `wall` means something on a machine with nothing else to do only. `differs` is the
largest difference of a weight from the form in use after the run: 0 is bit for bit.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from around import BATCH, EXPERIMENT
from common import below, markdown, parser_of, report
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from bgsweep.config import resolve
from bgsweep.training.build import NO_BROADCAST
from bgsweep.training.run import Run, limit_threads

FORMS: dict[str, dict[str, Any]] = {
    "none": {},
    "in use": {},
    "static graph": {"static_graph": True},
    "one bucket": {"bucket_cap_mb": 1000},
    "gradients in bfloat16": {},
}


def formed(method: nn.Module, form: str) -> nn.Module:
    """A method whose gradients are exchanged in a form of FORMS."""
    if form == "none":
        return method
    model = DistributedDataParallel(method, gradient_as_bucket_view=True, **NO_BROADCAST, **FORMS[form])
    if form == "gradients in bfloat16":
        model.register_comm_hook(None, bf16_compress_hook)
    return model


def work(rank: int, folder: str, options: argparse.Namespace) -> None:
    limit_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/met", rank=rank, world_size=2)
    tree = {"experiment": {**EXPERIMENT, "views": {"size": options.size}, "training": {"batch_size": 2 * BATCH}}}
    runs = {form: Run(resolve(tree), rank, 2) for form in FORMS}
    batch = next(iter(runs["none"].training.batches.epoch(0)))
    for form, run in runs.items():
        run.training.model = formed(run.training.method, form)  # type: ignore[assignment]
        run.training.model.train()
    took: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
    for turn in range(options.rounds + 1):
        for form, run in runs.items():
            torch.distributed.barrier()
            cpu, wall = time.process_time(), time.perf_counter()
            for step in range(options.steps):
                run.training._step(batch, turn * options.steps + step)
            took[form].append(
                ((time.process_time() - cpu) / options.steps, (time.perf_counter() - wall) / options.steps)
            )
    if rank == 0:
        differs = {form: _difference(runs["in use"].training.method, run.training.method) for form, run in runs.items()}
        Path(folder, "found").write_text(json.dumps({form: [took[form][1:], differs[form]] for form in FORMS}))
    torch.distributed.destroy_process_group()


def _difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=3, help="of each form in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, (folder, options), nprocs=2)
        made = json.loads(Path(folder, "found").read_text(encoding="utf-8"))
    rows, found = [], {}
    for form, (took, differs) in made.items():
        used = [mine[0] / bare[0] for mine, bare in zip(took, made["none"][0], strict=True)]
        wall = [mine[1] / bare[1] for mine, bare in zip(took, made["none"][0], strict=True)]
        cpu = statistics.median(each[0] for each in took)
        found[form] = {"cpu_s": round(cpu, 3), "cpu_ratio": round(statistics.median(used), 3)}
        found[form] |= {"wall_ratio": round(statistics.median(wall), 3), "differs": differs}
        of_found = found[form]
        rows.append([form, f"{cpu:.2f}", str(of_found["cpu_ratio"]), str(of_found["wall_ratio"]), f"{differs:.1e}"])
    body = markdown(["exchange", "CPU s a step", "by none", "wall by none", "differs"], rows)
    words = f"ResNet-18, {options.size} px, batch {BATCH} a worker, {options.rounds} rounds of {options.steps} steps"
    body += below(words, found)
    report(options, "The exchange between two workers", "python benchmarks/exchange.py", body, found)


if __name__ == "__main__":
    main()
