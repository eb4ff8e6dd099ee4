"""bgsweep: self-supervised pretraining with background augmentations, and the search for their strength."""

import os

# Albumentations looks for a newer version of itself on the network when it is imported; a cluster node may have none.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
