"""Contact sheets of background variants: one image a row, one variant a column, its accuracy above it if given."""

from collections.abc import Iterable, Mapping, Sequence

from bgsweep.augment.contact_sheet import view_grid
from bgsweep.config.evaluation import VARIANTS
from bgsweep.data import Image
from bgsweep.evaluation.datasets.background_variants import VariantSet


def variant_sheet(variants: VariantSet, rows: int = 4, accuracy: Mapping[str, float] | None = None) -> Image:
    """The user's images, spread over the set, in all variants."""
    step = max(1, len(variants.usable) // rows)
    shown = variants.usable[::step][:rows]
    images = [[variants.image(name, index) for name in VARIANTS] for index in shown]
    return side_by_side(images, VARIANTS, accuracy or {})


def side_by_side(rows: Iterable[Sequence[Image]], names: Sequence[str], accuracy: Mapping[str, float]) -> Image:
    """Rows of images, a column for each name."""
    headers = [f"{name} {100 * accuracy[name]:.0f}%" if name in accuracy else name for name in names]
    shown = list(rows)
    return view_grid(shown, headers, [[""] * len(names)] * len(shown))
