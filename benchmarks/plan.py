"""What `bgsweep plan` expects of a small ASHA sweep against what the sweep then takes.

    python benchmarks/plan.py [--trials 12] [--epochs 9] [--rounds 1] [--record] [--json]

Trials are those of tests/tiny.yaml, two at once. The plan is made first, from two epochs that it measures itself. The
sweep's time is that from the first trial's start to the last one's end, as its journal has it.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import markdown, parser_of, report

TINY = Path(__file__).parents[1] / "tests" / "tiny.yaml"
SPACE = ["space.background.remove={uniform: [0.0, 0.8]}", "space.optimizer.lr={loguniform: [0.01, 0.1]}"]


def bgsweep(folder: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", "bgsweep.cli", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(settings: list[str]) -> dict[str, float]:
    """Minutes as planned (with the range of the rounds) and as they were."""
    with tempfile.TemporaryDirectory() as folder:
        planned = bgsweep(folder, "plan", str(TINY), *settings, "--gpus", "2")["settings"][0]
        found = bgsweep(folder, "sweep", str(TINY), *settings, "search.concurrent=2")
        (journal,) = Path(folder).glob("bgsweep_runs/sweeps/*/journal.jsonl")
        events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    times = {kind: [each["time"] for each in events if each["event"] == kind] for kind in ("started", "ended")}
    seconds = max(times["ended"]) - min(times["started"])
    return {
        "planned_s": 3600 * planned["hours"],
        "low_s": 3600 * planned["hours_low"],
        "high_s": 3600 * planned["hours_high"],
        "real_s": seconds,
        "planned_epochs": planned["epochs"],
        "real_epochs": sum(trial["epochs"] for trial in found["trials"]),
        "ratio": 3600 * planned["hours"] / seconds,
    }


def main() -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=1, help="sweeps, each with another seed")
    options = parser.parse_args()
    found = []
    for seed in range(options.rounds):
        settings = [f"search.trials={options.trials}", f"training.epochs={options.epochs}", f"search.seed={seed}"]
        found.append(measure([*SPACE, *settings, "search.reduction=3"]))
    rows = [
        [
            f"{each['planned_s']:.0f} ({each['low_s']:.0f} to {each['high_s']:.0f})",
            f"{each['real_s']:.0f}",
            f"{each['ratio']:.2f}",
            f"{each['planned_epochs']:.0f}",
            f"{each['real_epochs']:.0f}",
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
