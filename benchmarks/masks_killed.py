"""A mask run that is killed half-way and continued, against one that is not: the same tree, byte for byte?

    python benchmarks/masks_killed.py CLOTHING10 --method rbd --record

CLOTHING10 holds images/train. `bgsweep masks make` runs in a process of its own, on one core; half of the masks there,
it gets SIGKILL and is started again.
"""

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import markdown, parser_of, report


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def make(command: list[str], out: Path, kill_at: int | None = None) -> float:
    """Run to the end, or until so many masks are there; seconds."""
    began = time.perf_counter()
    with subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if kill_at is not None and sum(1 for _ in out.rglob("*.png")) >= kill_at:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.2)
    if kill_at is None and process.returncode:
        raise SystemExit(f"masks make failed with {process.returncode}")
    return time.perf_counter() - began


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clothing10", type=Path)
    parser.add_argument("--method", default="rbd")
    parser.add_argument("--weights")
    options = parser.parse_args()
    images = options.clothing10 / "images" / "train"
    count = sum(1 for path in images.rglob("*") if path.is_file())
    command = [sys.executable, "-m", "bgsweep.cli", "masks", "make", str(images), "--method", options.method]
    command += ["--workers", "1", *(["--weights", options.weights] if options.weights else [])]
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place, "whole"), Path(place, "killed")
        seconds = make(command, whole)
        until_killed = make(command, killed, kill_at=count // 2)
        there = sum(1 for _ in killed.rglob("*.png"))
        continued = make(command, killed)
        again = make(command, killed)
        same = digests(whole) == digests(killed)
    found: dict[str, Any] = {"method": options.method, "images": count, "seconds": seconds, "killed_with": there}
    found |= {
        "seconds_until_killed": until_killed,
        "seconds_continued": continued,
        "same": same,
        "seconds_again": again,
    }
    cells = [options.method, str(count), *(f"{value:.0f}" for value in (seconds, until_killed)), str(there)]
    cells += [f"{continued:.0f}", "yes" if same else "NO", f"{again:.1f}"]
    columns = ("method", "images", "s, uninterrupted", "s until killed", "masks then", "s, continued")
    table = markdown([*columns, "same bytes", "s, looked at again"], [cells])
    title = f"{options.method} over clothing10's training set, killed with SIGKILL half-way and continued"
    report(options, title, f"python benchmarks/masks_killed.py CLOTHING10 --method {options.method}", table, found)
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
