"""One process reads and decodes images in random order: from a folder, and from each form of files that holds them.

    python benchmarks/readers.py [--images 960] [--side 375] [--rounds 5] [--record] [--json]

JPEGs made from the embedded images, enlarged to `side`, with their masks. All forms are read in turn, round after
round, and each is compared with the folder in the same round; the ratios are medians. The files were just written, and
so lie in the machine's memory: what is compared is the work of the readers. `index` is the time of the first opening,
which lists everything, looks at masks, and copies parquet's images.
"""

import csv
import io
import os
import random
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
from common import below, markdown, parser_of, report

from bgsweep.config import Data
from bgsweep.data import ImageDataset
from bgsweep.data.datasets.bundled import EmbeddedSample
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.data.splits import open_split
from bgsweep.training.run import limit_threads

Item = tuple[str, bytes, bytes]
"""Path below the images, encoded image, encoded mask."""


def items(count: int, side: int) -> list[Item]:
    sample, found = EmbeddedSample("train", side), []
    for index in range(count):
        image = sample[index % len(sample)]
        assert image.mask is not None
        mask = cv2.threshold(image.mask, 127, 255, cv2.THRESH_BINARY)[1]
        encoded, encoded_mask = cv2.imencode(".jpg", image.image)[1], cv2.imencode(".png", mask)[1]
        found.append((f"{sample.classes[image.label]}/{index:06}.jpg", encoded.tobytes(), encoded_mask.tobytes()))
    return found


def write(root: Path, given: list[Item]) -> dict[str, Data]:
    """The images in every form, as one training split."""
    for name, image, mask in given:
        for kind, path, content in (("images", name, image), ("masks", name.replace(".jpg", ".png"), mask)):
            (root / kind / "train" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / kind / "train" / path).write_bytes(content)
    with (root / "train.csv").open("w", newline="") as file:
        rows = [(f"images/train/{name}", f"masks/train/{name[:-4]}.png", name.partition("/")[0]) for name, *_ in given]
        csv.writer(file).writerows([("path", "mask", "label"), *rows])
    with tarfile.open(root / "train-0.tar", "w") as archive:
        for index, (name, image, mask) in enumerate(given):
            label = name.partition("/")[0].encode()
            for ending, content in (("jpg", image), ("mask.png", mask), ("cls", label)):
                member = tarfile.TarInfo(f"{index:06}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    columns = {"image": [each[1] for each in given], "mask": [each[2] for each in given]}
    table = pa.table({**columns, "label": [each[0].partition("/")[0] for each in given]})
    pq.write_table(table, root / "train.parquet", row_group_size=100)
    with pa.OSFile(str(root / "train.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    make_pack(str(root / "images"), str(root / "masks"), str(root / "pack"))
    listed = {name: Data(images=str(root / f"train.{name}"), masks="included") for name in ("csv", "arrow", "parquet")}
    return {
        "folder": Data(images=str(root / "images"), masks=str(root / "masks")),
        "tar": Data(images=str(root / "train-0.tar"), masks="included"),
        **listed,
        "pack": Data(pack=str(root / "pack")),
    }


def seconds(dataset: ImageDataset, order: list[int]) -> float:
    """Of a core: nothing waits for a disk here, and other work on the machine does not count."""
    began = time.process_time()
    for index in order:
        _ = dataset[index].image
    return time.process_time() - began


def opened(data: Data) -> tuple[ImageDataset, float]:
    began = time.perf_counter()
    return open_split(data, "train", None), time.perf_counter() - began


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--side", type=int, default=375)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    limit_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BGSWEEP_CACHE"] = f"{folder}/cache"
        forms = write(Path(folder), items(options.images, options.side))
        datasets = {name: opened(data) for name, data in forms.items()}
        times: dict[str, list[float]] = {name: [] for name in forms}
        for number in range(options.rounds + 1):
            order = random.Random(number).sample(range(options.images), options.images)
            for name, (dataset, _) in datasets.items():
                took = seconds(dataset, order)
                if number:  # the first one warms up
                    times[name].append(took)
    rows, found = [], {}
    for name, (_, index) in datasets.items():
        ratio = statistics.median(base / own for base, own in zip(times["folder"], times[name], strict=True))
        rate = options.images / statistics.median(times[name])
        found[name] = {"images_per_second": round(rate), "speed": round(ratio, 3), "index_s": round(index, 2)}
        rows.append([name, f"{rate:.0f}", f"{ratio:.2f}", f"{index:.2f}"])
    body = markdown(["form", "images/s of a core", "speed by the folder's", "index, s"], rows)
    body += below(f"{options.images} images of {options.side} px", found)
    report(options, "Readers of all forms of files", "python benchmarks/readers.py", body, found)


if __name__ == "__main__":
    main()
