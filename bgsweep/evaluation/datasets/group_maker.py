"""A set of groups, like Waterbirds, from any images with masks: each class tied to one kind of background.

Kinds of backgrounds are clusters by color, one a class, as of `data.shortcut`. Training images stand before the kind of
their own class with a given probability; each validation and test image is written before every kind, so that all
groups have as many images, with the tie and against it.
"""

import csv
import io
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from bgsweep.data import UNLABELLED, ImageDataset, Mask
from bgsweep.data.datasets.shortcut import ClassPools
from bgsweep.data.datasets.wrappers import Subset, hold_out
from bgsweep.data.donors import BackgroundPools
from bgsweep.data.readable import readable
from bgsweep.errors import UserError, one_line
from bgsweep.evaluation.datasets.background_variants import MAX_AREA, MIN_AREA
from bgsweep.evaluation.datasets.export_variants import write_jpeg
from bgsweep.images.compositing import foreground_area, paste
from bgsweep.images.decoding import cover
from bgsweep.seeding import Draw, rng_key
from bgsweep.storage.atomic import replacing_folder

TABLE = "metadata.csv"
_SHARES = {"test": 0.25, "validation": 0.2}


class Row(NamedTuple):
    """A line of the table."""

    path: str
    label: str
    group: str
    split: str
    foreground: str
    background: str


def write_groups(
    source: ImageDataset, out: Path, correlation: float, seed: int, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Write ``SPLIT/CLASS/*.jpg`` and ``metadata.csv``, all of it at once.

    Images whose foreground covers less than 1 % or more than 95 % are left out.

    Args:
        source: labelled images with masks.
        correlation: share of the training images that have the background of their own class.

    Returns:
        ``out``, ``classes``, ``images`` by split, and ``correlation``, that of the images written.

    Raises:
        UserError: fewer than two classes, too few backgrounds, or an `out` that already holds something.
    """
    if UNLABELLED in source.labels or len(set(source.labels.tolist())) < 2:
        raise UserError(f"{source.name}: groups need images of two classes or more; put them into class folders")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already there; name a new folder, or remove it")
    rest, test = hold_out(source, _SHARES["test"], Draw.GROUPS, seed, "test")
    train, validation = hold_out(rest, _SHARES["validation"], Draw.GROUPS, seed + 1, "validation")
    parts: dict[str, Subset] = {"train": train, "validation": validation, "test": test}
    pools = ClassPools(train, seed)
    rows: list[Row] = []
    try:
        with replacing_folder(out.absolute()) as folder:
            folder.mkdir(parents=True)
            for split, part in parts.items():
                say(split)
                own = pools.train if split == "train" else pools.of(part)
                rows += _written(folder, split, part, own, correlation if split == "train" else None, seed)
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([Row._fields, *rows])
            (folder / TABLE).write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or one_line(error)}") from error
    tied = [row.label == row.group for row in rows if row.split == "train"]
    images = {split: sum(row.split == split for row in rows) for split in parts}
    found = {"classes": list(source.classes), "images": images, "correlation": sum(tied) / len(tied)}
    return {"out": str(out), "table": str(out / TABLE), **found}


def _written(
    folder: Path, split: str, part: ImageDataset, pools: BackgroundPools, correlation: float | None, seed: int
) -> Iterator[Row]:
    classes = part.classes
    for _, sample in readable(part):
        mask = cast(Mask, sample.mask)
        if not MIN_AREA <= foreground_area(mask) <= MAX_AREA:
            continue
        draws = random.Random(rng_key(seed, 0, f"groups/{sample.id}", Draw.GROUPS))
        for kind in _kinds(sample.label, len(classes), correlation, draws):
            behind = _background(pools, kind, sample.id, part.ids, draws)
            image = paste(sample.image, mask, cover(pools.backgrounds[behind], *sample.image.shape[:2]))
            stem = sample.id.partition("/")[2].rpartition(".")[0].replace("/", "_")
            name = f"{split}/{classes[sample.label]}/{stem}_on_{classes[kind]}.jpg"
            write_jpeg(folder / name, image)
            origin = int(pools.origins[behind])
            yield Row(
                name, classes[sample.label], classes[kind], split, sample.id, part.ids[origin] if origin >= 0 else ""
            )


def _kinds(label: int, count: int, correlation: float | None, draws: random.Random) -> list[int]:
    """Kinds of backgrounds of an image: one, tied to its class, or all of them."""
    if correlation is None:
        return list(range(count))
    others = [kind for kind in range(count) if kind != label]
    return [label if draws.random() < correlation else draws.choice(others)]


def _background(pools: BackgroundPools, kind: int, name: str, ids: Sequence[str], draws: random.Random) -> int:
    """A background of a kind, another image's where there is one."""
    members = pools.by_class[kind].tolist()
    elsewhere = [each for each in members if pools.origins[each] < 0 or ids[int(pools.origins[each])] != name]
    return int(draws.choice(elsewhere or members))
