"""Metrics of the online evaluation, one file each; their settings are in `bgsweep/config/metrics.py`."""

from bgsweep.evaluation.metrics.base import Measured, OnlineMetric, jackknife_error

__all__ = ["Measured", "OnlineMetric", "jackknife_error"]
