"""Encoders and projection heads."""

from bgsweep.models.encoders import ImageEncoder, build_encoder, to_unit
from bgsweep.models.heads import mlp
from bgsweep.models.sync_batchnorm import convert_sync_bn

__all__ = ["ImageEncoder", "build_encoder", "convert_sync_bn", "mlp", "to_unit"]
