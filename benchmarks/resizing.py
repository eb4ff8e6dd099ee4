"""Does it matter to the encoder whether views are resized with antialiasing? MoCo-v2's small recipe, several seeds,
64 epochs.

    python benchmarks/resizing.py [--seeds 3] [--processes 2] [--record] [--json]

The embedded images are taken at their own size (106 px), so that the crops are made three times smaller on
average, which is more than ImageNet's are. Everything else, the seeds included, is the same; accuracies are kNN's and
the linear probe's on the test images, in %, and their differences paired by seed. `benchmarks/pipeline.py` has the
time that either takes.
"""

import multiprocessing
import statistics

from common import markdown, parser_of, report
from methods import one

WAYS = ("linear", "area")
VARIANTS = ("original", "mixed_rand", "only_fg")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    changes = {way: ["data.resize=null", "training.epochs=64", f"views.interpolation={way}"] for way in WAYS}
    jobs = [("moco_v2", seed, changes[way]) for seed in range(options.seeds) for way in WAYS]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        runs = pool.map(one, jobs, chunksize=1)
    rows, found = [], {}
    for probe, key in (("kNN", "backgrounds"), ("linear probe", "backgrounds_linear")):
        for variant in VARIANTS:
            of = {way: [100 * run["trained"][key][variant] for run in runs[place::2]] for place, way in enumerate(WAYS)}
            of["area - linear"] = [area - linear for linear, area in zip(of["linear"], of["area"], strict=True)]
            rows.append(
                [f"{probe}, {variant}", *(f"{statistics.mean(v):.1f}±{statistics.stdev(v):.1f}" for v in of.values())]
            )
            found[f"{key}_{variant}"] = of
    title = f"Resizing with and without antialiasing, {options.seeds} seeds each, in %"
    command = f"python benchmarks/resizing.py --processes {options.processes}"
    report(options, title, command, markdown(["", *WAYS, "area - linear"], rows), found)


if __name__ == "__main__":
    main()
