"""The view pipelines of MoCo-v2, BYOL and SwAV, built from the configuration, with a key for every random draw."""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import cv2
import numpy as np

from bgsweep.augment.background import Donor, Negative, area_verdict, resolve_mask
from bgsweep.augment.color import ColorDraw, Colors, render
from bgsweep.augment.policy import composed
from bgsweep.augment.training_crop import Applied, TrainingCrop
from bgsweep.config import albumentations_steps
from bgsweep.config.plugins import imported
from bgsweep.config.schedule import at_epoch, for_view, highest
from bgsweep.config.views import Background, Views
from bgsweep.errors import UserError
from bgsweep.images.compositing import Image, Mask, Rect

LARGE_VIEWS = 2

Transform = Callable[[Image, random.Random], Image]
"""A transform of another package (`views.extra`)."""


# A protocol, since the room of the datasets imports this one.
class MaskedImage(Protocol):
    """An image with a foreground mask that is decoded on first use; `data.Sample` is one."""

    @property
    def id(self) -> str: ...

    @property
    def image(self) -> Image: ...

    @property
    def mask(self) -> Mask | None: ...

    @property
    def background_rect(self) -> Rect | None: ...

    @property
    def inpainted_background(self) -> Image: ...


class ViewResult(NamedTuple):
    """One view and the background augmentation that it got.

    Attributes:
        image: size x size x 3, uint8, contiguous.
        applied: ``none`` (no background augmentation was drawn), ``removed``, ``replaced``, or ``kept_small`` and
            ``kept_large``: one was drawn, but the foreground's share of the crop is out of bounds.
        photometry: the photometric draws, not applied yet, where a device applies them.
    """

    image: Image
    applied: Applied
    photometry: ColorDraw | None = None


class ViewPipeline:
    """Makes the views of an image: two large ones, then the small ones of multi-crop.

    A view is cropped (with its background augmentation), flipped, and then treated photometrically, in the order that
    MoCo-v2, BYOL and SwAV share: colour jitter, grey, blur, solarise. With `views.photometric: device` that last part
    is drawn here but applied to the batch on the device (`color_batched.render`). A view is a function of its key, the
    image and the donor alone: it does not depend on the process that makes it or on what was made before. Probabilities
    that are scheduled over training are those of the epoch given to `set_epoch`, at first of epoch 0.

    Args:
        views: settings of the views.
        background: settings of the background augmentations.
        epochs: length of the run, for schedules.
    """

    def __init__(self, views: Views, background: Background, epochs: int = 1):
        self.background, self.epochs, self._epoch = background, epochs, 0
        self.sizes = [views.size] * LARGE_VIEWS + [views.small_size] * views.small_crops
        self.n_views = len(self.sizes)
        self._crops = [_crop(views, background, view) for view in range(self.n_views)]
        self._negative_kind = background.swap_negative
        self.swaps_keys = background.swap_form == "full"
        # A silhouette of a query without a foreground would be the query itself.
        self.swap_needs = LARGE_VIEWS if self.swaps_keys else int(self._negative_kind == "silhouette")
        self._set_probabilities()
        # Packs store the tiled donor's rectangle beside the image, so that a donor's mask need not be decoded; BG_Swaps
        # shows other images whole.
        self.gives_rect = background.donor == "tiled" and not highest(background.swap)
        self.on_device = views.photometric == "device"
        # All transforms draw from this one generator, which takes 6 us to set to a key: Albumentations' own
        # `set_random_seed` builds two for each transform (80 us for five). Without a key for each view, forked
        # DataLoader workers give identical augmentation streams (albumentations 2.0.8).
        self._uniform = random.Random()
        self._flip = views.flip
        self._extra_names = [each.model_dump(mode="json") for each in views.extra]
        self._extra: list[Transform] = [imported(each.implementation, each.name)(each) for each in views.extra]
        self._photometric = [_photometric(views, view) for view in range(self.n_views)]
        for crop, colors in zip(self._crops, self._photometric, strict=True):
            crop.py_random = colors.py_random = self._uniform
        # Albumentations' transforms draw from NumPy's generator besides; ours never do.
        self._numpy = np.random.Generator(np.random.PCG64(0))
        self._albumentations = self._built(views.albumentations)

    def set_epoch(self, epoch: int) -> None:
        """Switch to the probabilities of another epoch, counted from 0."""
        if self.background.scheduled and epoch != self._epoch:
            self._epoch = epoch
            self._set_probabilities()

    def _set_probabilities(self) -> None:
        background, now = self.background, (self._epoch, self.epochs)
        remove, replace = at_epoch(background.remove, *now), at_epoch(background.random, *now)
        for view, crop in enumerate(self._crops):
            # By default only large views, as in ReLICv2 (Tomasev et al. 2022): small crops are often all foreground or
            # all background.
            if view < LARGE_VIEWS or background.apply_to == "all":
                crop.remove, crop.random = for_view(remove, view), for_view(replace, view)
        self.swap_share = highest(at_epoch(background.swap, *now))
        self.donor_views = [view for view, crop in enumerate(self._crops) if crop.random]

    def background_of(self, rng_key: int, view: int) -> Applied:
        """The background augmentation that is drawn for a view, whatever its foreground: one of the first three."""
        self._uniform.seed(rng_key)
        return self._crops[view].draw_background()

    def swap_fits(self, sample: MaskedImage, rng_keys: Sequence[int]) -> bool:
        """True if the foregrounds of the views with these keys, the first ones, are within the area bounds.

        BG_Swaps needs this of `swap_needs` views, in its full form of both large ones: otherwise the key would keep the
        background that the negative shares with the query, and a query without a foreground would be its own negative.
        """
        # The draws of `make`, repeated from the same keys, so that nothing is passed between the two.
        mask = resolve_mask(sample.mask)
        for view, key in enumerate(rng_keys):
            crop = self._crops[view]
            self._uniform.seed(key)
            _, window = crop.draw_window(mask.shape[0], mask.shape[1])
            if area_verdict(window.of(mask), crop.min_area, crop.max_area) is not None:
                return False
        return True

    def make(
        self, sample: MaskedImage, donor: Callable[[], MaskedImage], rng_key: int, view: int, replace: bool = False
    ) -> ViewResult:
        """One view of a sample.

        Args:
            sample: its mask is asked for only if a background augmentation was drawn.
            donor: gives the image whose background BG_Random shows; called only if it was drawn, at most once.
            rng_key: from `seeding.view_key`, 64 bits.
            view: 0 and 1 are the large views.
            replace: take the donor's background whatever was drawn; all other draws stay as they are.
        """
        self._uniform.seed(rng_key)
        return self._finished(*self._cropped(sample, donor, view, replace=replace), view)

    def make_swap(
        self,
        sample: MaskedImage,
        donor: Callable[[], MaskedImage],
        other: MaskedImage,
        rng_key: int,
        swap_keys: tuple[int, int],
        view: int = 0,
    ) -> ViewResult:
        """BG_Swaps' negative: another image in front of the background of the view that `make` gives for `rng_key`.

        It has the crop window, background and flip of that view. The part of the other image that shows and the
        photometric draws come from `swap_keys` (`seeding.swap_keys`), so that they differ from the query's, and from
        each other, as those of other negatives do.
        """
        negative = Negative(kind=self._negative_kind, image=other.image, mask=lambda: other.mask, seed=swap_keys[0])
        self._uniform.seed(rng_key)
        cropped, _ = self._cropped(sample, donor, view, negative)
        # Colours of its own: with the query's, the negative could be recognised by them.
        self._uniform.seed(swap_keys[1])
        return self._finished(cropped, "none", view)

    def policy(self) -> dict[str, Any]:
        """The transforms of each view as plain values, in Albumentations' format.

        `albumentations.from_dict` rebuilds each entry of `views`, once `augment.training_transforms` is imported.
        """
        colors: Sequence[Colors | list[Any]] = self._albumentations or self._photometric
        pairs = zip(self._crops, colors, strict=True)
        found: dict[str, Any] = {"views": [composed(crop, self._flip, each) for crop, each in pairs]}
        if self._extra:
            found["extra"] = self._extra_names
        if self.background.scheduled:
            # The probabilities in `views` are those of the first epoch.
            found["schedules"] = self.background.model_dump(mode="json", include={"remove", "random", "swap"})
            found["epochs"] = self.epochs
        return found

    def _cropped(
        self,
        sample: MaskedImage,
        donor: Callable[[], MaskedImage],
        view: int,
        negative: Negative | None = None,
        replace: bool = False,
    ) -> tuple[Image, Applied]:
        # The calls that Albumentations' `Compose` makes, without its checks of the inputs, which take as long as the
        # flip does. A test holds both equal.
        crop, image = self._crops[view], sample.image
        foreground, donors = (lambda: sample.mask), (lambda: _as_donor(donor()))
        params = crop.draw(image.shape[0], image.shape[1], foreground, replace)
        cropped = crop.apply(image, **params, foreground=foreground, donors=donors, negative=negative)
        if self._uniform.random() < self._flip:
            cropped = cast(Image, cv2.flip(cropped, 1))
        return cropped, params["applied"]

    def _finished(self, cropped: Image, applied: Applied, view: int) -> ViewResult:
        if self._albumentations is not None:
            finished = self._transformed(cropped, self._albumentations[view])
        else:
            transform = self._photometric[view]
            photometry = transform.draw()
            # uint8 in either case: normalising here would cost 19 to 23 % of a core's time and make batches four times
            # as large.
            if self.on_device:
                return ViewResult(cropped, applied, photometry)
            finished = render(cropped, photometry, transform.color)
        for extra in self._extra:
            finished = extra(finished, self._uniform)
            _check_same(finished, cropped, "extra", extra)
        return ViewResult(finished, applied)

    def _built(self, steps: Sequence[Any] | None) -> list[list[Any]] | None:
        """The transforms of `views.albumentations` for each view, which draw from this pipeline's generators."""
        if steps is None:
            return None
        lists = albumentations_steps.per_view(steps)
        built = [albumentations_steps.build(lists[min(view, len(lists) - 1)]) for view in range(self.n_views)]
        for transform in (each for transforms in built for each in transforms):
            transform.set_random_state(self._numpy, self._uniform)
        return built

    def _transformed(self, view: Image, transforms: Sequence[Any]) -> Image:
        # From the view's own key, so that these draws too depend neither on the process nor on what was made before.
        self._numpy.bit_generator.state = np.random.PCG64(self._uniform.getrandbits(64)).state
        result = view
        for transform in transforms:
            result = transform(image=result)["image"]
            _check_same(result, view, "albumentations", transform)
        return result


def _check_same(view: Image, before: Image, key: str, transform: object) -> None:
    if view.dtype != np.uint8 or view.shape != before.shape:
        raise UserError(
            f"views.{key}: {type(transform).__name__} made {view.dtype} {view.shape} of a view of uint8 "
            f"{before.shape}; give one of the same size and type"
        )


def _as_donor(image: MaskedImage) -> Donor:
    return {
        "image": image.image,
        "rect": lambda: image.background_rect,
        "inpainted": lambda: image.inpainted_background,
    }


def _crop(views: Views, background: Background, view: int) -> TrainingCrop:
    small = view >= LARGE_VIEWS
    size = views.small_size if small else views.size
    return TrainingCrop(
        size=(size, size),
        scale=views.small_scale if small else views.scale,
        ratio=views.ratio,
        fill=background.fill,
        donor=background.donor,
        min_area=background.min_area,
        max_area=background.max_area,
        foreground_scale=background.foreground_scale,
        foreground_position=background.foreground_position,
        blend=background.blend,
        mask_blur=background.mask_blur,
        interpolation=views.interpolation,
    )


def _photometric(views: Views, view: int) -> Colors:
    return Colors(
        jitter=views.jitter,
        jitter_p=views.jitter_p if any(views.jitter) else 0.0,
        gray=views.gray,
        blur=for_view(views.blur, view),
        blur_sigma=views.blur_sigma,
        solarize=for_view(views.solarize, view),
        color=views.color,
    )
