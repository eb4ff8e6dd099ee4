"""Lines on a dataset's masks, for the start of a command and the record of a run."""

from typing import cast

from bgsweep.data.mask_kinds import shares, told
from bgsweep.data.missing_masks import KEPT, MissingMasks
from bgsweep.data.sample import ImageDataset


def mask_notes(dataset: ImageDataset) -> list[str]:
    """Lines on masks that are missing, and on those that leave little to augment; none where all is well."""
    kinds = kinds_note(dataset)
    found = [missing_note(dataset), f"{_source(dataset).name}: {kinds}" if kinds and _suspicious(dataset) else None]
    return [line for line in found if line]


def missing_note(dataset: ImageDataset) -> str | None:
    """A line on the images without a mask in a dataset, or in the one that it is part of; None if there are none."""
    source = _source(dataset)
    found: MissingMasks | None = getattr(source, "missing_masks", None)
    return None if found is None else f"{source.name}: {found}; {KEPT}"


def kinds_note(dataset: ImageDataset) -> str | None:
    """The shares of masks that leave little to augment; None for packs of earlier versions, which do not say them."""
    kinds = _kinds(dataset)
    return told(kinds) if kinds else None


def _suspicious(dataset: ImageDataset) -> bool:
    return any(shares(_kinds(dataset)).values())


def _kinds(dataset: ImageDataset) -> dict[str, int]:
    found: dict[str, int] = getattr(_source(dataset), "mask_kinds", {})
    return found


def _source(dataset: ImageDataset) -> ImageDataset:
    """The folder or pack that a dataset is made of."""
    while (inner := getattr(dataset, "dataset", None)) is not None:
        dataset = cast(ImageDataset, inner)
    return dataset
