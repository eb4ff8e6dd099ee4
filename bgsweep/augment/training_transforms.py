"""The transforms that training runs (`TrainingCrop`, `Colors`) as Albumentations transforms.

Training runs them without Albumentations, whose import takes two seconds and scipy's memory in each process. The
policies that bgsweep writes name these: import this module before `albumentations.from_dict`.
"""

from typing import Annotated, Any, cast

import albumentations as A
import cv2
from albumentations.core.serialization import SERIALIZABLE_REGISTRY
from albumentations.core.transforms_interface import BaseTransformInitSchema
from pydantic import AfterValidator, Field

from bgsweep.augment.background import Blend, DonorMode, FillMode, Placement, move_foreground
from bgsweep.augment.color import Color, ColorDraw, Colors, render
from bgsweep.augment.training_crop import Interpolation, TrainingCrop
from bgsweep.augment.transforms import BackgroundSchema, Scale, Share, ordered
from bgsweep.images.compositing import Image, Mask, Rect, binarize

Side = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Strength = Annotated[float, Field(ge=0)]


class BackgroundResizedCrop(TrainingCrop, A.DualTransform):  # type: ignore[misc]
    """`TrainingCrop` for Albumentations pipelines.

    Inputs may hold `replace` (True: BG_Random, whatever was drawn) and `negative`, see there.

    Args:
        mask_key: the input that holds the foreground mask, height x width, or a function that gives it and is called
            only where a background augmentation was drawn. The target `mask`, if there is one, is cropped too.
        metadata_key: the input that holds the donors, as for `RandomBackground`.
        p: probability of applying the transform; without it the image keeps its size.

    The other arguments are those of `TrainingCrop`. Targets: image, mask. Image types: uint8, three channels.
    """

    class InitSchema(BackgroundSchema):
        size: tuple[Side, Side]
        scale: Scale
        ratio: Annotated[tuple[Positive, Positive], AfterValidator(ordered)]
        remove: Share
        random: Share
        fill: FillMode
        donor: DonorMode
        foreground_scale: Annotated[float, Field(ge=1)]
        foreground_position: Annotated[int, Field(ge=0)]
        blend: Blend
        mask_blur: Annotated[float, Field(ge=0)]
        interpolation: Interpolation
        metadata_key: str

    def __init__(
        self,
        size: tuple[int, int],
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        remove: float = 0.0,
        random: float = 0.0,
        fill: FillMode = "random_gray",
        donor: DonorMode = "tiled",
        min_area: float = 0.01,
        max_area: float = 0.95,
        foreground_scale: float = 1.0,
        foreground_position: int = 0,
        blend: Blend = "hard",
        mask_blur: float = 0.0,
        interpolation: Interpolation = "linear",
        mask_key: str = "mask",
        metadata_key: str = "donor",
        p: float = 1.0,
    ):
        TrainingCrop.__init__(
            self,
            size=size,
            scale=scale,
            ratio=ratio,
            remove=remove,
            random=random,
            fill=fill,
            donor=donor,
            min_area=min_area,
            max_area=max_area,
            foreground_scale=foreground_scale,
            foreground_position=foreground_position,
            blend=blend,
            mask_blur=mask_blur,
            interpolation=interpolation,
        )
        # After the fields, so that the generator is Albumentations'.
        A.DualTransform.__init__(self, p=p)
        self.mask_key, self.metadata_key = mask_key, metadata_key

    @property
    def targets_as_params(self) -> list[str]:
        # Parameters, not targets: as a target of Albumentations the mask would be cropped and flipped too, which costs
        # 11 %.
        masks = [self.mask_key] if self.remove or self.random else []
        return [*masks, self.metadata_key] if self.random else masks

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = data["image"].shape[:2]
        return self.draw(height, width, data.get(self.mask_key), data.get("replace", False))

    def apply_with_params(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        # Pixels go to `apply` beside the parameters: among them, ReplayCompose would copy 0.9 MB for each view.
        names = {"foreground": self.mask_key, "donors": self.metadata_key, "negative": "negative"}
        pixels = {name: kwargs.get(key) for name, key in names.items()}
        return cast(dict[str, Any], super().apply_with_params(params | pixels, *args, **kwargs))

    def apply_to_mask(
        self,
        mask: Mask,
        *args: Any,
        window: tuple[int, int, int, int],
        placement: Placement | None = None,
        **params: Any,
    ) -> Mask:
        part: Mask = Rect(*window).of(mask)
        if placement is not None:
            part = binarize(move_foreground(part, part, placement)[1])
        # INTER_NEAREST rounds positions down, the exact variant to the nearest pixel as Pillow does.
        return cast(Mask, cv2.resize(part, self.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))


class Photometric(Colors, A.ImageOnlyTransform):  # type: ignore[misc]
    """`Colors`, whose arguments it takes, for Albumentations pipelines; `p` is the probability of applying it.

    Targets: image. Image types: uint8, three channels.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc]
        jitter: tuple[Strength, Strength, Strength, Annotated[float, Field(ge=0, le=0.5)]]
        jitter_p: Share
        gray: Share
        blur: Share
        blur_sigma: Annotated[tuple[Annotated[float, Field(gt=0)], float], AfterValidator(ordered)]
        solarize: Share
        color: Color

    def __init__(
        self,
        jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
        jitter_p: float = 0.8,
        gray: float = 0.2,
        blur: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        solarize: float = 0.0,
        color: Color = "exact",
        p: float = 1.0,
    ):
        Colors.__init__(
            self,
            jitter=jitter,
            jitter_p=jitter_p,
            gray=gray,
            blur=blur,
            blur_sigma=blur_sigma,
            solarize=solarize,
            color=color,
        )
        A.ImageOnlyTransform.__init__(self, p=p)

    def get_params(self) -> dict[str, Any]:
        return self.draw()._asdict()

    def apply(self, img: Image, **params: Any) -> Image:
        return render(img, ColorDraw(*(params[name] for name in ColorDraw._fields)), self.color)


# The names that earlier versions wrote into policies.
SERIALIZABLE_REGISTRY["bgsweep.augment.training_crop.BackgroundResizedCrop"] = BackgroundResizedCrop
SERIALIZABLE_REGISTRY["bgsweep.augment.color.Photometric"] = Photometric
