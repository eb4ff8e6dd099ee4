"""Load a registered champion, embed a folder of photographs, and find each one's nearest neighbours.

    python examples/neighbours.py models:/bgsweep-quickstart@champion photographs/test --store bgsweep_runs

Needs MLflow, torch, OpenCV and NumPy; bgsweep itself is not imported.
"""

import argparse
import os
from pathlib import Path

import cv2
import mlflow
import numpy as np

SUFFIXES = {".jpg", ".jpeg", ".png"}


def square(path: Path, size: int) -> np.ndarray:
    """A photograph's central square as float32 RGB in [0, 1], 3 x size x size."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"error: {path} cannot be read as an image")
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    centre = cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
    return centre[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an MLflow URI, as `bgsweep sweep` prints it at its end")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", type=Path, default=Path("bgsweep_runs"), help="unless MLFLOW_TRACKING_URI is set")
    parser.add_argument(
        "--size", type=int, default=24, help="of the squares in pixels, as the encoder was trained with"
    )
    parser.add_argument("--neighbours", type=int, default=3)
    options = parser.parse_args()
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{options.store.resolve()}/mlflow.db")

    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    encoder = mlflow.pyfunc.load_model(options.model)
    features = np.concatenate(
        [
            encoder.predict(np.stack([square(path, options.size) for path in paths[first : first + 64]]))
            for first in range(0, len(paths), 64)
        ]
    )
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features @ features.T
    np.fill_diagonal(similarity, -1)  # nobody is his own neighbour
    for path, row in zip(paths, similarity, strict=True):
        nearest = np.argsort(-row)[: options.neighbours]
        words = ", ".join(f"{paths[index].relative_to(options.folder)} ({row[index]:.2f})" for index in nearest)
        print(f"{path.relative_to(options.folder)}: {words}")


if __name__ == "__main__":
    main()
