import cv2
import numpy as np
import pytest

from bgsweep.data.sample import Sample
from bgsweep.images import compositing
from bgsweep.images.compositing import Mask, Rect


def brute_force_area(mask: Mask) -> int:
    """Area of the largest rectangle without foreground, by trying them all."""
    integral = np.pad((mask > 127).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = mask.shape
    best = 0
    for top in range(height):
        for bottom in range(top + 1, height + 1):
            column = integral[bottom] - integral[top]
            for left in range(width):
                free = np.flatnonzero(column[left:] == column[left])[-1]
                best = max(best, (bottom - top) * int(free))
    return best


def tiled_plane(patch: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """The window of np.tile's plane, by brute force; its origin is moved so that negative windows exist."""
    height, width = patch.shape[:2]
    before = (-(min(rows.start, 0) // height), -(min(columns.start, 0) // width))
    after = (-(-max(rows.stop, 1) // height), -(-max(columns.stop, 1) // width))
    plane = np.tile(patch, (before[0] + after[0], before[1] + after[1], 1))
    down, right = before[0] * height, before[1] * width
    return plane[rows.start + down : rows.stop + down, columns.start + right : columns.stop + right]


def test_rectangle_is_the_largest_one_in_small_masks() -> None:
    generator = np.random.default_rng(0)
    for share in (0.02, 0.1, 0.3, 0.9):
        for shape in ((1, 1), (1, 9), (14, 5), (5, 14), (17, 17)):
            mask = np.where(generator.random(shape) < share, 255, 0).astype(np.uint8)
            rect = compositing.largest_background_rectangle(mask)
            if rect is None:
                assert (mask == 255).all()
            else:
                assert not rect.of(mask).any()
                assert rect.height * rect.width == brute_force_area(mask)


@pytest.mark.parametrize("fraction", [0.4, 1.0, 3.1])
def test_rectangle_in_real_masks_is_empty_and_close_to_the_largest(samples: list[Sample], fraction: float) -> None:
    for sample in samples:
        mask = cv2.resize(sample.mask, None, fx=fraction, fy=fraction)
        rect = compositing.largest_background_rectangle(mask)
        assert rect is not None
        assert not (rect.of(mask) > 127).any()
        reduced = cv2.resize(mask, (40, 40), interpolation=cv2.INTER_AREA)
        bound = brute_force_area(reduced) / reduced.size
        assert rect.height * rect.width / mask.size > 0.8 * bound


def test_rectangle_spares_a_single_foreground_pixel_of_a_large_mask() -> None:
    for row, column in np.random.default_rng(1).integers(0, 300, (20, 2)):
        mask = np.zeros((300, 400), np.uint8)
        mask[row, column] = 128
        rect = compositing.largest_background_rectangle(mask)
        assert rect is not None
        assert not rect.of(mask).any()
        free = max(400 * max(row, 299 - row), 300 * max(column, 399 - column))
        assert rect.height * rect.width == free


def test_rectangle_of_extremes() -> None:
    assert compositing.largest_background_rectangle(np.full((90, 70), 255, np.uint8)) is None
    assert compositing.largest_background_rectangle(np.full((90, 70), 127, np.uint8)) == Rect(0, 0, 90, 70)


def test_tile_is_phase_exact(samples: list[Sample]) -> None:
    image = samples[0].image
    generator = np.random.default_rng(2)
    for _ in range(40):
        top, left = generator.integers(0, 60, 2)
        rect = Rect(int(top), int(left), int(top + generator.integers(1, 60)), int(left + generator.integers(1, 60)))
        height, width = (int(side) for side in generator.integers(1, 150, 2))
        row, column = (int(start) for start in generator.integers(-200, 200, 2))
        window = compositing.tile(image, rect, height, width, row, column)
        expected = tiled_plane(rect.of(image), slice(row, row + height), slice(column, column + width))
        assert np.array_equal(window, expected)
        assert window.flags.c_contiguous
        assert not np.shares_memory(window, image)


def test_fill_and_paste_follow_the_mask_to_the_pixel(samples: list[Sample]) -> None:
    for sample in samples:
        foreground = (sample.mask > 127)[..., None]
        other = sample.image[::-1].copy()
        colored = compositing.fill(sample.image, sample.mask, (12.4, 200, 255))
        assert np.array_equal(colored, np.where(foreground, sample.image, (12, 200, 255)))
        for put in (compositing.fill, compositing.paste):
            assert np.array_equal(put(sample.image, sample.mask, other), np.where(foreground, sample.image, other))
        assert compositing.foreground_area(sample.mask) == pytest.approx(foreground.mean())
        assert np.array_equal(compositing.binarize(sample.mask), np.where(foreground[..., 0], 255, 0))


def test_plate_shows_background_only(large: list[Sample]) -> None:
    for sample in large:
        plate = compositing.tiled_background(sample.image, sample.mask)
        foreground = sample.mask > 127
        assert np.array_equal(plate[~foreground], sample.image[~foreground])
        rect = compositing.largest_background_rectangle(sample.mask)
        assert rect is not None
        rows, columns = np.nonzero(foreground)
        row, column = (rows - rect.top) % rect.height, (columns - rect.left) % rect.width
        source = rect.of(sample.image)[row, column]
        assert np.array_equal(plate[foreground], source)


def test_plate_without_background_is_one_color(samples: list[Sample]) -> None:
    plate = compositing.tiled_background(samples[0].image, np.full_like(samples[0].mask, 255))
    assert np.array_equal(plate[0, 0], samples[0].image.mean((0, 1)).round())
    assert (plate == plate[0, 0]).all()


def test_inpainting_leaves_nothing_of_the_foreground(samples: list[Sample]) -> None:
    for sample in samples:
        foreground = sample.mask > 127
        magenta = sample.image.copy()
        magenta[foreground] = (255, 0, 255)
        inpainted = compositing.inpaint_background(magenta, sample.mask)
        assert not ((inpainted == (255, 0, 255)).all(-1) & foreground).any()
        far = cv2.dilate(sample.mask, np.ones((7, 7), np.uint8)) <= 127
        assert np.array_equal(inpainted[far], sample.image[far])
