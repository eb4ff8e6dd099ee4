"""Worst-group accuracy on a set of groups, such as Waterbirds: by kNN, the linear probe, and a balanced last layer.

The last is deep feature reweighting, DFR (Kirichenko et al. 2022): a linear layer trained on as many images of each
group, of the validation images if the set has such, else of the training images. As there, the layers of several draws
are averaged; ours is an L2-regularised softmax regression like the linear probe, where theirs has an L1 penalty.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bgsweep.evaluation.classifier import features_of
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.datasets.group_sets import GroupSet, read_groups
from bgsweep.evaluation.datasets.listing import Listing, preprocessing_words
from bgsweep.evaluation.evaluator import Evaluator, PerImageMetric, Yields, per_class, share
from bgsweep.evaluation.evaluators.knn import knn_predict, knn_protocol
from bgsweep.evaluation.evaluators.linear import fit_linear
from bgsweep.evaluation.features import Features
from bgsweep.seeding import Draw, rng_key

GroupNumbers = npt.NDArray[np.int64]


def groups(context: EvalContext) -> Evaluator:
    """`PROBE/top1`, `PROBE/mean_group`, `PROBE/worst_group` and every group's accuracy, for kNN, linear and DFR."""
    found = read_groups(context.config.groups)

    def measure() -> Yields:
        features = {split: _features(context, listing) for split, listing in found.listings.items()}
        labels, of = found.listings["test"].labels, found.groups["test"]
        for probe, predicted in _predictions(context, features, found).items():
            hits = (predicted.numpy() == labels).astype(np.float64)
            yield share(f"{probe}/top1", hits)
            yield per_class(f"{probe}/mean_group", hits, of)
            worst = lowest_group(hits, of)
            assert worst is not None, "a group has an image at least"
            yield of_group(f"{probe}/worst_group", hits, of == worst)
            for number in np.unique(of).tolist():
                yield of_group(f"{probe}/{found.names[number]}", hits, of == number)

    def protocol() -> dict[str, Any]:
        settings, balanced = context.config.groups, "validation" if "validation" in found.listings else "train"
        sizes = {split: np.bincount(of, minlength=len(found.names)).tolist() for split, of in found.groups.items()}
        return {
            "preprocessing": preprocessing_words(context.config.preprocessing),
            "groups": {name: {s: sizes[s][number] for s in sizes} for number, name in enumerate(found.names)},
            **knn_protocol(context.config.evaluate.knn),
            "linear": "softmax regression on standardised features of train",
            "dfr": f"the same on {settings.draws} draws of {_least(found.groups[balanced])} images of each group of "
            f"{balanced}, averaged",
            "seed": settings.seed,
        }

    return Evaluator(measure, protocol, list(found.listings.values()))


def of_group(name: str, hits: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_]) -> PerImageMetric:
    """Accuracy on the images (N,) of one group."""
    counted = inside.astype(np.float64)
    return PerImageMetric(name, hits * counted, counted)


def lowest_group(hits: npt.NDArray[np.float64], of: GroupNumbers, least: int = 1) -> int | None:
    """The group (N,) of at least so many images with the lowest accuracy; None if none is so large."""
    sizes = np.bincount(of)
    large = [group for group in range(len(sizes)) if sizes[group] >= least]
    return min(large, key=lambda group: hits[of == group].mean()) if large else None


def _features(context: EvalContext, listing: Listing) -> Features:
    return Features(features_of(context, listing).rows(slice(None)), torch.from_numpy(listing.labels))


def _predictions(context: EvalContext, features: dict[str, Features], found: GroupSet) -> dict[str, Tensor]:
    settings, classes, device = context.config.evaluate, len(found.classes), context.model.device
    train, test = features["train"], features["test"].values
    linear = fit_linear(train, settings.linear, classes, device)
    balanced = "validation" if "validation" in features else "train"
    draws = [
        fit_linear(features[balanced].part(rows), settings.linear, classes, device).logits(test)
        for rows in balanced_draws(found.groups[balanced], context.config.groups.draws, context.config.groups.seed)
    ]
    return {
        "knn": knn_predict(train, test, settings.knn, classes, device),
        "linear": linear.predict(test),
        # The mean of linear layers' outputs is the output of their mean layer.
        "dfr": torch.stack(draws).mean(dim=0).argmax(dim=1),
    }


def balanced_draws(of: GroupNumbers, draws: int, seed: int) -> list[Tensor]:
    """Rows of as many images of each group as the smallest has, drawn anew each time."""
    generator = np.random.default_rng(rng_key(seed, 0, "dfr", Draw.PROBE_HOLD_OUT))
    members = [np.flatnonzero(of == group) for group in np.unique(of)]
    chosen = [np.concatenate([generator.permutation(each)[: _least(of)] for each in members]) for _ in range(draws)]
    return [torch.from_numpy(np.sort(rows)) for rows in chosen]


def _least(of: GroupNumbers) -> int:
    return int(np.unique(of, return_counts=True)[1].min())


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {"groups": groups}
