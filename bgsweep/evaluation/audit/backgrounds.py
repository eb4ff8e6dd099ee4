"""The eight background variants: accuracy and BG-Gap; without classes, how often an image is found again."""

from bgsweep.config.evaluation import VARIANTS, Variant
from bgsweep.evaluation.audit.measure import Found, Measure, thumbnail
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.datasets.background_variants import VariantSet
from bgsweep.evaluation.evaluator import share
from bgsweep.evaluation.evaluators.backgrounds import on_variants

_ROWS = 3
_UNLABELLED: tuple[Variant, ...] = ("only_fg", "mixed_same", "no_fg", "only_bg_b", "only_bg_t")


def variants(subject: Subject) -> Found:
    """`linear/VARIANT`, `knn/VARIANT` and their `bg_gap`, as the evaluator `backgrounds`."""
    if subject.labelled:
        found = [one for probe in ("linear", "knn") for one in on_variants(subject.context, probe)]
        return Found(sorted(found, key=lambda one: not one.name.endswith("bg_gap")), {"shown": [*VARIANTS]})
    labels = subject.labels(subject.usable)
    values = [share(f"found/{name}", subject.predicted(subject.variant(name)) == labels) for name in _UNLABELLED]
    return Found(values, {"shown": ["original", *_UNLABELLED]})


def variant_images(variants: VariantSet, names: list[Variant]) -> list[list[str]]:
    """For each variant the same few images, inline."""
    step = max(1, len(variants.usable) // _ROWS)
    chosen = variants.usable[::step][:_ROWS]
    return [[thumbnail(variants.image(name, index)) for index in chosen] for name in names]


MEASURE = Measure(
    "variants",
    "Background variants",
    "Accuracy where background or foreground is removed or replaced. BG-Gap = Mixed-Same - Mixed-Rand: what is lost "
    "when only the class of the background changes (Xiao et al. 2020). Without classes: share of images that are still "
    "nearest to themselves.",
    variants,
)
