import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from bgsweep.data.datasets.folder import Folder
from bgsweep.data.sample import UNLABELLED
from bgsweep.errors import UserError

FIRST = "train/dress"


def first(folder: Path) -> Path:
    return min(path for path in folder.rglob("*") if path.is_file())


def test_reads_images_labels_and_masks_in_the_order_of_their_names(tree: Path) -> None:
    source = Folder(tree / "images", "train", tree / "masks")
    paths = sorted((tree / "images" / "train").rglob("*.jpg"))
    assert list(source.ids) == [path.relative_to(tree / "images" / "train").as_posix() for path in paths]
    assert source.classes == ["dress", "hat", "shoes"]
    assert source.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    for index, path in enumerate(paths):
        sample = source[index]
        np.testing.assert_array_equal(sample.image, cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))
        assert sample.mask is not None
        assert sample.mask.shape == sample.image.shape[:2]
        assert (sample.id, sample.label) == (source.ids[index], source.labels[index])


def test_without_mask_folder_there_are_no_masks(tree: Path) -> None:
    source = Folder(tree / "images", "train")
    assert not source.has_masks
    assert source[0].mask is None
    assert source.digests().keys() == {"images"}


def test_images_without_class_folders_are_unlabelled(tree: Path) -> None:
    source = Folder(tree / "images" / "train", "hat", tree / "masks" / "train")
    assert source.classes == []
    assert set(source.labels.tolist()) == {UNLABELLED}
    assert source[0].mask is not None


def test_dot_names_the_folder_itself(tree: Path) -> None:
    assert list(Folder(tree / "images" / "train", ".").ids) == list(Folder(tree / "images", "train").ids)


def test_hidden_and_other_files_are_passed_over(tree: Path) -> None:
    expected = list(Folder(tree / "images", "train").ids)
    (tree / "images/train/hat/._ghost.jpg").write_bytes(b"")
    (tree / "images/train/notes.txt").write_text("notes")
    (tree / "images/train/.git").mkdir()
    assert list(Folder(tree / "images", "train").ids) == expected


def test_labels_follow_the_training_split_where_a_class_is_absent(tree: Path) -> None:
    shutil.rmtree(tree / "images/test/dress")
    train = Folder(tree / "images", "train")
    assert Folder(tree / "images", "test", classes=train.classes).labels.tolist() == [1] * 6 + [2] * 6


def test_copy_in_another_process_needs_no_second_scan(tree: Path) -> None:
    source = Folder(tree / "images", "train", tree / "masks", resize=32)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[5].image, source[5].image)
    np.testing.assert_array_equal(copy[5].mask, source[5].mask)


def test_digests_tell_contents_and_names_apart(tree: Path) -> None:
    def digests() -> dict[str, str]:
        return Folder(tree / "images", "train", tree / "masks").digests()

    original = digests()
    assert original == digests()
    mask = first(tree / "masks/train")
    content = mask.read_bytes()
    mask.write_bytes(content + b"\0")
    assert digests()["images"] == original["images"]
    assert digests()["masks"] != original["masks"]
    mask.write_bytes(content)
    image = first(tree / "images/train")
    image.rename(image.with_name("zz.jpg"))
    mask.rename(mask.with_name("zz.png"))
    assert digests()["images"] != original["images"]


def test_digests_of_large_sets_read_no_contents(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bgsweep.data.datasets.folder.DIGESTED_WHOLE", 10)
    original = Folder(tree / "images", "train").digests()
    image = first(tree / "images/train")
    content = image.read_bytes()
    image.write_bytes(content[::-1])
    assert Folder(tree / "images", "train").digests() == original
    image.write_bytes(content + b"\0")
    assert Folder(tree / "images", "train").digests() != original


def _remove_masks(tree: Path) -> None:
    for path in sorted((tree / "masks/train").rglob("*.png"))[2:5]:
        path.unlink()


def _shrink_mask(tree: Path) -> None:
    path = first(tree / "masks/train")
    PIL.Image.open(path).resize((30, 40)).save(path)


def _code_masks_by_one(tree: Path) -> None:
    for path in (tree / "masks/train").rglob("*.png"):
        PIL.Image.open(path).convert("L").point(lambda level: level // 255).save(path)


def _leave_one(tree: Path) -> None:
    for path in sorted((tree / "images/train").rglob("*.jpg"))[1:]:
        path.unlink()


def _empty(tree: Path) -> None:
    shutil.rmtree(tree / "images/train")
    (tree / "images/train/hat").mkdir(parents=True)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images folder": (lambda t: (t / "images").rename(t / "image"), r"no folder .*images; did you mean 'image'"),
    "no split": (lambda t: (t / "images/train").rename(t / "images/trian"), r"no split 'train'; did you mean 'trian'"),
    "no such split at all": (lambda t: shutil.rmtree(t / "images/train"), r"no split 'train'; there are: test \("),
    "no masks folder": (lambda t: shutil.rmtree(t / "masks"), r"data\.masks: no folder .*masks; there are: images$"),
    "no mask split": (lambda t: shutil.rmtree(t / "masks/train"), r"masks: .* no split 'train'; there are: test$"),
    "no images": (_empty, r"images/train: no images in it"),
    "one image": (_leave_one, r"images/train: only one image in it \(dress/.*\.jpg\)"),
    "missing masks": (_remove_masks, r"masks/train: 3 of 18 images have no mask, the first missing is dress/.*\.png;"),
    "mask of other size": (_shrink_mask, r"\.png: 30x40 pixels, but its image .*\.jpg has \d+x\d+;"),
    "masks of 0 and 1": (_code_masks_by_one, r"\.png: its foreground is 1; masks go from 0"),
    "stray image": (
        lambda t: first(t / "images/train").rename(t / "images/train/stray.jpg"),
        r"images/train: stray\.jpg lies beside class folders",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(tree: Path, case: str) -> None:
    spoil, message = BAD[case]
    spoil(tree)
    with pytest.raises(UserError, match=message) as error:
        Folder(tree / "images", "train", tree / "masks")
    assert "\n" not in str(error.value)


def test_class_unknown_to_training_is_named_with_the_nearest(tree: Path) -> None:
    (tree / "images/test/shoes").rename(tree / "images/test/shoe")
    with pytest.raises(UserError, match=r"test/shoe: the training split has no such class; did you mean 'shoes'\?"):
        Folder(tree / "images", "test", classes=["dress", "hat", "shoes"])
