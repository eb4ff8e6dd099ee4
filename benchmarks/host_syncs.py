"""Times that a training step makes the host wait for the GPU, counted without one, before and after.

    python benchmarks/host_syncs.py [--before CHECKOUT] [--record] [--json]

The cases are those of tests/training/test_host_syncs.py, on its fake GPU: each is two steps, forward and backward, and
everything counts for which the host would wait: values that are read, copies to the host, copies to the device that
block. `--before` counts another checkout of bgsweep beside this one; a case whose shapes depend on values there, so
that it cannot be followed without a GPU, has no number.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from common import markdown, parser_of, report

ROOT = Path(__file__).parents[1]
PROGRAM = """
import json
from unittest.mock import patch
import torch
from bgsweep.models.vit import SHAPES
from tests.training.test_host_syncs import CASES, syncs_of

torch.set_num_threads(1)
move = torch.nn.Module.to
# Fake parameters cannot be laid out anew in place, as earlier versions did; how they are makes no host wait.
torch.nn.Module.to = lambda self, *where, **how: move(self, *where, **how) if where or "device" in how else self
found = {}
for name, settings in CASES.items():
    with patch.dict(SHAPES, {"vit_s_16": (16, 16, 2, 2)}):
        try:
            found[name] = len(syncs_of(settings)) / 2
        except RuntimeError:
            found[name] = None
print(json.dumps(found))
"""


def count(checkout: Path) -> dict[str, float | None]:
    """The syncs of a step in each case; `tests` are this checkout's where the other has none of the name."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # torch prints a traceback for each case that cannot be followed
        text=True,
        env=os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{ROOT}"},
        cwd=checkout,  # the folder in which it is run comes first
    )
    found: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--before", type=Path, help="another checkout of bgsweep")
    options = parser.parse_args()
    found = {"before": count(options.before.absolute())} if options.before else {}
    found["after"] = count(ROOT)
    rows = [
        [name, *("" if each[name] is None else f"{each[name]:g}" for each in found.values())] for name in found["after"]
    ]
    body = markdown(["two steps on a fake GPU", *(f"syncs a step, {version}" for version in found)], rows)
    report(options, "Waits of the host for the GPU", "python benchmarks/host_syncs.py", body, found)


if __name__ == "__main__":
    main()
