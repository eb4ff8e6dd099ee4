"""The view pipelines of MoCo-v2, BYOL and SwAV, built from the configuration, with addressed randomness."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import albumentations as A
import numpy as np

from bgsweep.augment.backdrop import Donor
from bgsweep.augment.composite import Image, Mask, Rect
from bgsweep.augment.crop import Applied, BackgroundResizedCrop, Swap
from bgsweep.config.experiment import Background, PerView, Views

LARGE_VIEWS = 2


class Picture(Protocol):
    """An image with a foreground mask that is decoded when somebody asks for it; `data.Sample` is one."""

    @property
    def id(self) -> str: ...

    @property
    def image(self) -> Image: ...

    @property
    def mask(self) -> Mask | None: ...

    @property
    def background_rect(self) -> Rect | None: ...

    @property
    def plate(self) -> Image: ...


class ViewResult(NamedTuple):
    """One view and what was done to its background.

    Attributes:
        image: size x size x 3, uint8, contiguous.
        applied: ``none`` (no background augmentation was drawn), ``removed``, ``replaced``, or ``kept_small`` and
            ``kept_large``: one was drawn, but the foreground's share of the crop is out of bounds.
    """

    image: Image
    applied: Applied


class ViewPipeline:
    """Makes the views of an image: two large ones, then the small ones of multi-crop.

    A view is cropped (with its background augmentation), flipped, and then treated photometrically, in the order that
    MoCo-v2, BYOL and SwAV share: colour jitter, grey, blur, solarise. Transforms of probability zero are left out. A
    view is a function of its key, the picture and the donor alone: it does not depend on the process that makes it or
    on what was made before.
    """

    def __init__(self, views: Views, background: Background):
        self.n_views = LARGE_VIEWS + views.small_crops
        self.swap_share = background.swap
        # All transforms draw from these two, which are cheap to set to a key: 6 us, where Albumentations' own
        # `set_random_seed` builds two generators for each transform.
        self._uniform, self._bits = random.Random(), np.random.Philox(0)
        shared = np.random.Generator(self._bits)
        self._geometric = [A.Compose(_geometric(views, background, view)) for view in range(self.n_views)]
        self._photometric = [A.Compose(_photometric(views, view)) for view in range(self.n_views)]
        for compose in (*self._geometric, *self._photometric):
            compose.set_random_state(shared, self._uniform)

    def make(self, sample: Picture, donor: Callable[[], Picture], address_key: int, view: int) -> ViewResult:
        """One view of a sample.

        Args:
            sample: its mask is asked for only if a background augmentation was drawn.
            donor: gives the picture that BG_Random takes its background from; called only if it fired, at most once.
            address_key: from `randomness.address`, 64 bits.
            view: 0 and 1 are the large views.
        """
        self._seed(address_key)
        cropped = self._geometric[view](
            image=sample.image, foreground=lambda: sample.mask, donor=lambda: _as_donor(donor())
        )
        image = self._photometric[view](image=cropped["image"])["image"]
        return ViewResult(image, self._geometric[view].transforms[0].params["applied"])

    def make_swap(
        self,
        sample: Picture,
        donor: Callable[[], Picture],
        other: Picture,
        address_key: int,
        swap_key: int,
        view: int = 0,
    ) -> Image:
        """BG_Swaps: another picture's foreground on the background of the view that `make` gives for `address_key`.

        Same crop window, same background, same flip as that view. The placement of the foreground and the photometric
        treatment are drawn from `swap_key`, as those of any other negative are.
        """
        swap = Swap(image=other.image, mask=lambda: other.mask, seed=swap_key)
        self._seed(address_key)
        cropped = self._geometric[view](
            image=sample.image, foreground=lambda: sample.mask, donor=lambda: _as_donor(donor()), swap=swap
        )
        self._seed(swap_key)
        return self._photometric[view](image=cropped["image"])["image"]  # type: ignore[no-any-return]

    def policy(self) -> dict[str, Any]:
        """What is done to each view, as plain values; `albumentations.from_dict` rebuilds each entry of `views`."""
        pairs = zip(self._geometric, self._photometric, strict=True)
        return {"views": [A.Compose([*first.transforms, *second.transforms]).to_dict() for first, second in pairs]}

    def _seed(self, key: int) -> None:
        self._uniform.seed(key)
        self._bits.state = _philox(key)


def _philox(key: int) -> Any:
    """The state of a counter-based generator that starts from a key (Salmon et al. 2011)."""
    zeros = np.zeros(4, np.uint64)
    state = {"counter": zeros, "key": np.array([key, 0], np.uint64)}
    return {"bit_generator": "Philox", "state": state, "buffer": zeros, "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}


def _as_donor(picture: Picture) -> Donor:
    return {"image": picture.image, "rect": lambda: picture.background_rect, "plate": lambda: picture.plate}


def _for_view(value: PerView, view: int) -> float:
    """Pairs are (first view, every other view)."""
    return value[min(view, 1)] if isinstance(value, tuple) else value


def _geometric(views: Views, background: Background, view: int) -> list[A.BasicTransform]:
    small = view >= LARGE_VIEWS
    size = views.small_size if small else views.size
    augmented = not small or background.apply_to == "all"
    crop = BackgroundResizedCrop(
        size=(size, size),
        scale=views.small_scale if small else views.scale,
        ratio=views.ratio,
        remove=_for_view(background.remove, view) if augmented else 0.0,
        random=_for_view(background.random, view) if augmented else 0.0,
        fill=background.fill,
        donor=background.donor,
        min_area=background.min_area,
        max_area=background.max_area,
        mask_key="foreground",
    )
    return [crop, *([A.HorizontalFlip(p=views.flip)] if views.flip else [])]


def _photometric(views: Views, view: int) -> list[A.BasicTransform]:
    *factors, hue = views.jitter
    brightness, contrast, saturation = ((max(0.0, 1 - factor), 1 + factor) for factor in factors)
    transforms = [
        A.ColorJitter(brightness, contrast, saturation, (-hue, hue), p=views.jitter_p if any(views.jitter) else 0.0),
        A.ToGray(p=views.gray),
        # blur_limit=0 derives the kernel from sigma; a fixed one of 23 px costs six times as much for the same blur.
        A.GaussianBlur(blur_limit=0, sigma_limit=views.blur_sigma, p=_for_view(views.blur, view)),
        A.Solarize(threshold_range=(0.5, 0.5), p=_for_view(views.solarize, view)),
    ]
    return [transform for transform in transforms if transform.p > 0]
