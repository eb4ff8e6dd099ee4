"""Images of the usual size to measure with, made from the embedded sample, so that nothing has to be fetched."""

from pathlib import Path

import cv2
import numpy as np
import PIL.Image

HEIGHT, WIDTH = 375, 500
# Enlarged images are smooth, and decoding takes as long as a file is large: with this grain and quality they are
# of about 75 KB, and take simplejpeg about as long as images of cameras at this size.
GRAIN, QUALITY = 10.0, 90


def make_images(folder: Path, count: int) -> tuple[Path, Path]:
    """Write so many JPEGs of 500 x 375 px and their masks (8-bit PNGs); give the folders of images and of masks."""
    from bgsweep.data.datasets.bundled import EmbeddedSample
    from bgsweep.images.decoding import cover

    source, generator = EmbeddedSample("train"), np.random.default_rng(0)
    images, masks = folder / "images", folder / "masks"
    for index in np.linspace(0, len(source) - 1, count).astype(int):
        sample = source[int(index)]
        name = sample.id.rpartition(".")[0]
        for root in (images, masks):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        grain = generator.normal(0, GRAIN, (HEIGHT, WIDTH, 1))
        picture = (cover(sample.image, HEIGHT, WIDTH) + grain).clip(0, 255).astype(np.uint8)
        PIL.Image.fromarray(picture).save(images / f"{name}.jpg", quality=QUALITY)
        assert sample.mask is not None
        outline = cv2.threshold(cover(sample.mask, HEIGHT, WIDTH), 127, 255, cv2.THRESH_BINARY)[1]
        PIL.Image.fromarray(outline).save(masks / f"{name}.png")
    return images, masks
