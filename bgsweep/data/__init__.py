"""Where photographs and their foreground masks come from, and how they become batches of views."""

from typing import TYPE_CHECKING, Any

from bgsweep.data.pools import BackgroundPools
from bgsweep.data.sample import UNLABELLED, Image, Mask, Sample, Source
from bgsweep.data.splits import Splits, open_splits

if TYPE_CHECKING:
    from bgsweep.data.loader import Batch, Batches

__all__ = [
    "UNLABELLED",
    "BackgroundPools",
    "Batch",
    "Batches",
    "Image",
    "Mask",
    "Sample",
    "Source",
    "Splits",
    "open_splits",
]


def __getattr__(name: str) -> Any:
    """Batches bring torch with them, half a gigabyte that processes which make masks do without."""
    if name in ("Batch", "Batches"):
        from bgsweep.data import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
