"""bgsweep: self-supervised pretraining with background augmentations, and the search for their strength."""

import os

# Albumentations looks for a newer version of itself on the network when it is imported; a cluster node may have none.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Damaged files are named by bgsweep itself, in one line each; OpenCV's own words would stand in between.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

__version__ = "0.1.0"
