"""Masks that leave a background augmentation little to do: counted, and told at the start of every command."""

from collections.abc import Mapping

import cv2

from bgsweep.config import Background
from bgsweep.images.compositing import Mask, foreground_area

TINY, HUGE = Background().min_area, Background().max_area
"""Shares of the foreground below and above which training leaves a view unaugmented, by default."""

_WORDS = {
    "empty": "empty",
    "faint": "never above half",
    "tiny": f"below {TINY:.0%} of the image",
    "huge": f"above {HUGE:.0%} of the image",
}


def kind_of(mask: Mask) -> str:
    """``empty``, ``faint`` (levels up to 127 only, which count as background), ``tiny``, ``huge`` or ``usable``."""
    area = foreground_area(mask)
    if area == 0:
        return "faint" if cv2.countNonZero(mask) else "empty"
    return "tiny" if area < TINY else "huge" if area > HUGE else "usable"


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """The share of each kind of mask that is not usable, 0 to 1."""
    total = max(1, sum(counts.values()))
    return {kind: counts.get(kind, 0) / total for kind in _WORDS}


def told(counts: Mapping[str, int]) -> str:
    """The shares above 0 in words, with the number of masks that they are of."""
    found = ", ".join(f"{share:.1%} {_WORDS[kind]}" for kind, share in shares(counts).items() if share)
    hint = "; `bgsweep masks show` draws such masks first" if found else ""
    return f"{sum(counts.values())} masks looked at: {found or 'none is empty, tiny or huge'}{hint}"
