"""Ten class folders, as most people have theirs: from masks to the best encoder, given no more than their names."""

import re
import shlex
from pathlib import Path

import cv2
import pytest

from bgsweep.data.datasets.bundled import EmbeddedSample
from tests.command import bgsweep

SPLIT = "my photos: 10 class folders, no splits: 10% of each class is held out for validation and test each"
TINY = (
    "encoder.name=resnet10 encoder.width=4 encoder.stem=small views.size=16 data.resize=24 training.epochs=1 "
    "training.batch_size=16 method.queue_size=16 method.hidden_dim=8 method.embedding_dim=8 search.trials=2"
)
COMMANDS = f"""
masks make "my photos" --out "my masks"
preview "my sweep.yaml" --out "my views.png" --images 3
sweep "my sweep.yaml" {TINY} --name first
report first --out "my report.html"
evaluate CHECKPOINT --suite knn
evaluate CHECKPOINT "my sweep.yaml"
"""


@pytest.mark.faults  # for its time
def test_class_folders_with_spaces_from_masks_to_the_best_encoder(tmp_path: Path) -> None:
    sample = EmbeddedSample("train")
    for index in range(0, len(sample), 24):
        path = tmp_path / "my photos" / f"my {sample.classes[sample.labels[index]]}s" / f"image {index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), sample[index].image[..., ::-1])
    (tmp_path / "my sweep.yaml").write_text(
        "experiment: {data: {images: my photos, masks: my masks}}\nspace: {background.remove: {uniform: [0, 0.5]}}\n"
    )
    told = {}
    for command in COMMANDS.strip().splitlines():
        checkpoint = next(tmp_path.glob("bgsweep_runs/sweeps/first/**/state.pt"), None)
        words = shlex.split(command.replace("CHECKPOINT", shlex.quote(str(checkpoint))))
        done = bgsweep(*words, folder=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        told[words[0]] = re.sub(r"\s+", " ", done.stdout + done.stderr)
    for command in ("preview", "sweep"):
        assert SPLIT in told[command], told[command]
    assert re.search(
        r"Final evaluation, in % \(my photos, held out for test: 10 images; not used by the search\)", told["sweep"]
    )
    page = (tmp_path / "my report.html").read_text(encoding="utf-8")
    assert "my photos, held out for test" in page
