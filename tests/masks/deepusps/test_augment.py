"""The inputs of networks that learn masks."""

import numpy as np
import pytest

from bgsweep.masks.deepusps.augment import TrainingAugmentation
from bgsweep.masks.network import network_input


def _image() -> tuple[np.ndarray, np.ndarray]:
    """A bright rectangle before a dark ground, and two masks of it, one upside down."""
    mask = np.zeros((48, 48), bool)
    mask[8:30, 5:20] = True
    noise = np.random.default_rng(0).integers(0, 40, (48, 48, 3))
    return (noise + 150 * mask[..., None]).astype(np.uint8), np.stack([mask, mask[::-1]])


@pytest.mark.parametrize("cropped", [False, True])
def test_masks_go_with_their_image(cropped: bool) -> None:
    image, masks = _image()
    seen = set()
    for key in range(40):
        example = TrainingAugmentation().apply(image, masks, key, cropped)
        assert example.pixels.shape == (3, 48, 48) and example.masks.shape == (2, 48, 48)
        inside = example.masks[0] > 0.5
        if inside.any() and not inside.all():
            assert example.pixels[:, inside].mean() > example.pixels[:, ~inside].mean() + 0.3
        seen.add((example.mirrored, round(float(example.masks[0].mean()), 3)))
    assert {mirrored for mirrored, _ in seen} == {False, True}
    assert (len({area for _, area in seen}) > 20) == cropped


def test_a_lesson_is_a_function_of_its_key() -> None:
    image, masks = _image()
    augmentation = TrainingAugmentation()
    first = augmentation.apply(image, masks, 7, True)
    other = augmentation.apply(image, masks, 8, True)
    again = augmentation.apply(image, masks, 7, True)
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.masks, again.masks)
    assert not np.array_equal(first.pixels, other.pixels)
    assert not np.array_equal(first.pixels, network_input(image, (48, 48)))
