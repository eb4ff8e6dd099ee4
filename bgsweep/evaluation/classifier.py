"""ImageNet's 1000 classes from an encoder: by its own classifier, or by a linear probe on the user's ImageNet."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.imagenet import wnids
from bgsweep.evaluation.datasets.listing import Listing, See, Squares
from bgsweep.evaluation.evaluators.linear import linear_head
from bgsweep.evaluation.features import Features, joined
from bgsweep.evaluation.frozen_model import Head

_ROWS = 65_536


def require_classifier(context: EvalContext) -> None:
    """Require an ImageNet-1k classifier.

    Raises:
        UserError: the encoder has none, and the user's images are not ImageNet's, so that none can be trained.
    """
    splits = context.splits
    if context.model.head is None and not (splits is not None and tuple(splits.train.classes) == wnids()):
        raise UserError(
            "this encoder has no classifier of ImageNet's 1000 classes; set data.images to ImageNet (train and "
            "validation, one folder for each wnid), so that a linear probe can be trained"
        )


def classifier(context: EvalContext) -> tuple[Head, str]:
    """Logits of ImageNet's 1000 classes from features, and a word on where they come from."""
    require_classifier(context)
    if context.model.head is not None:
        return context.model.head, "the model's own"
    return linear_head(context).logits, f"linear probe on {context.features.splits.train.name}"


def logits_of(
    context: EvalContext, listing: Listing, see: See | None = None, keep: bool = False, on_disk: bool = True
) -> Tensor:
    """Logits (N, 1000) of listed images.

    Args:
        see: as the config's `preprocessing` says, if None.
        keep: keep them for the next evaluator that asks for them.
        on_disk: keep the features for a later call.
    """
    if not keep:
        return _logits(context, listing, see, on_disk)
    found: Tensor = context.once(listing.name, lambda: _logits(context, listing, see, on_disk))
    return found


def _logits(context: EvalContext, listing: Listing, see: See | None, on_disk: bool) -> Tensor:
    seen = see or Squares(context.config.preprocessing)
    head, _ = classifier(context)
    if not on_disk or context.kept.folder is None:
        with torch.no_grad():
            return torch.cat([head(part) for part in _parts(context, listing, seen)])

    def encoded() -> Features:
        found = (Features(part, torch.zeros(len(part), dtype=torch.int64)) for part in _parts(context, listing, seen))
        return joined(found, len(listing))

    features = context.kept.once(f"{listing.name}-{listing.state(seen)}", encoded)
    with torch.no_grad():
        rows = (features.rows(slice(first, first + _ROWS)) for first in range(0, len(features), _ROWS))
        return torch.cat([head(part) for part in rows])


def _parts(context: EvalContext, listing: Listing, see: See) -> Iterable[Tensor]:
    parts = [listing[numbers] for numbers in context.slices(len(listing.paths))]
    return context.each(partial(_features, see=see), parts, len(listing.paths))


def _features(context: EvalContext, listing: Listing, see: See) -> Tensor:
    batches = listing.batches(see, context.config.evaluate.batch_size, context.config.threads)
    return torch.cat([context.model.encode(torch.from_numpy(images)) for images in batches])
