# %% [markdown]
# # A learned policy without bgsweep
#
# `bgsweep policy NAME --out policy.json` writes the augmentations of a sweep's best trial. `pipeline` below turns them
# into an Albumentations pipeline; from a shell, for a view of one image:
#
#     python examples/policy.py policy.json image.jpg mask.png donor.jpg --out view.png
#
# Needs Albumentations 2, OpenCV and NumPy, but not bgsweep. It leaves out schedules (probabilities are
# the first epoch's), BG_Swaps (which concerns the batch and the loss), moved or soft-edged foregrounds, and tiled or
# inpainted donors: `donor` is shown whole, so give an image without foreground.

# %%
import argparse
import json
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np


# %%
class Background(A.ImageOnlyTransform):
    """BG_RM with probability `remove`, else BG_Random with `random`, where the foreground's share is within bounds."""

    def __init__(self, remove: float, random: float, fill: str, low: float, high: float) -> None:
        super().__init__(p=1.0)
        self.remove, self.random, self.fill, self.low, self.high = remove, random, fill, low, high

    targets_as_params = property(lambda self: ["mask", "donor"])

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        image, front = data["image"], data["mask"] > 127
        removes, replaces = self.py_random.random() < self.remove, self.py_random.random() < self.random
        level = {"black": 0, "mean": image.mean((0, 1)).round()}.get(self.fill, self.py_random.randrange(256))
        behind: Any = np.full_like(image, level)
        if removes and self.fill == "noise":
            behind = self.random_generator.integers(0, 256, image.shape, np.uint8)
        if replaces and not removes:
            behind = cv2.resize(data["donor"], image.shape[1::-1])
        applies = (removes or replaces) and self.low <= front.mean() <= self.high
        return {"made": np.where(front[..., None], image, behind) if applies else image}

    def apply(self, img: np.ndarray, made: np.ndarray, **_: Any) -> np.ndarray:
        return made


def pipeline(policy: dict[str, Any], view: int, seed: int | None = None) -> A.Compose:
    """One view's transforms; call it with `image`, `mask` (uint8, foreground above 127) and `donor`."""
    made, section = policy["views"][view], policy["background"]
    if "albumentations" in made:
        colors = [A.from_dict({"transform": each}) for each in made["albumentations"]]
    else:
        strengths = [(max(0.0, 1 - x), 1 + x) for x in made["jitter"][:3]]
        colors = [
            A.ColorJitter(*strengths, hue=made["jitter"][3], p=made["jitter_p"]),
            A.ToGray(p=made["gray"]),
            A.GaussianBlur(blur_limit=0, sigma_limit=tuple(made["blur_sigma"]), p=made["blur"]),
            A.Solarize(threshold_range=(0.5, 0.5), p=made["solarize"]),
        ]
    # OpenCV's closest to Pillow's antialiased bilinear and bicubic is INTER_AREA.
    flag = cv2.INTER_LINEAR if made["interpolation"] == "linear" else cv2.INTER_AREA
    return A.Compose(
        [
            A.RandomResizedCrop(tuple(made["size"]), tuple(made["scale"]), tuple(made["ratio"]), interpolation=flag),
            Background(made["remove"], made["random"], section["fill"], section["min_area"], section["max_area"]),
            A.HorizontalFlip(p=made["flip"]),
            *colors,
        ],
        seed=seed,
    )


# %%
if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make one view of an image by a learnt policy.")
    parser.add_argument("policy", type=Path)
    parser.add_argument("image")
    parser.add_argument("mask")
    parser.add_argument("donor")
    parser.add_argument("--view", type=int, default=0)
    parser.add_argument("--out", default="view.png")
    options = parser.parse_args()
    image, donor = cv2.imread(options.image), cv2.imread(options.donor)
    mask = cv2.imread(options.mask, cv2.IMREAD_GRAYSCALE)
    if image is None or donor is None or mask is None:
        raise SystemExit("error: image, mask or donor cannot be read as an image")
    compose = pipeline(json.loads(options.policy.read_text(encoding="utf-8")), options.view)
    rgb, behind = image[..., ::-1].copy(), donor[..., ::-1].copy()
    cv2.imwrite(options.out, compose(image=rgb, mask=mask, donor=behind)["image"][..., ::-1])
