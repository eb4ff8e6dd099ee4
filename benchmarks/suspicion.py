"""Suspicion of masks against their true IoU, on images whose masks are known.

    python benchmarks/suspicion.py CLOTHING10 IMAGENETTE --work suspicion --record

Two sets on which the weights of the score were not fitted (that the second method sees the mirrored image was tried on
75 garments first):

- garments: cutouts of clothing10's test images, pasted on Imagenette's validation images;
- scenes: the same test images as they are. Their masks are by U2-Net-P, which is therefore neither judged nor second
  there.

The weights were chosen on composites of photographic stamps (what scripts/composite_stamps.py has written; `--stamps`
adds its held-out part as a third set). Their cutouts are other objects, and their backgrounds are images of clothing10
with the garment painted over: none of the garments', but some of those of the scenes. On each set the masks are those
of bgsweep's own methods, and the true masks made worse as by data.mask_noise. Masks of one method are ordered among
themselves, as in a folder that somebody has made. What was made lies in --work; interrupted, the command goes on.
"""

import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import markdown, parser_of, report

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

ORDERS = ("suspicion", "--second none", "former", "random")
FIRST = 0.1
"""Share of the masks that a person looks at."""
COLUMNS = (
    "set",
    "masks by",
    "second",
    "mean IoU",
    "IoU < .5",
    *(f"rho, {name}" for name in ORDERS),
    f"IoU < .5 among the first {FIRST:.0%}: {', '.join(ORDERS)}",
)
METHODS = ("u2netp", "fusion", "rbd", "mbd", "grabcut")
SIDE = 192


def read(path: Path) -> Any:
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


def gray(path: Path) -> Any:
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def scenes(clothing10: Path, out: Path, count: int) -> None:
    """Images of clothing10 and the masks that come with them."""
    paths = sorted((clothing10 / "images" / "test").rglob("*.jpg"))
    for number, path in enumerate(paths[:: max(1, len(paths) // count)][:count]):
        mask = clothing10 / "masks" / path.relative_to(clothing10 / "images").with_suffix(".png")
        write(out / "images" / f"{number:05}.png", read(path))
        write(out / "truth" / f"{number:05}.png", gray(mask))


def garments(scenes: Path, imagenette: Path, out: Path) -> None:
    """Cutouts of the scenes on images of Imagenette."""
    from composite_stamps import composite

    behind = sorted((imagenette / "images" / "val").rglob("*.jpg"))
    for number, path in enumerate(sorted((scenes / "images").iterdir())):
        mask = gray(scenes / "truth" / path.name)
        if not 0.05 < np.mean(mask > 127) < 0.8:
            continue
        left, top, width, height = cv2.boundingRect((mask > 32).astype(np.uint8))
        cutout = np.dstack([read(path), mask])[top : top + height, left : left + width]
        draws = np.random.default_rng((0, number))
        background = read(behind[int(draws.integers(len(behind)))])
        background = cv2.resize(background, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        image, truth = composite(background, cutout, draws)
        write(out / "images" / path.name, image)
        write(out / "truth" / path.name, truth)


def noise(folder: Path) -> None:
    """The true masks made worse: 5 % lost, 15 % another image's, 20 % a box, 30 % grown or shrunk, 10 % blurred."""
    from bgsweep.data.datasets.mask_noise import blur, bounding_box, grow

    paths = sorted((folder / "truth").iterdir())
    for number, path in enumerate(paths):
        draws, mask = random.Random(number), gray(path)
        kind, other = draws.random(), draws.choice(paths[:number] + paths[number + 1 :])
        if kind < 0.05:
            mask = np.zeros_like(mask)
        elif kind < 0.2:
            mask = cv2.resize(gray(other), mask.shape[::-1])
        elif kind < 0.4:
            mask = bounding_box(mask)
        elif kind < 0.7:
            mask = grow(mask, draws.choice([-12, -8, -4, 4, 8, 12]))
        elif kind < 0.8:
            mask = blur(mask, 4)
        write(folder / "noise" / path.name, mask)


def former(mask: Any) -> float:
    """The order of `bgsweep masks show` before: empty, tiny and full masks, speckles, the rim, uncertain pixels."""
    from bgsweep.data.mask_kinds import HUGE, TINY
    from bgsweep.images.compositing import binarize, foreground_area
    from bgsweep.masks.grabcut import shrink

    area = foreground_area(mask)
    if area == 0:
        return 5
    if area > HUGE or area < TINY:
        return 2 + area if area > HUGE else 4 - area
    small = shrink(mask, 128)
    bits = binarize(small)
    pieces = cv2.connectedComponents(bits)[0] + cv2.connectedComponents(cv2.bitwise_not(bits))[0] - 4
    speckled = min(1.0, max(0, pieces) / 20)
    rim = np.concatenate([bits[0], bits[-1], bits[:, 0], bits[:, -1]])
    vague = min(1.0, 2 * float(np.mean((small > 63) & (small < 192))))
    return max(1 + speckled if speckled >= 0.2 else speckled, vague, float(np.mean(rim > 0)))


def judged(folder: Path, by: str, second: str) -> dict[str, Any]:
    """The masks of one method on one set: their IoU, their suspicion, and how well the one tells the other."""
    from scipy.stats import spearmanr

    from bgsweep.masks.score import score
    from bgsweep.masks.suspicion import suspicion

    paths = sorted((folder / by).glob("*.png"))
    overlaps = np.array([score(gray(path), gray(folder / "truth" / path.name)).iou for path in paths])
    names = [path.name for path in paths]
    images, masks = ([read(folder / "images" / name) for name in names], [gray(folder / by / name) for name in names])
    seconds: list[Any] = [gray(folder / f"second-{second}" / name) for name in names]
    orders = {
        "suspicion": [suspicion(*each).value for each in zip(images, masks, seconds, strict=True)],
        "--second none": [suspicion(*each, None).value for each in zip(images, masks, strict=True)],
        "former": list(map(former, masks)),
        "random": list(np.random.default_rng(0).permutation(len(names))),
    }
    first = max(1, round(FIRST * len(paths)))
    found: dict[str, Any] = {"set": folder.name, "by": by, "second": second, "images": len(paths)}
    found |= {"iou": float(overlaps.mean()), "bad": float(np.mean(overlaps < 0.5))}
    found["spearman"] = {name: float(spearmanr(order, overlaps).statistic) for name, order in orders.items()}
    found["first"] = {
        name: float(np.mean(overlaps[np.argsort(order, kind="stable")[::-1][:first]] < 0.5))
        for name, order in orders.items()
    }
    return found


def seconds_of(folder: Path) -> Iterator[tuple[str, str]]:
    """The methods of a set's masks with the second method of each."""
    for by in (*METHODS, "noise"):
        if folder.name != "scenes":
            yield by, "u2netp"
        elif by != "u2netp":
            yield by, "mbd" if by == "rbd" else "rbd"


def make(folder: Path) -> None:
    """Make all masks of a set."""
    from bgsweep.masks.second import second_masks
    from bgsweep.workflows.make_masks import make_masks

    noise(folder)
    for by, second in seconds_of(folder):
        if by != "noise":
            name: Any = "network" if by == "u2netp" else by
            make_masks(str(folder / "images"), str(folder / by), name, workers=1)
        out, compared = folder / f"second-{second}", second_masks(second).masks
        for path in sorted((folder / "images").iterdir()):
            if compared and not (out / path.name).exists():
                write(out / path.name, next(compared([path.name], [read(path)])))


def row(found: dict[str, Any]) -> list[str]:
    """One line of the table."""
    told = [found["set"], found["by"], found["second"], f"{found['iou']:.2f}", f"{100 * found['bad']:.0f} %"]
    first = ", ".join(f"{100 * found['first'][name]:.0f} %" for name in ORDERS)
    return [*told, *(f"{found['spearman'][name]:+.2f}" for name in ORDERS), first]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clothing10", type=Path)
    parser.add_argument("imagenette", type=Path, help="the folder imagenette-128")
    parser.add_argument("--stamps", type=Path, help="also what scripts/composite_stamps.py has written")
    parser.add_argument("--images", type=int, default=150, help="of clothing10 (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("suspicion"), help="(default: %(default)s)")
    options = parser.parse_args()
    sets = [options.work / "garments", options.work / "scenes"]
    if not (sets[0] / "noise").exists():
        scenes(options.clothing10, sets[1], options.images)
        garments(sets[1], options.imagenette, sets[0])
    if options.stamps:
        sets.append(options.work / "stamps")
        for name, given in (("images", "held_out"), ("truth", "held_out_truth")):
            for path in sorted((options.stamps / given).iterdir())[: options.images]:
                (sets[-1] / name).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, sets[-1] / name / path.name)
    for folder in sets:
        make(folder)
    results = [judged(folder, *pair) for folder in sets for pair in seconds_of(folder)]
    title = f"Suspicion of masks against their true IoU, {options.images} images a set"
    command = f"python benchmarks/suspicion.py CLOTHING10 IMAGENETTE{' --stamps OUT' if options.stamps else ''}"
    report(options, title, command, markdown(COLUMNS, [row(result) for result in results]), results)


if __name__ == "__main__":
    main()
