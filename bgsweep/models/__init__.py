"""Encoders and projection heads."""

from bgsweep.models.encoders import ImageEncoder, build_encoder, to_unit
from bgsweep.models.heads import mlp

__all__ = ["ImageEncoder", "build_encoder", "mlp", "to_unit"]
