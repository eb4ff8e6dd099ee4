"""Saliency without any training: robust background detection (Zhu et al. 2014), sharpened by GrabCut.

What touches the picture's border along a long part of its outline is background; what differs from nearby background
is foreground; one linear system makes both agree over neighbouring superpixels.
"""

from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path
from skimage.segmentation import slic

from bgsweep.augment.composite import Image, Mask

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# The paper's constants, as its authors' code has them.
_SIGMA_COLOR, _SIGMA_SPACE, _SIGMA_NEIGHBOURS = 7.0, 0.25, 10.0
_BACKGROUND_WEIGHT, _SMOOTHNESS = 5.0, 0.1
# Where foreground and background have the same colours, GrabCut runs away: a result that has less than this in common
# (intersection over union) with what it started from is not used.
_LEAST_KEPT = 0.2


def rbd_saliency(image: Image, side: int = 160, superpixels: int = 200) -> Floats:
    """How much each pixel belongs to the foreground, by robust background detection.

    Args:
        image: RGB, uint8.
        side: longer side in pixels at which the superpixels are made; smaller images are not enlarged.
        superpixels: about how many.

    Returns:
        Height x width of the image, 0 to 1; zero everywhere where nothing stands out.
    """
    small = shrunk(image, side)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    labels = slic(small, superpixels, compactness=20, start_label=0, enforce_connectivity=True).astype(np.int64)
    saliency = superpixel_saliency(labels, lab.astype(np.float64))
    size = image.shape[1], image.shape[0]
    return cast(Floats, np.clip(cv2.resize(saliency[labels], size, interpolation=cv2.INTER_LINEAR), 0, 1))


def superpixel_saliency(labels: Labels, lab: Floats) -> Floats:
    """Saliency of each superpixel, 0 to 1.

    Args:
        labels: height x width, 0 to N-1, none left out.
        lab: height x width x 3, CIE Lab.
    """
    count = int(labels.max()) + 1
    colors, places = _means(labels, lab, count)
    apart = _distances(colors)
    adjacent = _adjacency(labels, count)
    border = np.zeros(count, bool)
    border[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    background = _background_probability(apart, adjacent, border)
    nearness = np.exp(-(_distances(places) ** 2) / (2 * _SIGMA_SPACE**2))
    foreground = _stretched((apart * nearness) @ background)
    if not foreground.any():
        return foreground
    return _optimised(apart, adjacent, background, np.where(foreground < _otsu(foreground), 0, foreground))


def grabcut(image: Image, saliency: Floats, iterations: int = 2, side: int = 256) -> Mask:
    """A foreground with sharp edges: GrabCut (Rother et al. 2004) started from a saliency map. The same every time.

    Args:
        image: RGB, uint8.
        saliency: of the image's size, 0 to 1.
        iterations: of GrabCut.
        side: longer side in pixels at which it works; the mask is scaled back.

    Returns:
        Height x width, 0 to 255, soft only along edges that were scaled; empty where the map is.
    """
    height, width = image.shape[:2]
    small = shrunk(image, side)
    level = _stretched(cv2.resize(saliency, (small.shape[1], small.shape[0]), interpolation=cv2.INTER_AREA))
    start = level > _otsu(level)
    guess = np.where(start, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    if level.any():  # GrabCut needs both kinds
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, guess, None, *models, iterations, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    cut = (guess & 1).astype(bool)  # GC_FGD and GC_PR_FGD are the odd ones
    lost = np.count_nonzero(cut & start) < _LEAST_KEPT * np.count_nonzero(cut | start)
    foreground = np.where(start if lost else cut, np.uint8(255), np.uint8(0))
    return cast(Mask, cv2.resize(foreground, (width, height), interpolation=cv2.INTER_LINEAR))


def shrunk(image: Image, side: int, least: int = 8) -> Image:
    """The image with its longer side at most `side` and its shorter at least `least` pixels."""
    zoom = min(1.0, side / max(image.shape[:2]))
    height, width = (max(least, round(length * zoom)) for length in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return cast(Image, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))


def _means(labels: Labels, lab: Floats, count: int) -> tuple[Floats, Floats]:
    """Mean colour and mean place (in longer sides of the picture) of each superpixel."""
    flat = labels.ravel()
    sizes = np.bincount(flat, minlength=count)[:, None]
    rows, columns = (axis.ravel() / max(labels.shape) for axis in np.indices(labels.shape))
    values = [*lab.reshape(-1, 3).T, rows, columns]
    sums = np.stack([np.bincount(flat, value, minlength=count) for value in values], axis=1) / sizes
    return sums[:, :3], sums[:, 3:]


def _distances(points: Floats) -> Floats:
    return cast(Floats, np.linalg.norm(points[:, None] - points[None], axis=2))


def _adjacency(labels: Labels, count: int) -> npt.NDArray[np.bool_]:
    """Which superpixels share an edge or a corner."""
    adjacent = np.zeros((count, count), bool)
    height, width = labels.shape
    for down, right in ((0, 1), (1, 0), (1, 1)):
        adjacent[labels[: height - down, : width - right], labels[down:, right:]] = True
    adjacent[labels[1:, :-1], labels[:-1, 1:]] = True
    adjacent |= adjacent.T
    np.fill_diagonal(adjacent, False)
    return adjacent


def _background_probability(apart: Floats, adjacent: npt.NDArray[np.bool_], border: npt.NDArray[np.bool_]) -> Floats:
    """1 for superpixels whose surface meets the border along much of its outline (section 3 of the paper)."""
    linked = adjacent | (border[:, None] & border[None])
    rows, columns = np.nonzero(linked)
    # Ways of length zero are ways too: a sparse matrix would take them for none.
    graph = csr_array((apart[rows, columns] + 1e-9, (rows, columns)), shape=apart.shape)
    similar = np.exp(-(shortest_path(graph, directed=False) ** 2) / (2 * _SIGMA_COLOR**2))
    connectivity = similar[:, border].sum(axis=1) / np.sqrt(similar.sum(axis=1))
    return cast(Floats, 1 - np.exp(-(connectivity**2) / 2))


def _optimised(apart: Floats, adjacent: npt.NDArray[np.bool_], background: Floats, foreground: Floats) -> Floats:
    """The least-squares compromise of background, foreground and smoothness (section 4)."""
    smooth = np.where(adjacent, np.exp(-(apart**2) / (2 * _SIGMA_NEIGHBOURS**2)) + _SMOOTHNESS, 0)
    system = np.diag(smooth.sum(axis=1) + _BACKGROUND_WEIGHT * background + foreground) - smooth
    return _stretched(np.linalg.solve(system, foreground))


def _stretched(values: npt.NDArray[Any]) -> Floats:
    """Values brought to 0..1; all zero where they do not differ by more than rounding."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(1.0, abs(high)):
        return np.zeros(values.shape)
    return (values.astype(np.float64) - low) / (high - low)


def _otsu(values: Floats) -> float:
    """The threshold in 0..1 that parts values best into two kinds."""
    levels = np.rint(values * 255).astype(np.uint8).reshape(-1, 1)
    return float(cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0]) / 255
