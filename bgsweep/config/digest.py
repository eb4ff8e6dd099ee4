"""The digest of an experiment, and the keys that it leaves out at their defaults."""

import hashlib
import json
from typing import Any

from bgsweep.config.columns import Columns
from bgsweep.config.mask_format import MaskFormat

_ADDED_LATER: dict[str, dict[str, Any]] = {
    "workers": {"min_count": None},
    "data": {
        "holdout_seed": 0,
        "dataset": None,
        "decode_side": None,
        "mask_format": MaskFormat().model_dump(mode="json"),
        "columns": Columns().model_dump(mode="json"),
    },
    "encoder": {"weights": None, "weights_digest": None, "drop_path": 0.0},
    "optimizer": {"clip_norm": None, "clip_each": False},
    "views": {"extra": [], "albumentations": None},
    "background": {
        "swap_form": "full",
        "swap_negative": "silhouette",
        "foreground_scale": 1.0,
        "foreground_position": 0,
        "blend": "hard",
        "mask_blur": 0.0,
    },
}
"""Keys that did not exist when the first checkpoints were written, with their defaults. Add every new key here."""


def digest_of(tree: dict[str, Any], held_out: bool, swaps: bool) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON: keys sorted, defaults written out.

    Keys of `_ADDED_LATER` are left out at their defaults, so that checkpoints made before they existed resume; but not
    where the default changed what is computed: with BG_Swaps, or with splits that are held out. Weights to start from
    count by their own digest, wherever they lie.

    Args:
        tree: the experiment as plain values, which are changed here.
        held_out: validation or test are a share of the training images.
        swaps: BG_Swaps is on, at some time.
    """
    for key in ("accelerator_type", "labels", "memory_gb"):  # where it runs, which may change when it is resumed
        del tree["workers"][key]
    del tree["background"]["most_kept"]  # whether it runs
    if tree["data"]["loader_memory_gb"] is None:
        del tree["data"]["loader_memory_gb"]
    if tree["encoder"]["weights_digest"] is not None:
        tree["encoder"]["weights"] = None
    changed: dict[str, set[str]] = {
        "data": {"holdout_seed"} if held_out else set(),
        "background": set(_ADDED_LATER["background"]) if swaps else set(),
    }
    for section, defaults in _ADDED_LATER.items():
        kept = changed.get(section, set())
        pairs = tree[section].items()
        tree[section] = {key: value for key, value in pairs if key in kept or (key, value) not in defaults.items()}
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
