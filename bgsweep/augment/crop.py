"""Crop, background augmentation and resize in one transform, each pixel touched once."""

import math
import random
from typing import Any, Literal, cast

import albumentations as A
import cv2
from pydantic import AfterValidator, Field
from typing_extensions import Annotated

from bgsweep.augment.background import (
    AreaSchema,
    DonorMode,
    FillMode,
    Scale,
    Share,
    _ordered,
    area_verdict,
    draw_donor,
    removal,
    replacement,
    resolve_mask,
)
from bgsweep.augment.composite import Image, Mask, Rect, binarize

Interpolation = Literal["linear", "area"]
_CV2 = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
