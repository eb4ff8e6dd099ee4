"""Runs in MLflow. Only this room and `bgsweep.tracking.models` know MLflow; importing the room does not import it yet."""

from bgsweep.tracking.client import tracking_uri
from bgsweep.tracking.provenance import provenance
from bgsweep.tracking.tracker import Tracker

__all__ = ["Tracker", "provenance", "tracking_uri"]
