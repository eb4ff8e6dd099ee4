"""Random files as images, masks and checkpoints: whatever a command makes of them, it ends without a traceback."""

import io
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from bgsweep.data import splits
from bgsweep.tracking import Tracker, tracking_uri
from tests import inputs
from tests.command import bgsweep

SECONDS = 20
RAW = re.compile(r"^Traceback|\[ (WARN|ERROR):", re.M)
MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
KINDS = ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "PPM", "ICO", "JPEG2000", "TGA", "PDF"]
Random = random.Random


def noise(draw: Random) -> bytes:
    return draw.randbytes(draw.choice([0, 1, 7, 100, 5000]))


def image(draw: Random) -> bytes:
    """An image of any mode and size in any format, sometimes with an orientation."""
    height, width = draw.choice([(1, 1), (1, 90), (70, 2), (40, 60), (60, 40), (300, 8)])
    pixels = np.random.default_rng(draw.randrange(2**32)).integers(0, 256, (height, width, 3), np.uint8)
    picture = PIL.Image.fromarray(pixels)
    exif = PIL.Image.Exif()
    exif[0x0112] = draw.randrange(12)
    file = io.BytesIO()
    try:
        mode = draw.choice(MODES)
        picture = PIL.Image.fromarray(pixels[..., 0].astype(np.uint16)) if mode == "I;16" else picture.convert(mode)
        picture.save(file, draw.choice(KINDS), exif=exif)
    except (OSError, ValueError, KeyError, RuntimeError):  # a mode that this format does not know
        picture = PIL.Image.fromarray(pixels)
        picture.save(file, "PNG", exif=exif)
    return file.getvalue()


def levels(draw: Random) -> bytes:
    """A PNG of few levels, 8 or 16 bits, grey or with alpha."""
    known = np.array(
        draw.choice([[0, 255], [0, 1], [0, 1, 2, 3], [0, 7, 255], [0, 128, 255], [0, 65535], [0, 17, 34, 51]])
    )
    chosen = np.random.default_rng(draw.randrange(2**32)).integers(
        0, len(known), draw.choice([(40, 60), (80, 60), (9, 9)])
    )
    pixels = known[chosen].astype(np.uint16 if known.max() > 255 or draw.random() < 0.3 else np.uint8)
    if draw.random() < 0.3:
        pixels = np.dstack([pixels] * draw.choice([3, 4]))
    return cv2.imencode(".png", pixels)[1].tobytes()


def broken(make: Callable[[Random], bytes]) -> Callable[[Random], bytes]:
    """The same, cut off or with some bytes changed."""

    def spoil(draw: Random) -> bytes:
        data = bytearray(make(draw))
        if draw.random() < 0.5:
            return bytes(data[: draw.randrange(len(data))])
        for _ in range(draw.choice([1, 3, 30])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        return bytes(data)

    return spoil


CONTENTS = [noise, image, image, levels, levels, broken(image), broken(levels), lambda _: b"version https://git-lfs\n"]


def replace(draw: Random, path: Path) -> None:
    """Put something else where an image or mask is."""
    path.unlink()
    kind = draw.randrange(12)
    if kind == 0:
        path.symlink_to(draw.choice(["gone", path.name, ".", "/dev/null", "/proc/self/mem"]))
    elif kind == 1:
        path.mkdir()
    elif kind > 2:
        path.write_bytes(draw.choice(CONTENTS)(draw))


def spoil(draw: Random, folder: Path) -> None:
    for kind in ("photos", "masks"):
        paths = sorted(path for path in (folder / kind).rglob("*.*") if path.is_file())
        for path in draw.sample(paths, draw.choice([0, 1, 3, len(paths) // 2])):
            replace(draw, path)
    if draw.random() < 0.3:
        path = draw.choice(sorted((folder / "photos").rglob("*.jpg")))
        path.rename(
            path.with_name(draw.choice(["ä ö.jpg", "'; x.png", "a\nb.jpg", "%s.tiff", "x.JPG", "-rf.jpg", "a.b.jpg"]))
        )


def checkpoint(draw: Random) -> bytes:
    """Files that `torch.save` wrote and that are no checkpoints of bgsweep."""
    file = io.BytesIO()
    tensors = {"conv1.weight": torch.zeros(4, 3, 3, 3), "module.fc.bias": torch.zeros(2)}
    content = draw.choice(
        [
            tensors,
            {"state_dict": tensors},
            {"experiment": 3},
            {"method": tensors},
            [1],
            "x",
            np.zeros(3),
            tensors["module.fc.bias"],
        ]
    )
    torch.save(content, file)
    return file.getvalue()


COMMANDS = [
    "doctor mine.yaml --store store",
    "preview mine.yaml --out views.png",
    "pack photos masks --out packed",
    "masks show photos masks --out sheet.png --second none",
    "masks score masks photos",
    "masks make photos --out made --method mbd --workers 1",
    "pretrain mine.yaml --store store",
]
WEIGHTS = [
    "evaluate weights.pth mine.yaml --store store",
    "evaluate resnet18=weights.pth --suite knn --data suite.yaml --store store",
]


@pytest.mark.timeout(180)
def test_no_command_ends_in_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Tracker(tracking_uri(tmp_path / "store")) as tracker:
        assert tracker.experiment_id
    inputs.write_images(tmp_path / "clean")
    ends, began, number = [], time.monotonic(), 0
    while time.monotonic() < began + SECONDS or number < len(COMMANDS):
        draw, folder = Random(number), tmp_path / str(number)
        splits._open.cache_clear()
        shutil.copytree(tmp_path / "clean", folder)
        (folder / "store").symlink_to(tmp_path / "store")
        if number % 4 == 3:
            (folder / "weights.pth").write_bytes(draw.choice([noise, checkpoint, checkpoint, broken(checkpoint)])(draw))
            (folder / "suite.yaml").write_text(
                "data: {images: photos, masks: masks}\npictures: {resize: 36, crop: 32}\n"
            )
            command = draw.choice(WEIGHTS)
        else:
            spoil(draw, folder)
            command = COMMANDS[number % len(COMMANDS)]
        try:
            ended = bgsweep(*command.split(), folder=folder)
        except Exception as error:
            raise AssertionError(f"draw {number}: bgsweep {command}") from error
        raw = capfd.readouterr()
        assert ended.returncode in (0, 2), f"draw {number}: bgsweep {command}: {ended.stderr}"
        assert not RAW.search(ended.stdout + ended.stderr + raw.out + raw.err), f"draw {number}: {command}: {raw}"
        if ended.returncode and not command.startswith("doctor"):  # which prints a table, and what is missing in it
            assert ended.stderr.count("error: ") >= 1
        ends.append(ended.returncode)
        shutil.rmtree(folder)
        number += 1
    assert set(ends) == {0, 2}  # some of it works, some is refused
