"""The sweeps of a store: their names, and the manifest in each one's folder."""

import difflib
import json
import logging
import re
from pathlib import Path
from typing import Any

from bgsweep.config.base import NAME_PATTERN
from bgsweep.errors import UserError, one_line
from bgsweep.storage.atomic import write_whole
from bgsweep.storage.layout import sweep_folder

MANIFEST_FILE = "sweep.json"

# In every manifest. ``file`` is the sweep's config; its result is added when the sweep has ended.
_KEYS = {"file", "digest", "parent", "owner"}
_OWNER_KEYS = {"bgsweep.host", "bgsweep.pid", "bgsweep.born"}
_FIX = "move that folder out of the store, or restore the file"

_log = logging.getLogger(__name__)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of the sweep in a folder, whole or not at all."""
    write_whole(folder / MANIFEST_FILE, json.dumps(manifest, indent=1).encode() + b"\n")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the sweep in a folder; None if there is none.

    Raises:
        UserError: it cannot be read, or another program has written it.
    """
    path = folder / MANIFEST_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; {_FIX}") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path}: damaged ({one_line(error)}); {_FIX}") from error
    owner = found.get("owner") if isinstance(found, dict) and found.keys() >= _KEYS else None
    if not isinstance(owner, dict) or not owner.keys() >= _OWNER_KEYS:
        raise UserError(f"{path}: not a manifest that bgsweep wrote; {_FIX}")
    return dict(found)


def check_name(name: str) -> None:
    """Raise UserError for a name that a sweep, which is a folder of the store, cannot have."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(
            f"{name!r}: not a name for a sweep; use letters, digits, '.', '-' and '_', with a letter or digit first"
        )


def find_sweep(name: str, store: Path) -> tuple[Path, dict[str, Any]]:
    """The folder and manifest of a sweep.

    Raises:
        UserError: the store has no such sweep.
    """
    check_name(name)
    folder = Path(sweep_folder(store, name))
    manifest = read_manifest(folder)
    if manifest is None:
        known = [path.name for path, _ in sweeps(store)]
        near = difflib.get_close_matches(name, known, n=1)
        if near:
            hint = f"did you mean {near[0]}?"
        elif known:
            hint = f"there are: {', '.join(known[:5])}"
        else:
            hint = "it has none; name the sweep's store by --store"
        raise UserError(f"{store}: no sweep {name}; {hint}")
    return folder, manifest


def sweeps(store: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Folders and manifests of all sweeps of a store, the latest first.

    One that cannot be read must not hide the others: it is named in a warning.
    """
    found = []
    for path in (store.absolute() / "sweeps").glob(f"*/{MANIFEST_FILE}"):
        try:
            manifest = read_manifest(path.parent)
        except UserError as error:
            _log.warning("left out: %s", error)
        else:
            if manifest is not None:
                found.append((path.parent, manifest))
    return sorted(found, key=lambda one: began(*one), reverse=True)


def began(folder: Path, manifest: dict[str, Any]) -> float:
    """Start of a sweep in seconds since 1970; for a manifest without it, the time of the manifest's last change."""
    told = manifest.get("began")
    return told if isinstance(told, float) else (folder / MANIFEST_FILE).stat().st_mtime
