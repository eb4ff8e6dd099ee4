import cv2
import numpy as np

from bgsweep.masks.refine import refined


def test_is_the_least_squares_fit_of_each_window() -> None:
    draws = np.random.default_rng(0)
    guide = draws.integers(0, 256, (9, 11, 3)).astype(np.uint8)
    level = draws.random((9, 11)).astype(np.float32)
    radius = 2
    colors = np.pad(guide / 255, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    padded = np.pad(level, radius, mode="symmetric")
    fits = np.zeros((9, 11, 4))
    for y in range(9):
        for x in range(11):
            window = colors[y : y + 5, x : x + 5].reshape(-1, 3)
            values = padded[y : y + 5, x : x + 5].ravel()
            centred = window - window.mean(axis=0)
            slope = np.linalg.solve(centred.T @ centred / 25 + 1e-3 * np.eye(3), centred.T @ values / 25)
            fits[y, x] = *slope, values.mean() - slope @ window.mean(axis=0)
    fits = np.pad(fits, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    slow = np.array([[fits[y : y + 5, x : x + 5].mean(axis=(0, 1)) for x in range(11)] for y in range(9)])
    expected = (slow[..., :3] * guide / 255).sum(axis=2) + slow[..., 3]
    np.testing.assert_allclose(refined(level, guide, radius), expected.clip(0, 1), atol=1e-4)


def test_a_wrong_outline_moves_to_the_photographs_edge() -> None:
    true = cv2.circle(np.zeros((64, 64), np.uint8), (32, 32), 18, 1, -1)
    guide = np.where(true[:, :, None] > 0, np.uint8([200, 60, 40]), np.uint8([60, 90, 160]))
    for wrong in (cv2.dilate(true, np.ones((5, 5), np.uint8)), cv2.erode(true, np.ones((5, 5), np.uint8))):
        error = (wrong != true).mean()
        assert ((refined(wrong.astype(np.float32), guide, 6) > 0.5) != true).mean() < 0.75 * error
