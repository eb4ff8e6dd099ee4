"""Noise in the foreground against noise in the background (RIVAL10, Moayeri et al. 2022)."""

from functools import partial

import numpy as np
import numpy.typing as npt

from bgsweep.data import Image, Mask
from bgsweep.evaluation.audit.measure import Found, Measure, thumbnail
from bgsweep.evaluation.audit.subject import Subject
from bgsweep.evaluation.evaluator import PerImageMetric
from bgsweep.seeding import Draw, rng_key

NORMS = (25.0, 50.0, 100.0, 200.0)
"""L2 norms of the noise in an image of 224 px with pixels in [0, 1]; the published ones are 25, 50, …, 200."""
_REGIONS = ("foreground", "background")


def relative_sensitivity(foreground: npt.NDArray[np.float64], background: npt.NDArray[np.float64]) -> PerImageMetric:
    """Relative foreground sensitivity, RFS = (b - f) / (2 min(m, 1 - m)) with m = (f + b) / 2.

    f and b are accuracies under noise in the foreground and in the background. RFS is 1 where only noise in the
    foreground does harm, -1 where only noise in the background does, and 0 where both do the same. The branch of the
    minimum is that of all images, so that RFS is a ratio of sums over images.

    Args:
        foreground, background: share of the noise levels at which each image (N,) is right.
    """
    both = foreground + background
    counted = both if both.mean() <= 1 else 2 - both
    return PerImageMetric("rfs", background - foreground, counted)


def with_noise(image: Image, region: Mask, norm: float, draws: npt.NDArray[np.float64]) -> Image:
    """The image with Gaussian noise of an L2 norm in a region, clipped.

    The norm is the same for regions of any size, as in RIVAL10.

    Args:
        norm: of the noise, for pixels in [0, 1].
        draws: standard normal, of the image's shape.
    """
    noise = draws * (region > 127)[..., None]
    length = float(np.sqrt((noise**2).sum()))
    noisy = image / 255 + (noise * (norm / length) if length else 0)
    return np.asarray((noisy.clip(0, 1) * 255).round(), np.uint8)


def noise(subject: Subject) -> Found:
    """`rfs`, and accuracy at each norm of the noise in either region."""
    part, clean = subject.part, subject.hits(subject.originals(subject.part), subject.part)
    hits = {region: np.empty((len(NORMS), len(part))) for region in _REGIONS}
    for level, norm in enumerate(NORMS):
        for region in _REGIONS:
            make = partial(_version, subject, region, level, norm)
            hits[region][level] = subject.hits(subject.encoded(f"noise-{region}-{norm:g}", make, len(part)), part)
    ones = np.ones(len(part))
    values = [relative_sensitivity(*(hits[region].mean(axis=0) for region in _REGIONS))]
    values += [PerImageMetric(region, hits[region].mean(axis=0), ones) for region in _REGIONS]
    curves = {region: [float(clean.mean()), *hits[region].mean(axis=1).tolist()] for region in _REGIONS}
    sample = [thumbnail(_version(subject, region, 2, NORMS[2], 0)) for region in _REGIONS]
    return Found(values, {"norms": [0.0, *NORMS], "curves": curves, "score": subject.score, "examples": sample})


def _version(subject: Subject, region: str, level: int, norm: float, number: int) -> Image:
    variants, index = subject.variants, int(subject.part[number])
    key = rng_key(subject.seed, level, f"noise/{variants.source.ids[index]}", Draw.AUDIT)
    image = variants.image("original", index)
    draws = np.random.default_rng(key).standard_normal(image.shape)
    where = variants.regions(index)[_REGIONS.index(region)]
    return with_noise(image, where, norm * subject.size / 224, draws)


MEASURE = Measure(
    "noise",
    "Noise in foreground and in background",
    "Relative foreground sensitivity (RFS) by RIVAL10: 1 if only noise in the foreground harms predictions, -1 if only "
    "noise in the background does. The noise has the same energy in both regions.",
    noise,
)
