"""Few labels: the linear probe on one or ten percent of the training images."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bgsweep.data import ImageDataset
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.errors import UserError
from bgsweep.evaluation.context import EvalContext
from bgsweep.evaluation.evaluator import Evaluator, Yields, tops
from bgsweep.evaluation.evaluators.linear import LinearHead, fit_linear, linear_protocol
from bgsweep.seeding import Draw, rng_key


def drawn(source: ImageDataset, share: float, seed: int) -> npt.NDArray[np.int64]:
    """Indices of the images that keep their labels: of each class the same share (0 to 1), at least one.

    The choice depends on the seed and the images' ids alone, and a larger share holds the smaller ones.
    """
    keys = np.array([rng_key(seed, 0, name, Draw.FEW_LABELS) for name in source.ids], np.uint64)
    chosen = []
    for label in np.unique(source.labels):
        members = np.flatnonzero(source.labels == label)
        count = max(1, round(share * len(members)))
        chosen.append(members[np.argsort(keys[members], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def listed(source: ImageDataset, path: Path) -> npt.NDArray[np.int64]:
    """Indices of the images whose file names a list has, one a line, as SimCLR's lists of ImageNet.

    Raises:
        UserError: the list cannot be read, is empty, names a file twice or one that the source has not.
    """
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of file names; write one a line") from error
    index_of = {name.rpartition("/")[2]: index for index, name in enumerate(source.ids)}
    missing = [name for name in names if name not in index_of]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of its {len(names)} files are not in {source.name}, the first is {missing[0]}; "
            "take a list of this set"
        )
    if not names or len(set(names)) < len(names):
        raise UserError(f"{path}: {'empty' if not names else 'a file is named twice'}; take SimCLR's list as it is")
    return np.sort(np.array([index_of[name] for name in names], np.int64))


def labelled(context: EvalContext, share: float) -> tuple[Subset, str]:
    """The training images that keep their labels, and a word on how they were chosen.

    Raises:
        UserError: as `listed`.
    """
    train, settings = context.features.splits.train, context.config.few_labels
    path = settings.one_percent if share == 0.01 else settings.ten_percent
    chosen = drawn(train, share, settings.seed) if path is None else listed(train, Path(path).expanduser())
    how = f"drawn by class, seed {settings.seed}" if path is None else f"listed in {path}"
    part = Subset(train, chosen, f"{train.name}, {share:.0%} labelled")
    return part, f"{part.name}: {len(part)} of {len(train)} images, {how}"


def few(context: EvalContext, name: str, share: float) -> Evaluator:
    """`NAME_top1`: the linear probe, trained and its rate and decay chosen on the few labelled images alone."""
    cache = context.features
    part, how = labelled(context, share)
    heads: list[LinearHead] = []

    def measure() -> Yields:
        heads.append(fit_linear(cache.of_train(part), cache.settings.linear, cache.classes, context.model.device))
        logits = heads[0].logits(context.test.values)
        yield from context.by_image(tops(name, logits, context.test.labels))

    def protocol() -> dict[str, Any]:
        words = context.protocol() | linear_protocol(heads[0], context)
        return words | {"train": f"{how}, not augmented"}

    return Evaluator(measure, protocol)


EVALUATORS: dict[str, Callable[[EvalContext], Evaluator]] = {
    "few_1": partial(few, name="few_1", share=0.01),
    "few_10": partial(few, name="few_10", share=0.1),
}
