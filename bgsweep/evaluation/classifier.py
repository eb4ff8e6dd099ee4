"""ImageNet's 1000 classes from an encoder: by its own classifier, or by a linear layer on the user's ImageNet.

The user's images may be of some of the classes only, such as ImageNet-100. The others then have logits of minus
infinity, and evaluators leave out images of theirs.
"""

from collections.abc import Iterable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.crops import test_squares
from bgsweep.evaluation.datasets.imagenet import label_of, wnids
from bgsweep.evaluation.datasets.listing import Listing, See, Squares, preprocessing_words
from bgsweep.evaluation.evaluators.linear import LinearHead, fit_linear
from bgsweep.evaluation.evaluators.linear_published import published_layer
from bgsweep.evaluation.features import Features, extract, joined
from bgsweep.evaluation.frozen_model import Head

_ROWS = 65_536


def own_head(context: EvalContext, classes: int = 1000) -> Head | None:
    """The model's own classifier, if it has one of so many classes."""
    head = context.model.head
    return head if getattr(head, "out_features", 1000) == classes else None


def require_classifier(context: EvalContext, whole: bool = False) -> None:
    """Require a classifier of ImageNet-1k's classes, or, unless `whole`, of some of them.

    Raises:
        UserError: the encoder has none, and the user's images are not ImageNet's, so that none can be trained.
    """
    if own_head(context) is not None:
        return
    if (known := _labels(context)) is None:
        raise UserError(
            "this encoder has no classifier of ImageNet's 1000 classes; set data.images to ImageNet (train and "
            "validation, one folder for each wnid) or to some of its classes, to train a linear probe on them, or "
            "name the file of its published linear layer: NETWORK=FILE+LAYER"
        )
    if whole and len(known) < 1000:
        raise UserError(f"data: {len(known)} of ImageNet's classes; this evaluator needs a classifier of all 1000")


def _labels(context: EvalContext) -> npt.NDArray[np.int64] | None:
    """ImageNet's labels of the user's classes; None where they are others."""
    classes = [] if context.splits is None else context.splits.train.classes
    if not classes or not set(classes) <= label_of().keys():
        return None
    return np.array([label_of()[each] for each in classes], np.int64)


def known_labels(context: EvalContext) -> npt.NDArray[np.int64] | None:
    """The classes that the classifier knows; None if it knows all 1000."""
    known = None if own_head(context) is not None else _labels(context)
    return None if known is None or len(known) == len(wnids()) else known


def classifier(context: EvalContext) -> tuple[Head, str]:
    """Logits of ImageNet's 1000 classes from features, and a word on where they come from."""
    require_classifier(context)
    if (own := own_head(context)) is not None:
        return own, "the model's own"
    head, words = user_head(context)
    known = known_labels(context)
    if known is None:
        return head, words
    return partial(_spread, head, torch.from_numpy(known)), f"{words}; {len(known)} classes, images of others left out"


def _spread(head: Head, known: Tensor, features: Tensor) -> Tensor:
    logits = features.new_full((len(features), len(wnids())), -torch.inf)
    logits[:, known] = head(features)
    return logits


def user_head(context: EvalContext) -> tuple[Head, str]:
    """A linear layer on the user's training images, as the config's `classifier` says, and a word on it.

    The probe is trained on images that are cropped and resized as those that it judges: a fixed classifier's answer
    differs for every eighth image between two ways of resizing.
    """
    name, chosen = context.features.splits.train.name, context.config.classifier
    if chosen != "probe":
        return published_layer(context, chosen), f"{chosen} on {name}"
    head: LinearHead = context.once("probe of published sets", lambda: _fit(context))
    return head.logits, f"linear probe on {name}, {preprocessing_words(context.config.preprocessing)}"


def _fit(context: EvalContext) -> LinearHead:
    cache, settings = context.features, context.config.evaluate.linear
    count = len(cache.splits.train)

    def encoded() -> Features:
        return joined(context.each(_square_features, context.slices(count), count), count)

    seen = context.config.preprocessing.model_dump_json()
    return fit_linear(cache.kept_of_train(seen, encoded), settings, cache.classes, context.model.device)


def _square_features(context: EvalContext, numbers: slice) -> Features:
    part = context.features.part_of_train(numbers)
    shown = test_squares(part, context.config.preprocessing, context.config.evaluate.batch_size)
    return extract(context.model.encode, shown, len(part))


def logits_of(
    context: EvalContext,
    listing: Listing,
    see: See | None = None,
    keep: bool = False,
    on_disk: bool = True,
    head: Head | None = None,
) -> Tensor:
    """Logits (N, C) of listed images.

    Args:
        see: as the config's `preprocessing` says, if None.
        keep: keep them for the next evaluator that asks for them.
        on_disk: keep the features for a later call.
        head: gives the logits; None: `classifier`, of ImageNet's 1000 classes.
    """
    chosen = head or classifier(context)[0]
    seen = see or Squares(context.config.preprocessing)

    def logits() -> Tensor:
        return _logits(context, listing, seen, on_disk, chosen)

    if not keep:
        return logits()
    found: Tensor = context.once(listing.name, logits)
    return found


def _logits(context: EvalContext, listing: Listing, see: See, on_disk: bool, head: Head) -> Tensor:
    if not on_disk or context.kept.folder is None:
        with torch.no_grad():
            return torch.cat([head(part) for part in _parts(context, listing, see)])

    features = features_of(context, listing, see)
    with torch.no_grad():
        rows = (features.rows(slice(first, first + _ROWS)) for first in range(0, len(features), _ROWS))
        return torch.cat([head(part) for part in rows])


def features_of(context: EvalContext, listing: Listing, see: See | None = None) -> Features:
    """Features of listed images, kept on disk; their labels are not among them."""
    seen = see or Squares(context.config.preprocessing)

    def encoded() -> Features:
        found = (Features(part, torch.zeros(len(part), dtype=torch.int64)) for part in _parts(context, listing, seen))
        return joined(found, len(listing))

    return context.kept.once("" if context.kept.folder is None else f"{listing.name}-{listing.state(seen)}", encoded)


def _parts(context: EvalContext, listing: Listing, see: See) -> Iterable[Tensor]:
    parts = [listing[numbers] for numbers in context.slices(len(listing.paths))]
    return context.each(partial(_features, see=see), parts, len(listing.paths))


def _features(context: EvalContext, listing: Listing, see: See) -> Tensor:
    batches = listing.batches(see, context.config.evaluate.batch_size, context.config.threads)
    return torch.cat([context.model.encode(torch.from_numpy(images)) for images in batches])
