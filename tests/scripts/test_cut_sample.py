import importlib.util
import io
import shutil
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

from bgsweep.data.datasets.bundled import ARCHIVE
from bgsweep.workflows.make_masks import make_masks

SHARES = {"validation": 13, "test": 12, "train": 3}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "cut_sample.py"
    spec = importlib.util.spec_from_file_location("cut_sample", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cutting_twice_gives_the_same_bytes(script: ModuleType, shared_data: Path) -> None:
    def archive() -> bytes:
        shares = {"validation": 1, "test": 1, "train": 1}
        packed: bytes = script.pack(sorted(script.cut(shared_data / "clothing10", shares, 64, 88)))
        return packed

    assert archive() == archive()


def test_image_and_mask_shrink_to_one_size(script: ModuleType, shared_data: Path) -> None:
    members = dict(script.cut(shared_data / "clothing10", {"train": 1}, 64, 88))
    sizes = {name: PIL.Image.open(io.BytesIO(data)).size for name, data in members.items()}
    assert len(sizes) == 20
    for name, size in sizes.items():
        if name.startswith("images/"):
            assert size == sizes[name.replace("images/", "masks/").replace(".jpg", ".png")]
            assert max(size) == 64


def test_training_images_fill_up_other_splits_and_never_the_reverse(script: ModuleType, shared_data: Path) -> None:
    chosen = script.divide(shared_data / "clothing10" / "images", "skirt", SHARES)
    origins = {split: [path.parent.parent.name for path in paths] for split, paths in chosen.items()}
    assert origins["validation"] == ["validation"] * 12 + ["train"]
    assert origins["test"] == ["test"] * 12
    assert origins["train"] == ["train"] * 3
    assert len({path for paths in chosen.values() for path in paths}) == sum(SHARES.values())


def test_the_sample_can_be_cut_with_masks_made_by_bgsweep(
    script: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    for path in (shared_data / "clothing10/images/train").iterdir():
        copy = images / "train" / path.name / "image.jpg"
        copy.parent.mkdir(parents=True)
        shutil.copyfile(min(path.iterdir()), copy)
    make_masks(str(images), str(tmp_path / "masks"), workers=1)
    members = dict(script.cut(tmp_path, {"train": 1}, 64, 88))
    assert len(members) == 20
    for name in members:
        if name.startswith("images/"):
            mask = PIL.Image.open(io.BytesIO(members[name.replace("images/", "masks/").replace(".jpg", ".png")]))
            assert mask.size == PIL.Image.open(io.BytesIO(members[name])).size


def test_the_sample_in_the_package_is_what_these_commands_give(
    script: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    """The same images byte for byte, with masks that differ from those inside by a pixel here and there."""
    root, wanted = shared_data / "clothing10/images", {}
    for label in ("dress", "skirt"):
        for split, paths in script.divide(root, label, script.SHARES).items():
            copy = tmp_path / "images" / paths[0].relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths[0], copy)
            wanted[copy] = f"{split}/{label}/{paths[0].stem[:8]}"
    make_masks(str(tmp_path / "images"), str(tmp_path / "masks"), workers=1, soft=True)
    overlaps = []
    with zipfile.ZipFile(ARCHIVE) as archive:
        for path, name in wanted.items():
            assert script.shrink_image(path, 106, 88) == archive.read(f"images/{name}.jpg")
            mask = (tmp_path / "masks" / path.relative_to(tmp_path / "images")).with_suffix(".png")
            pictures = (script.shrink_mask(mask, 106), archive.read(f"masks/{name}.png"))
            found, inside = (np.asarray(PIL.Image.open(io.BytesIO(data))).astype(bool) for data in pictures)
            overlaps.append((found & inside).sum() / (found | inside).sum())
    assert np.mean(overlaps) > 0.93
