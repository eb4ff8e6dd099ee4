"""Paste cutouts on images: images whose foreground is known exactly.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb DEB
    python scripts/composite_stamps.py DEB/usr/share/tuxpaint/stamps STAMPS.json CLOTHING10 OUT

STAMPS.json lists the cutouts under the key "stamps" (RGBA PNGs by their paths below the first folder); CLOTHING10 holds
images/{train,test} and masks/{train,test}. OUT becomes train/ (images alone), held_out/ and held_out_truth/. A
third of the cutouts and the test images are seen in held_out only. Backgrounds are images whose own
foreground is inpainted. The stamps are GPL-2: keep what is made of them to yourself.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bgsweep.images.compositing import Image, Mask, inpaint_background

# Shares of the image's sides that a cutout's longer relative side may take.
_SMALLEST, _LARGEST = 0.35, 0.85


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path)
    parser.add_argument("listing", type=Path)
    parser.add_argument("clothing10", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=1500, help="images to learn from (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=300, help="images to score on (default: %(default)s)")
    parser.add_argument("--side", type=int, default=256, help="longer side in pixels (default: %(default)s)")
    options = parser.parse_args()
    names = json.loads(options.listing.read_text(encoding="utf-8"))["stamps"]
    held_out = [name for name in names if hashlib.sha256(name.encode()).digest()[0] % 3 == 0]
    rest = sorted(set(names) - set(held_out))
    for split, own, count in (("train", rest, options.train), ("held_out", held_out, options.held_out)):
        images = _images(options.clothing10, "train" if split == "train" else "test")
        for number in range(count):
            draws = np.random.default_rng((0 if split == "train" else 1, number))
            stamp = options.stamps / own[number % len(own)]
            image_file = images[int(draws.integers(len(images)))]
            image, truth = composite(_background(options.clothing10, image_file, options.side), _rgba(stamp), draws)
            _write(options.out / split / f"{number:05}.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            if split == "held_out":
                _write(options.out / "held_out_truth" / f"{number:05}.png", truth)
    print(f"{options.train} images of {len(rest)} cutouts to learn from; {options.held_out} of {len(held_out)} others")


def composite(background: Image, stamp: Image, draws: np.random.Generator) -> tuple[Image, Mask]:
    """The cutout wholly inside the image, at a random size and place, mirrored half the time; and its alpha.

    Args:
        background: RGB.
        stamp: RGBA.
    """
    height, width = background.shape[:2]
    share = draws.uniform(_SMALLEST, _LARGEST)
    zoom = share / max(stamp.shape[0] / height, stamp.shape[1] / width)
    size = max(1, round(stamp.shape[1] * zoom)), max(1, round(stamp.shape[0] * zoom))
    # Colours below zero alpha mean nothing and must not bleed into the rim.
    alpha = stamp[:, :, 3:].astype(np.float32) / 255
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    colors = cv2.resize(stamp[:, :, :3] * alpha, size, interpolation=method)
    alpha = cv2.resize(alpha, size, interpolation=method)[:, :, None]
    if draws.random() < 0.5:
        colors, alpha = colors[:, ::-1], alpha[:, ::-1]
    top, left = (int(draws.integers(0, room + 1)) for room in (height - size[1], width - size[0]))
    place = np.s_[top : top + size[1], left : left + size[0]]
    image, truth = background.astype(np.float32), np.zeros((height, width), np.float32)
    image[place] = colors + image[place] * (1 - alpha)
    truth[place] = alpha[:, :, 0]
    return np.rint(image).clip(0, 255).astype(np.uint8), np.rint(truth * 255).astype(np.uint8)


def _images(root: Path, split: str) -> list[Path]:
    folder = root / "images"
    return sorted(path.relative_to(folder) for path in (folder / split).rglob("*.jpg"))


def _background(root: Path, name: Path, side: int) -> Image:
    image = cv2.cvtColor(cv2.imread(str(root / "images" / name)), cv2.COLOR_BGR2RGB)
    mask: Any = cv2.imread(str((root / "masks" / name).with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
    zoom = side / max(image.shape[:2])
    size = round(image.shape[1] * zoom), round(image.shape[0] * zoom)
    small, hidden = (cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (image, mask))
    # What the mask has missed of the garment's rim would be an object of its own.
    hidden = cv2.dilate(np.where(hidden > 32, np.uint8(255), np.uint8(0)), np.ones((7, 7), np.uint8))
    return inpaint_background(small, hidden)


def _rgba(path: Path) -> Image:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def _write(path: Path, picture: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


if __name__ == "__main__":
    main()
