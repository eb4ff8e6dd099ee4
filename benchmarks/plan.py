"""The estimate of `bgsweep plan` for a small ASHA sweep against the time that it takes.

    python benchmarks/plan.py [--trials 12] [--epochs 9] [--rounds 1] [--record] [--json]

Trials are those of tests/tiny.yaml with larger views and a wider network, one at a time, so that they need not share
cores with the driver. A plan is made before and after each sweep, and the mean of the two is taken: a machine that
others use is not equally fast all the time. The sweep's time is that from the first trial's start to the last one's
end, as its journal has it.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import markdown, parser_of, report

from bgsweep.sweep.journal import read_journal

TINY = Path(__file__).parents[1] / "tests" / "tiny.yaml"
SETTINGS = [
    "space.background.remove={uniform: [0.0, 0.8]}",
    "space.optimizer.lr={loguniform: [0.01, 0.1]}",
    "encoder.width=12",
    "views.size=24",
    "data.resize=32",
    "search.reduction=3",
]


def bgsweep(folder: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", "bgsweep.cli", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def planned(settings: list[str]) -> dict[str, float]:
    """Seconds, with the range of the simulation's rounds, and epochs."""
    with tempfile.TemporaryDirectory() as folder:
        found = bgsweep(folder, "plan", str(TINY), *settings, "--gpus", "1")["settings"][0]
    seconds = {name: 3600 * found[f"hours{name}"] for name in ("", "_low", "_high")}
    return {"seconds": seconds[""], "low": seconds["_low"], "high": seconds["_high"], "epochs": found["epochs"]}


def real(settings: list[str]) -> dict[str, float]:
    """Seconds and epochs of a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        found = bgsweep(folder, "sweep", str(TINY), *settings, "search.concurrent=1")
        (place,) = Path(folder).glob("bgsweep_runs/sweeps/*")
        events = [event.public() for event in read_journal(place)]
    times = {kind: [each["time"] for each in events if each["event"] == kind] for kind in ("started", "ended")}
    epochs = sum(trial["epochs"] for trial in found["trials"])
    return {"seconds": max(times["ended"]) - min(times["started"]), "epochs": epochs}


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=1, help="sweeps, each with another seed")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    settings = [*SETTINGS, f"search.trials={options.trials}", f"training.epochs={options.epochs}"]
    before = planned(settings)
    for seed in range(options.rounds):
        was = real([*settings, f"search.seed={seed}"])
        after = planned(settings)
        expected = {name: (before[name] + after[name]) / 2 for name in before}
        found.append({"planned": expected, "real": was, "ratio": expected["seconds"] / was["seconds"]})
        before = after
    rows = [
        [
            "{seconds:.0f} ({low:.0f} to {high:.0f})".format(**each["planned"]),
            f"{each['real']['seconds']:.0f}",
            f"{each['ratio']:.2f}",
            f"{each['planned']['epochs']:.0f}",
            f"{each['real']['epochs']:.0f}",
        ]
        for each in found
    ]
    columns = ["planned s (range of 20 rounds)", "real s", "planned / real", "planned epochs", "real epochs"]
    command = f"python benchmarks/plan.py --trials {options.trials} --epochs {options.epochs} --rounds {options.rounds}"
    report(
        options, f"`bgsweep plan` against a sweep of {options.trials} trials", command, markdown(columns, rows), found
    )


if __name__ == "__main__":
    main()
