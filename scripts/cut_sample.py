"""Cut the images that come with bgsweep from the clothing10 set.

    python scripts/cut_sample.py CLOTHING10 bgsweep/data/datasets/clothing10

CLOTHING10 holds images/SPLIT/CLASS/*.jpg and masks, which these commands make from the images alone:

    bgsweep masks make CLOTHING10/images --out CLOTHING10/masks --soft

The same input and the same Pillow give the same bytes; the sample inside the package has these images, and masks
that U2-Net-P has made in the same way but for rounding. All ten classes get equal shares: 96 training, 20 validation
and 20 test images, as many as the smallest class (skirt) has. Where the set's own validation or test split is too
small, training images fill it up; none is ever moved the other way.
"""

import argparse
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

SHARES = {"validation": 20, "test": 20, "train": 96}
LIMIT = 5_000_000
CREDITS = """\
# The images in clothing10.zip

From "Clothing dataset (small)", https://github.com/alexeygrigorev/clothing-dataset-small, a subset of
https://github.com/alexeygrigorev/clothing-dataset collected by Alexey Grigorev and 32 contributors, with 3,000 images
by Kenes Shangereyev and Tagias.com. Dedicated to the public domain under CC0 1.0
(https://creativecommons.org/publicdomain/zero/1.0/). A file is named by the first eight digits of its original name.

The foreground masks were predicted by U2-Net-P (Qin et al. 2020), not drawn by people. Images and masks were scaled
down and divided anew into splits by scripts/cut_sample.py, and are CC0 1.0 as well.
"""


def main() -> None:
    """Write ``clothing10.zip`` and ``CREDITS.md`` into the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clothing10", type=Path, help="folder with images/ and masks/")
    parser.add_argument("out", type=Path, help="folder for clothing10.zip and CREDITS.md")
    parser.add_argument("--side", type=int, default=106, help="longest side in pixels")
    parser.add_argument("--quality", type=int, default=88, help="of the JPEG files")
    arguments = parser.parse_args()
    members = sorted(cut(arguments.clothing10, SHARES, arguments.side, arguments.quality))
    archive = pack([*members, ("CREDITS.md", CREDITS.encode())])
    if len(archive) > LIMIT:
        parser.error(f"{len(archive):,} bytes are more than {LIMIT:,}: choose a smaller --side or --quality")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "clothing10.zip").write_bytes(archive)
    (arguments.out / "CREDITS.md").write_text(CREDITS, encoding="utf-8")
    print(f"{len(members) // 2:,} images with masks, {len(archive):,} bytes")


def cut(root: Path, shares: dict[str, int], side: int, quality: int) -> Iterator[tuple[str, bytes]]:
    """The archive's members: ``images/<split>/<class>/<name>.jpg`` and the PNG of the same place under ``masks``."""
    for folder in sorted((root / "images" / "train").iterdir()):
        for split, paths in divide(root / "images", folder.name, shares).items():
            for path in paths:
                mask = root / "masks" / path.relative_to(root / "images").with_suffix(".png")
                place = f"{split}/{folder.name}/{path.stem[:8]}"
                yield f"images/{place}.jpg", shrink_image(path, side, quality)
                yield f"masks/{place}.png", shrink_mask(mask, side)


def divide(images: Path, label: str, shares: dict[str, int]) -> dict[str, list[Path]]:
    """Which images of a class go into which split; `train` comes last and takes what the others left."""
    spare = _shuffled(images / "train" / label)
    chosen: dict[str, list[Path]] = {}
    for split, count in shares.items():
        own = _shuffled(images / split / label)[:count] if split != "train" else []
        missing = count - len(own)
        chosen[split] = own + spare[:missing]
        spare = spare[missing:]
    return chosen


def _shuffled(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: hashlib.sha256(path.name.encode()).digest())


def shrink_image(path: Path, side: int, quality: int) -> bytes:
    """The image as a JPEG whose longest side is `side`."""
    with Image.open(path) as image:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
        return _encoded(image, "JPEG", quality=quality, optimize=True)


def shrink_mask(path: Path, side: int) -> bytes:
    """The mask as a PNG of one bit a pixel, of the same size as the shrunken image."""
    with Image.open(path) as mask:
        mask.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
        return _encoded(mask.point(lambda level: 255 if level > 127 else 0).convert("1"), "PNG", optimize=True)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pack(members: list[tuple[str, bytes]]) -> bytes:
    """An uncompressed zip archive without dates: JPEG and PNG are compressed already."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


if __name__ == "__main__":
    main()
