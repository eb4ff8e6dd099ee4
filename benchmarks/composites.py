"""Cutouts of several kinds on scenes: images whose foreground is known exactly, to choose settings by and to report on.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb DEB
    python benchmarks/composites.py CLOTHING10 IMAGENETTE DEB/usr/share/tuxpaint/stamps STAMPS.json OUT

CLOTHING10 and IMAGENETTE hold images and masks by split and class; STAMPS.json lists photographic cutouts (RGBA PNGs)
under the key "stamps". OUT becomes {choose,report}/KIND/{images,truth}. The cutouts of `report` come from other images
than those of `choose`: garments and scenes from other splits, objects from other classes, stamps from other files.
Backgrounds are images of Imagenette whose own foreground is small and inpainted. The kind `scenes` is no composite:
images of Imagenette as they are, with their masks, which U2-Net-P has made. The stamps are GPL-2: keep what is made of
them to yourself.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from composite_stamps import composite

from bgsweep.images.compositing import Image, foreground_area, inpaint_background, without_rim

SPLITS = {"choose": "train", "report": "val"}
SIDE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("clothing10", "imagenette", "stamps", "listing", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--count", type=int, default=100, help="images of each kind (default: %(default)s)")
    options = parser.parse_args()
    for number, (part, split) in enumerate(SPLITS.items()):
        kinds = {
            "garments": cutouts(options.clothing10, "test" if part == "report" else "train", slice(None)),
            "objects": cutouts(options.imagenette, split, slice(5, None) if part == "report" else slice(5)),
            "stamps": stamps(options.stamps, options.listing, part),
        }
        plain = backgrounds(options.imagenette, split)
        for kind, found in kinds.items():
            for index in range(options.count):
                image, truth = composite(next(plain), next(found), np.random.default_rng((number, index)))
                write(options.out / part / kind, index, image, truth)
        whole = scenes(options.imagenette, split, slice(5, None) if part == "report" else slice(5))
        for index in range(options.count):
            write(options.out / part / "scenes", index, *next(whole))


def write(folder: Path, index: int, image: Image, truth: Image) -> None:
    """Write an image (RGB) and its mask."""
    for tree, pixels in (("images", image[..., ::-1]), ("truth", truth)):
        path = folder / tree / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)


def cutouts(root: Path, split: str, classes: slice) -> Iterator[Image]:
    """Foregrounds as RGBA, without end, of images that show them whole and clearly: cut to their bounding boxes."""
    folders = sorted(path.name for path in (root / "images" / split).iterdir())[classes]
    for image, mask in pairs(root, split, folders):
        rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]) > 127
        if 0.08 <= foreground_area(mask) <= 0.6 and rim.mean() < 0.02:
            alpha = without_rim(mask)
            left, top, width, height = cv2.boundingRect(alpha)
            yield np.dstack([image, alpha])[top : top + height, left : left + width]


def stamps(root: Path, listing: Path, part: str) -> Iterator[Image]:
    """Photographic cutouts, without end; a third of them for `report`."""
    names = json.loads(listing.read_text(encoding="utf-8"))["stamps"]
    held_out = {name for name in names if hashlib.sha256(name.encode()).digest()[0] % 3 == 0}
    own = sorted(held_out if part == "report" else set(names) - held_out)
    while True:
        for name in own:
            yield _read(root / name, cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]]


def scenes(root: Path, split: str, classes: slice) -> Iterator[tuple[Image, Image]]:
    """Images as they are, with their masks, without end."""
    folders = sorted(path.name for path in (root / "images" / split).iterdir())[classes]
    for image, mask in pairs(root, split, folders):
        if 0.05 <= foreground_area(mask) <= 0.7:
            yield image, mask


def backgrounds(root: Path, split: str) -> Iterator[Image]:
    """Backgrounds, without end: SIDE x SIDE."""
    folders = sorted(path.name for path in (root / "images" / split).iterdir())
    for image, mask in pairs(root, split, folders):
        if 0.01 <= foreground_area(mask) <= 0.2:
            hidden = np.asarray(cv2.dilate(mask, np.ones((7, 7), np.uint8)), np.uint8)
            plain = cv2.resize(inpaint_background(image, hidden), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            yield np.asarray(plain, np.uint8)


def pairs(root: Path, split: str, classes: list[str]) -> Iterator[tuple[Image, Image]]:
    """Images (RGB) and masks of some classes, a class after another, in an order that does not depend on the system."""
    files = [sorted((root / "images" / split / name).iterdir()) for name in classes]
    while True:
        for index in range(max(map(len, files))):
            for path in (own[index % len(own)] for own in files):
                mask = (root / "masks" / path.relative_to(root / "images")).with_suffix(".png")
                yield _read(path)[..., ::-1], _read(mask, cv2.IMREAD_GRAYSCALE)


def _read(path: Path, flags: int = cv2.IMREAD_COLOR) -> Image:
    pixels = cv2.imread(str(path), flags)
    assert pixels is not None, path
    return np.asarray(pixels, np.uint8)


if __name__ == "__main__":
    main()
