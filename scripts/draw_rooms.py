"""Draw docs/architecture.svg: the rooms of bgsweep and the way of an image through them.

python scripts/draw_rooms.py > docs/architecture.svg
"""

from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, COLUMN, ROW, LEFT, TOP = 160, 64, 220, 120, 20, 44


class Room(NamedTuple):
    """A box: its column and row, what it is for, and the colour of its group."""

    column: int
    row: int
    purpose: str
    group: str


COMMANDS, AROUND, CORE, BASE = "#e8eaf6", "#e0f2f1", "#fff8e1", "#f3f4f6"
GROUPS = {
    COMMANDS: "what a user calls",
    AROUND: "around a run: Ray and MLflow",
    CORE: "core: knows neither Ray nor MLflow",
    BASE: "used by all",
}
ROOMS = {
    "cli": Room(0, 0, "parse, call, print", COMMANDS),
    "workflows": Room(1, 0, "a command, start to end", COMMANDS),
    "api": Room(2, 0, "bgsweep from Python", COMMANDS),
    "testing": Room(3, 0, "conformance tests", COMMANDS),
    "sweep": Room(0, 1, "search with Ray Tune", AROUND),
    "distributed": Room(1, 1, "Ray: session, workers", AROUND),
    "report": Room(3, 1, "a sweep as one page", AROUND),
    "tracking": Room(4, 1, "MLflow: runs, models", AROUND),
    "masks": Room(0, 2, "make foreground masks", CORE),
    "data": Room(1, 2, "datasets, splits, loader", CORE),
    "augment": Room(2, 2, "crop, background, colors", CORE),
    "training": Room(3, 2, "loop, checkpoints", CORE),
    "evaluation": Room(4, 2, "evaluators, intervals", CORE),
    "storage": Room(0, 3, "files, object stores", CORE),
    "images": Room(1, 3, "decode, composite", CORE),
    "methods": Room(3, 3, "MoCo-v2, BYOL, SwAV, …", CORE),
    "models": Room(4, 3, "encoders, heads", CORE),
    "config": Room(0, 4, "YAML to typed sections", BASE),
    "seeding": Room(1, 4, "keys of random draws", BASE),
    "errors": Room(2, 4, "UserError", BASE),
    "addresses": Room(3, 4, "check server addresses", BASE),
    "transfer": Room(4, 4, "copies to the device", BASE),
    "stopping": Room(2, 3, "requests to stop", BASE),
}
WAYS = [
    ("cli", "workflows", ""),
    ("workflows", "distributed", "pretrain"),
    ("cli", "sweep", "sweep"),
    ("sweep", "distributed", "trial"),
    ("storage", "images", "bytes"),
    ("images", "data", "image"),
    ("masks", "data", "mask"),
    ("data", "augment", "sample"),
    ("augment", "training", "views"),
    ("training", "methods", "batch, loss"),
    ("methods", "models", ""),
    ("training", "evaluation", "encoder"),
    ("evaluation", "tracking", "named values"),
    ("tracking", "report", ""),
]
"""Arrows with their labels, between rooms that are neighbours in a row or a column."""


def corner(room: Room) -> tuple[int, int]:
    return LEFT + room.column * COLUMN, TOP + room.row * ROW


def box(name: str, room: Room) -> str:
    x, y = corner(room)
    middle = x + WIDTH // 2
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{room.group}" stroke="#607d8b"/>'
        f'<text x="{middle}" y="{y + 27}" class="name">{name}</text>'
        f'<text x="{middle}" y="{y + 48}">{escape(room.purpose)}</text>'
    )


def arrow(start: Room, end: Room, label: str) -> str:
    (x, y), (to_x, to_y) = corner(start), corner(end)
    if start.row == end.row:
        y = to_y = y + HEIGHT // 2
        x, to_x = (x + WIDTH, to_x - 4) if x < to_x else (x, to_x + WIDTH + 4)
        text = f'<text x="{(x + to_x) // 2}" y="{y - 7}" class="label">{label}</text>'
    else:
        x = to_x = x + WIDTH // 2
        y, to_y = (y + HEIGHT, to_y - 4) if y < to_y else (y, to_y + HEIGHT + 4)
        text = f'<text x="{x + 6}" y="{(y + to_y) // 2 + 4}" class="label beside">{label}</text>'
    return f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" marker-end="url(#tip)"/>{text}'


def drawing() -> str:
    """The whole SVG."""
    width, height = 2 * LEFT + 4 * COLUMN + WIDTH, TOP + 4 * ROW + HEIGHT + 20
    legend, x = [], LEFT
    for color, text in GROUPS.items():
        legend.append(f'<rect x="{x}" y="10" width="14" height="14" fill="{color}" stroke="#607d8b"/>')
        legend.append(f'<text x="{x + 20}" y="22" class="label beside">{text}</text>')
        x += 44 + 7 * len(text)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        "<style>text{font-size:12px;fill:#263238;text-anchor:middle}.name{font-size:16px;font-weight:bold}"
        ".label{fill:#455a64}.beside{text-anchor:start}line{stroke:#455a64;stroke-width:1.5}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#455a64"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *legend,
        *(box(name, room) for name, room in ROOMS.items()),
        *(arrow(ROOMS[start], ROOMS[end], label) for start, end, label in WAYS),
        "</svg>",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(drawing())
