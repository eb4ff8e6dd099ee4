"""BG_RM, BG_Random and BG_Swaps' negative (Ryali et al., arXiv 2103.12719) as transforms of torchvision v2.

    v2.Compose([v2.RandomResizedCrop(224), RemoveBackground(p=0.2), RandomBackground(others, p=0.2), v2.ColorJitter()])(
        tv_tensors.Image(image), tv_tensors.Mask(mask)
    )

Put them after the crop, so that the area bounds are those of the view, and before the photometric transforms, so that
foreground and background share them. All draws come from torch's generator, which `DataLoader` seeds in each worker.
The pixels are computed on the CPU.
"""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from bgsweep.augment.background import (
    DonorMode,
    FillMode,
    Negative,
    NegativeKind,
    area_verdict,
    random_background,
    removed_background,
)
from bgsweep.augment.inputs import AnyImage, bytes_of, checked_image, chosen_donor, foreground, in_front, with_negative
from bgsweep.images.compositing import Mask

_DRAWS = 6  # the same number whatever is applied, so that transforms behind draw the same


class _BackgroundTransform(v2.Transform):  # type: ignore[misc]
    """Base of transforms of one `tv_tensors.Image` by its `tv_tensors.Mask`; all other inputs pass unchanged."""

    _transformed_types = (tv_tensors.Image, tv_tensors.Mask)

    def __init__(self, p: float, min_area: float, max_area: float) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p: a probability is between 0 and 1, not {p}")
        if not 0 <= min_area <= max_area <= 1:
            raise ValueError(f"min_area, max_area: must be 0 <= min_area <= max_area <= 1, not {min_area}, {max_area}")
        self.p, self.min_area, self.max_area = p, min_area, max_area

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        for kind in self._transformed_types:
            if (count := sum(isinstance(each, kind) for each in flat_inputs)) != 1:
                raise TypeError(f"{type(self).__name__}: needs one tv_tensors.{kind.__name__} as input, not {count}")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        drawn, *draws = torch.rand(_DRAWS, dtype=torch.float64).tolist()
        if drawn >= self.p:
            return {"pixels": None}
        image, mask = (next(each for each in flat_inputs if isinstance(each, kind)) for kind in self._transformed_types)
        pixels = _pixels(image, "image")
        front = foreground(_array(mask), pixels.shape[:2], "mask")
        verdict = area_verdict(front, self.min_area, self.max_area)
        return {"pixels": self.changed(pixels, front, draws) if verdict is None else None}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        if params["pixels"] is None or isinstance(inpt, tv_tensors.Mask):
            return inpt
        pixels = torch.from_numpy(np.ascontiguousarray(params["pixels"].transpose(2, 0, 1)))
        wrapped: Tensor = tv_tensors.wrap(pixels.to(inpt.device), like=inpt)
        return wrapped

    def changed(self, image: AnyImage, mask: Mask, draws: Sequence[float]) -> AnyImage:
        """The image with another background; height x width x 3.

        Args:
            mask: height x width, 0 to 255.
            draws: five, uniform in [0, 1).
        """
        raise NotImplementedError


class RemoveBackground(_BackgroundTransform):
    """BG_RM: put one color, or noise, behind the foreground.

    Images whose foreground covers less than `min_area` or more than `max_area` of them keep their background.

    Args:
        fill: `random_gray` (a random gray level for each image), `black`, `mean` (the image's mean color) or `noise`.
        min_area: smallest share of the image, 0 to 1.
        max_area: largest share of the image, 0 to 1.
        p: probability of applying the transform.

    Inputs: one `tv_tensors.Image`, 3 x H x W, uint8 or float32 of 0 to 1, and one `tv_tensors.Mask`, H x W or
    1 x H x W: bool, 0 and 1, floats of 0 to 1, or 0 to 255 with the foreground above 127.
    """

    def __init__(
        self, fill: FillMode = "random_gray", min_area: float = 0.01, max_area: float = 0.95, p: float = 0.2
    ) -> None:
        super().__init__(p, min_area, max_area)
        self.fill = _one_of("fill", fill, FillMode)

    def changed(self, image: AnyImage, mask: Mask, draws: Sequence[float]) -> AnyImage:
        view = bytes_of(image) if self.fill == "mean" else np.empty(image.shape, np.uint8)
        return in_front(image, mask, removed_background(view, self.fill, draws[0]))


class RandomBackground(_BackgroundTransform):
    """BG_Random: put another image's background behind the foreground.

    Args:
        donors: the other images, of which one is drawn each time: a sequence, such as a dataset, whose items begin with
            an image and its mask, of the kinds that `RemoveBackground` takes; of any sizes.
        donor: `tiled` (a plane tiled with the donor's largest rectangle without foreground), `inpainted` (the donor
            with its foreground painted over) or `plain` (the donor as it is; its mask is not used).
        scale: range of the window of an inpainted or plain donor, as a share of the largest one that fits.
        min_area, max_area, p: as in `RemoveBackground`.

    Inputs: those of `RemoveBackground`.
    """

    def __init__(
        self,
        donors: Sequence[Any],
        donor: DonorMode = "tiled",
        scale: tuple[float, float] = (0.2, 1.0),
        min_area: float = 0.01,
        max_area: float = 0.95,
        p: float = 0.2,
    ) -> None:
        super().__init__(p, min_area, max_area)
        self._donors, self.donor = _some("donors", donors), _one_of("donor", donor, DonorMode)
        self.scale = _scale(scale)

    def changed(self, image: AnyImage, mask: Mask, draws: Sequence[float]) -> AnyImage:
        pick, share, down, right, _ = draws
        other, other_mask = _item(self._donors, pick)
        given = {"image": other, "mask": other_mask}
        donor = chosen_donor(given, self.donor, pick, "donors")
        height, width = mask.shape
        behind = random_background(donor, self.donor, height, width, self.scale, (pick, share, down, right))
        return in_front(image, mask, behind)


class SwapNegative(_BackgroundTransform):
    """The negative of BG_Swaps: another image in front of the background of this one, the query.

    A query whose foreground is out of the area bounds comes back unchanged, and is no negative of itself: leave it out.

    Args:
        others: the other images, as `donors` of `RandomBackground`.
        kind: `silhouette` (the query's foreground filled with a crop of the other image) or `foreground` (the
            foreground of a crop of the other image, in front of tiles of the query's background).
        scale: range of the crop's share of the other image.
        min_area, max_area: as in `RemoveBackground`; with `foreground` also of the other image's crop.

    Inputs: those of `RemoveBackground`.
    """

    def __init__(
        self,
        others: Sequence[Any],
        kind: NegativeKind = "silhouette",
        scale: tuple[float, float] = (0.2, 1.0),
        min_area: float = 0.01,
        max_area: float = 0.95,
    ) -> None:
        super().__init__(1.0, min_area, max_area)
        self._others, self.kind = _some("others", others), _one_of("kind", kind, NegativeKind)
        self.scale = _scale(scale)

    def changed(self, image: AnyImage, mask: Mask, draws: Sequence[float]) -> AnyImage:
        other, other_mask = _item(self._others, draws[0])
        seed = int(draws[1] * 2**53)
        given = foreground(other_mask, other.shape[:2], "others' mask") if self.kind == "foreground" else None
        negative = Negative(kind=self.kind, image=bytes_of(other), mask=given, seed=seed)
        return with_negative(image, mask, negative, self.scale, self.min_area, self.max_area)


def _some(name: str, images: Sequence[Any]) -> Sequence[Any]:
    if not len(images):
        raise ValueError(f"{name}: is empty; background transforms need at least one other image")
    return images


def _item(images: Sequence[Any], pick: float) -> tuple[AnyImage, Any]:
    """The image that a draw in [0, 1) selects, height x width x 3, and its mask."""
    image, mask, *_ = images[int(pick * len(images))]
    return _pixels(image, "the other image"), _array(mask)


def _pixels(image: Tensor, name: str) -> AnyImage:
    array = _array(image)
    if array.ndim != 3 or array.shape[0] != 3:
        raise ValueError(f"{name}: must be 3 x height x width (RGB), not {' x '.join(map(str, array.shape))}")
    return checked_image(np.ascontiguousarray(array.transpose(1, 2, 0)), name)


def _array(tensor: Any) -> Any:
    """A tensor as an array; of a mask 1 x H x W, H x W."""
    if not isinstance(tensor, Tensor):
        return tensor
    array = tensor.detach().as_subclass(Tensor).cpu().numpy()
    return array[0] if array.ndim == 3 and array.shape[0] == 1 else array


def _one_of(name: str, value: Any, kinds: Any) -> Any:
    if value not in get_args(kinds):
        raise ValueError(f"{name}: {value!r} is none of {', '.join(get_args(kinds))}")
    return value


def _scale(scale: tuple[float, float]) -> tuple[float, float]:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale: must be (low, high) with 0 < low <= high <= 1, not {scale}")
    return scale
