# %% [markdown]
# # Nearest neighbours of the champion's features
#
# Loads a registered champion, embeds a folder of images, and finds each image's nearest neighbours. A notebook in the
# "percent" format (Jupyter opens it with jupytext; VS Code and PyCharm open it directly); from a shell:
#
#     python examples/neighbours.py models:/bgsweep-quickstart@champion images/test --out neighbours.png
#
# Needs MLflow, torch, OpenCV, NumPy and, for the drawing, Matplotlib, but not bgsweep.

# %%
import argparse
import os
import sys
from pathlib import Path

import cv2
import mlflow
import numpy as np

# %% [markdown]
# ## Options
#
# In a notebook, change the defaults here.

# %%
parser = argparse.ArgumentParser(description="Find each image's nearest neighbours by a champion's features.")
parser.add_argument("model", nargs="?", default="models:/bgsweep-quickstart@champion", help="an MLflow URI")
parser.add_argument("folder", nargs="?", type=Path, default=Path("images/test"))
parser.add_argument("--store", type=Path, default=Path("bgsweep_runs"), help="unless MLFLOW_TRACKING_URI is set")
parser.add_argument("--size", type=int, default=24, help="crop size in pixels; best the training's `views.size`")
parser.add_argument("--neighbours", type=int, default=3)
parser.add_argument("--out", type=Path, help="PNG of some images with their neighbours")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
SUFFIXES = {".jpg", ".jpeg", ".png"}
ROWS = 8

# %% [markdown]
# ## The encoder
#
# A `torch.export` program from MLflow's registry: it accepts any number of images of any size, float32 (N, 3, H, W) in
# [0, 1], and normalizes them itself.

# %%
mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{options.store.resolve()}/mlflow.db")
encoder = mlflow.pyfunc.load_model(options.model)


# %% [markdown]
# ## The images
#
# The central square of each, at the size that the encoder was trained with.


# %%
def square(path: Path, size: int) -> np.ndarray:
    """Size x size x 3, RGB, uint8."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise SystemExit(f"error: {path} cannot be read as an image")
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)


paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
if len(paths) <= options.neighbours:
    raise SystemExit(f"error: {options.folder}: {len(paths)} images have no {options.neighbours} neighbours each")
images = np.stack([square(path, options.size) for path in paths])

# %% [markdown]
# ## Neighbours
#
# By cosine similarity of features, without the image itself.

# %%
batches = [images[first : first + 64] for first in range(0, len(images), 64)]
features = np.concatenate([encoder.predict(batch.transpose(0, 3, 1, 2).astype(np.float32) / 255) for batch in batches])
features /= np.linalg.norm(features, axis=1, keepdims=True)
similarity = features @ features.T
np.fill_diagonal(similarity, -1)
nearest = np.argsort(-similarity, axis=1)[:, : options.neighbours]
for path, row, found in zip(paths, similarity, nearest, strict=True):
    words = ", ".join(f"{paths[index].relative_to(options.folder)} ({row[index]:.2f})" for index in found)
    print(f"{path.relative_to(options.folder)}: {words}")

# %% [markdown]
# ## Drawing
#
# Some images, left, with their nearest neighbours.

# %%
if options.out or "ipykernel" in sys.modules:
    import matplotlib.pyplot as plt

    chosen = np.linspace(0, len(paths) - 1, min(ROWS, len(paths))).astype(int)
    figure, axes = plt.subplots(len(chosen), 1 + options.neighbours, squeeze=False)
    figure.set_size_inches(1.2 * (1 + options.neighbours), 1.2 * len(chosen))
    for line, query in zip(axes, chosen, strict=True):
        for axis, index in zip(line, [query, *nearest[query]], strict=True):
            axis.imshow(images[index])
            axis.set_axis_off()
            if index != query:
                axis.set_title(f"{similarity[query, index]:.2f}", fontsize=7, pad=2)
    figure.tight_layout()
    if options.out:
        figure.savefig(options.out, dpi=120)
