"""bgsweep: self-supervised pretraining with background augmentations, and the search for their strength."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Albumentations looks for a newer version of itself on the network when it is imported; a cluster node may have none.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Damaged files are named by bgsweep itself, in one line each; OpenCV's own words would stand in between.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

__version__ = "0.1.0"


def runs(name: str, store: Any = None, epochs: bool = False) -> "pd.DataFrame":
    """The trials of a sweep as a pandas DataFrame, one row each.

    Args:
        store: folder or URI, as ``--store``; default ``$BGSWEEP_STORE``, else ``bgsweep_runs``.
        epochs: one row for each epoch of each trial instead.

    Raises:
        UserError: the store has no such sweep.
    """
    # Here: `import bgsweep` must not wait for what this needs.
    from bgsweep.cli.common import default_store, parse_store
    from bgsweep.sweep.trial_table import frame

    return frame(name, default_store() if store is None else parse_store(str(store)), epochs)
