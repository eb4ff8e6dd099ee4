"""What every benchmark says beside its figures: when, on what machine, with which versions."""

import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"
_PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "albumentations")


def machine() -> str:
    """One line: date, processor or GPU, cores, Python and package versions."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES if _installed(name))
    cores = len(os.sched_getaffinity(0))
    return f"{date.today()}, {device}, {cores} cores, Python {platform.python_version()}, {versions}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def record(title: str, command: str, body: str) -> None:
    """Append a section to RESULTS.md."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(f"\n## {title}\n`{command}`, {machine()}\n\n{body}\n")


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
