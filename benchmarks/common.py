"""The date, machine and versions that every benchmark prints beside its figures."""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "RESULTS.md"
_PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "albumentations")


def machine() -> str:
    """One line: date, processor or GPU, cores, Python and package versions."""
    import torch

    from bgsweep.data.cores import usable_cores

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES if _installed(name))
    return f"{date.today()}, {device}, {usable_cores()} cores, Python {platform.python_version()}, {versions}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def below(words: str, found: Any) -> str:
    """The lines below a table: how it was measured, the machine's load, and the figures as JSON."""
    return f"\n\n{words}, load {os.getloadavg()[1]:.1f}\n\n`{json.dumps(found)}`"


def parser_of(text: str) -> argparse.ArgumentParser:
    """A benchmark's command line, with the options that `report` goes by."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="append the table to RESULTS.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser


def report(options: argparse.Namespace, title: str, command: str, body: str, found: Any) -> None:
    """Print the table and what else was asked for; in RESULTS.md it becomes a section."""
    print(body)
    if options.record:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(f"\n## {title}\n`{command}`, {machine()}\n\n{body}\n")
    if options.json:
        print(json.dumps(found))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    found = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return found or platform.processor() or platform.machine()


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ImportError:
        return False
