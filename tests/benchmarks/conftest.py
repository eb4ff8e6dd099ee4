"""Images in the layouts that the benchmarks read."""

from pathlib import Path

import cv2
import pytest

from bgsweep.data.datasets.bundled import EmbeddedSample


@pytest.fixture
def imagenette(tmp_path: Path) -> Path:
    """Thirty images of the embedded sample with masks, in Imagenette's layout."""
    root = tmp_path / "imagenette-128"
    for split, name in (("train", "train"), ("val", "validation")):
        source = EmbeddedSample(name)
        for index in range(0, len(source), len(source) // 20):
            sample = source[index]
            file = Path(split, sample.id).with_suffix(".png")
            for kind, pixels in (("images", sample.image[..., ::-1]), ("masks", sample.mask)):
                (root / kind / file).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / kind / file), pixels)
    return root
