"""Real photographs with their masks, as samples."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bgsweep.data.sample import Sample


def read(path: Path) -> Sample:
    mask = path.parents[3] / "masks" / path.relative_to(path.parents[2]).with_suffix(".png")
    return Sample(
        id=path.name,
        image=np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]),
        label=0,
        load_mask=lambda: cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE),
    )


@pytest.fixture(scope="session")
def samples(shared_data: Path) -> list[Sample]:
    """One photograph of each of the ten classes."""
    classes = sorted((shared_data / "clothing10" / "images" / "train").iterdir())
    return [read(sorted(folder.glob("*.jpg"))[7]) for folder in classes]


@pytest.fixture(scope="session")
def large(samples: list[Sample]) -> list[Sample]:
    """The same at 375 x 500 px."""
    enlarged = []
    for sample in samples:
        mask = cv2.resize(sample.mask, (500, 375))
        enlarged.append(Sample(sample.id, cv2.resize(sample.image, (500, 375)), 0, mask.copy))
    return enlarged
