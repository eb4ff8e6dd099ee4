"""Runs and models in MLflow. Only this room imports MLflow, and only when it is used."""

from bgsweep.tracking.client import tracking_uri
from bgsweep.tracking.provenance import provenance
from bgsweep.tracking.tracker import Tracker

__all__ = ["Tracker", "provenance", "tracking_uri"]
