"""Views of large images on one core: decoded as they are, and at a smaller scale by `data.decode_side`.

    python benchmarks/large_images.py IMAGES MASKS --record

IMAGES holds JPEGs, of 12 megapixels for instance, and MASKS a PNG for each. One process and thread, interleaved rounds,
CPU time, as benchmarks/pipeline.py; MoCo-v2's views of 224 px, colours exact. `bg` is BG_RM and BG_Random at 0.2 each,
with masks that the process has decoded before, as from the second epoch on.
"""

import os
import statistics
from pathlib import Path

from common import markdown, parser_of, report
from pipeline import Pass, measure, pipeline_of, ratio

from bgsweep.config.views import Views
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.loader import Batches
from bgsweep.images.decoding import decode_image
from bgsweep.training.run import limit_threads

RESIZES = ("linear", "bilinear")
BATCH = 8


def views_of(source: Folder, background: bool, resize: str) -> Pass:
    batches = Batches(source, pipeline_of("moco_v2", background, f"views.interpolation={resize}"), BATCH, seed=0)

    def run(epoch: int) -> None:
        for _ in batches.epoch(epoch):
            pass

    return run


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("masks", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    limit_threads(1)
    side = Views().least_side
    whole, small = (Folder(options.images, ".", options.masks, least_side=least) for least in (None, side))
    passes = {
        f"{name}{', bg' if background else ''}, {resize}": views_of(source, background, resize)
        for resize in RESIZES
        for background in (False, True)
        for name, source in (("as they are", whole), (f"decode_side {side}", small))
    }
    seconds, count = measure(passes, options.rounds), len(whole) // BATCH * BATCH
    rows = []
    for name, values in seconds.items():
        base = name.replace(f"decode_side {side}", "as they are")
        each = statistics.median(values) / count
        rows.append([name, f"{1e3 * each:.1f}", f"{1 / each:.0f}", f"{ratio(seconds, base, name):.2f}"])
    body = markdown(["views", "ms an image", "images/s", "times as they are"], rows)
    sizes = [decode_image(whole.encoded(index), whole.ids[index])[1] for index in range(min(len(whole), 4))]
    bytes_ = statistics.mean(map(whole.size_of, range(len(whole))))
    height, width = sizes[0]
    notes = f"{count} images of {width} x {height} px and {bytes_ / 1e6:.1f} MB, load {os.getloadavg()[1]:.1f}"
    command = f"python benchmarks/large_images.py IMAGES MASKS --rounds {options.rounds}"
    report(options, "Large images, one core", command, f"{body}\n\n{notes}", seconds)


if __name__ == "__main__":
    main()
