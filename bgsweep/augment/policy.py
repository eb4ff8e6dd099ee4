"""The transforms of a view as plain values, in the format of Albumentations 2.0.8, and written without it."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from bgsweep.augment.color import Colors
from bgsweep.augment.training_crop import TrainingCrop


def composed(crop: TrainingCrop, flip: float, colors: Colors | Iterable[Any]) -> dict[str, Any]:
    """A view's pipeline; `albumentations.from_dict` rebuilds it once `augment.training_transforms` is imported.

    Args:
        flip: probability of the horizontal flip.
        colors: bgsweep's own, or transforms of Albumentations.
    """
    transforms = [
        _ours("BackgroundResizedCrop", crop) | {"mask_key": "foreground", "metadata_key": "donor"},
        {"__class_fullname__": "HorizontalFlip", "p": flip},
    ]
    if isinstance(colors, Colors):
        transforms.append(_ours("Photometric", colors))
    else:
        transforms += [each.to_dict()["transform"] for each in colors]
    whole = {"__class_fullname__": "Compose", "p": 1.0, "transforms": transforms, "bbox_params": None}
    whole |= {"keypoint_params": None, "additional_targets": {}, "is_check_shapes": True}
    return {"__version__": "2.0.8", "transform": whole}


def _ours(name: str, transform: TrainingCrop | Colors) -> dict[str, Any]:
    arguments = {each.name: getattr(transform, each.name) for each in fields(transform) if each.init}
    return {"__class_fullname__": f"bgsweep.augment.training_transforms.{name}", **arguments, "p": 1.0}
