import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from bgsweep.config import Data, Experiment, Shortcut
from bgsweep.data import Splits, leaks, open_splits
from bgsweep.data.datasets.folder import Folder
from bgsweep.data.datasets.pack import Pack
from bgsweep.data.datasets.pack_writer import make_pack
from bgsweep.data.datasets.wrappers import Subset
from bgsweep.data.splits import notes
from bgsweep.errors import UserError


def test_sample_opens_by_default() -> None:
    splits = open_splits(Data())
    assert [len(source) for source in (splits.train, splits.validation, splits.test)] == [960, 200, 200]
    assert splits.pools("test") is None


def test_trials_of_a_process_share_what_they_read() -> None:
    data = Data(resize=40, cache=True)
    splits = open_splits(data)
    assert open_splits(data.model_copy(update={"loader_workers": 3})) is splits
    assert np.shares_memory(splits.train[7].image, splits.train[7].image)
    assert splits.train[8].mask is not None  # decoded by the first who asks
    assert np.shares_memory(splits.train[8].mask, splits.train[8].mask)
    assert open_splits(Data(resize=41)) is not splits


def test_cached_pixels_cannot_be_changed_and_copies_are_small() -> None:
    source = open_splits(Data(resize=40, cache=True)).train
    with pytest.raises(ValueError, match="read-only"):
        source[0].image[0, 0] = 0
    assert len(pickle.dumps(source)) < 5_000_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[0].image, source[0].image)


def test_shortcut_recomposes_the_training_split_alone() -> None:
    plain, shortcut = open_splits(Data(resize=48)), open_splits(Data(resize=48, shortcut=Shortcut()))
    assert (plain.train[0].image != shortcut.train[0].image).any()
    for split in ("validation", "test"):
        np.testing.assert_array_equal(getattr(plain, split)[3].image, getattr(shortcut, split)[3].image)
    assert shortcut.pools("test") is shortcut.pools("test")


def read(tree: Path, **settings: object) -> Splits:
    return open_splits(Data.model_validate({"images": str(tree / "images"), "masks": str(tree / "masks"), **settings}))


def flat(tree: Path, name: str = "my own images") -> Path:
    """The tree's training images and masks as most people have theirs: class folders with spaces, and no splits."""
    for kind in ("images", "masks"):
        for folder in (tree / kind / "train").iterdir():
            shutil.copytree(folder, tree / name / kind / f"kind of {folder.name}")
    return tree / name


def test_hold_out_takes_its_share_of_each_class_and_nothing_twice(tree: Path) -> None:
    splits = read(tree, validation=None, test=None, holdout=0.34)
    assert np.bincount(splits.validation.labels).tolist() == [2, 2, 2]
    assert np.bincount(splits.test.labels).tolist() == [2, 2, 2]
    assert np.bincount(splits.train.labels).tolist() == [2, 2, 2]
    whole = Folder(tree / "images", "train")
    assert sorted([*splits.train.ids, *splits.validation.ids, *splits.test.ids]) == list(whole.ids)
    assert splits.validation.name == "images/train, held out for validation"
    assert splits.test.name == "images/train, held out for test"
    sources = (splits.train, splits.validation, splits.test)
    for source in sources:
        assert [source[index].id for index in range(len(source))] == list(source.ids)
    assert splits.train.digests().keys() == {"images", "masks"}
    assert len({source.digests()["images"] for source in sources}) == 3


def test_what_is_held_out_depends_on_the_seed_and_not_on_the_other_split(tree: Path) -> None:
    both = read(tree, validation=None, test=None)
    alone = read(tree, validation=None, test="test")
    assert list(both.validation.ids) == list(alone.validation.ids)
    other = read(tree, validation=None, test=None, holdout_seed=1)
    assert list(both.validation.ids) != list(other.validation.ids) and list(both.test.ids) != list(other.test.ids)
    with pytest.raises(ValidationError, match=r"set it below 0.5"):
        Data(validation=None, test=None, holdout=0.5)


def test_class_folders_without_splits_are_split_by_class(tree: Path) -> None:
    root = flat(tree)
    splits = read(root, holdout=0.2)
    assert [np.bincount(s.labels).tolist() for s in (splits.train, splits.validation, splits.test)] == [
        [4, 4, 4],
        [1, 1, 1],
        [1, 1, 1],
    ]
    assert splits.train.classes == ["kind of dress", "kind of hat", "kind of shoes"]
    (line,) = splits.said
    assert "3 class folders, no splits: 20% of each class is held out for validation and test each" in line


def test_a_pack_of_class_folders_is_split_alike(tree: Path) -> None:
    root = flat(tree)
    make_pack(str(root / "images"), str(root / "masks"), str(tree / "pack"))
    packed = open_splits(Data(pack=str(tree / "pack"), holdout=0.2))
    plain = read(root, holdout=0.2)
    assert list(packed.test.ids) == list(plain.test.ids) and packed.said
    assert packed.test.digests() == plain.test.digests()


def test_splits_of_the_default_names_that_do_not_exist_are_held_out(tree: Path) -> None:
    shutil.rmtree(tree / "images" / "test")
    splits = read(tree)
    assert splits.test.name.endswith("held out for test") and splits.validation.name.endswith("held out for validation")
    assert [line.partition(": ")[2] for line in splits.said] == [
        f"no folder {name!r}: 10% of each class of train is held out for it" for name in ("validation", "test")
    ]
    (tree / "images" / "val").mkdir()  # somebody has a split for it, which must not be passed over
    with pytest.raises(
        UserError, match=r"has no split 'validation'; there are: train, val .name one by.*data.validation"
    ):
        read(tree, cache=True)


@pytest.mark.parametrize("folders", [("training", "testing"), ("images", "masks"), ("one",)])
def test_other_folders_are_not_taken_for_classes(tree: Path, folders: tuple[str, ...]) -> None:
    for name in folders:
        shutil.copytree(tree / "images" / "train" / "hat", tree / "odd" / name)
    with pytest.raises(UserError, match=r"has no split 'train'.*name one by data.train"):
        open_splits(Data(images=str(tree / "odd")))


def test_folders_of_folders_are_not_taken_for_classes(tree: Path) -> None:
    for name in ("north", "south"):
        shutil.copytree(tree / "images" / "train", tree / "odd" / name)
    with pytest.raises(UserError, match="has no split 'train'"):
        open_splits(Data(images=str(tree / "odd")))


@pytest.mark.parametrize(("key", "other"), [("test", "."), ("validation", "train/hat"), ("test", "./train")])
def test_splits_that_are_one_folder_are_refused(tree: Path, key: str, other: str) -> None:
    settings = {"validation": None, "test": None, key: other}
    with pytest.raises(UserError, match=f"data.{key}: {other!r} and data.train: 'train' share images.*null"):
        read(tree, **settings)


def test_train_that_holds_the_other_splits_is_refused(tree: Path) -> None:
    with pytest.raises(UserError, match=r"data.test: 'test' and data.train: '.' share images"):
        read(tree, train=".")
    with pytest.raises(ValidationError, match="is also the validation split, which the search optimises"):
        Experiment(data=Data(validation="test", test="test"))


def test_copies_of_evaluated_images_are_left_out_of_train(tree: Path) -> None:
    copied = sorted((tree / "images/test/hat").iterdir())[:2]
    for number, path in enumerate(copied):
        shutil.copy(path, tree / f"images/train/hat/{number}.jpg")
        shutil.copy(tree / "masks/test/hat" / f"{path.stem}.png", tree / f"masks/train/hat/{number}.png")
    splits = read(tree, validation=None)
    assert not {"hat/0.jpg", "hat/1.jpg"} & {*splits.train.ids, *splits.validation.ids}
    told = [line for line in splits.said if "left out, since images/test has them too" in line]
    assert told and sum(int(line.partition(": ")[2].split()[0]) for line in told) == 2


def test_a_split_that_is_a_copy_of_another_is_refused(tree: Path) -> None:
    for kind in ("images", "masks"):
        shutil.copytree(tree / kind / "test", tree / kind / "validation")
    with pytest.raises(UserError, match="images/validation: every image of it is in images/test too"):
        read(tree)


def test_of_large_sets_files_of_one_name_are_compared(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all sizes are asked for, and a name alone does not make two images the same."""
    monkeypatch.setattr(leaks, "DIGESTED_WHOLE", 3)
    one, other = sorted((tree / "images/test/hat").iterdir())[:2]
    shutil.copy(one, tree / "images/train/hat" / one.name)
    (tree / "images/train/hat" / other.name).write_bytes(
        (tree / "images/test/hat" / sorted(path.name for path in (tree / "images/test/hat").iterdir())[3]).read_bytes()
    )
    train, test = Folder(tree / "images", "train"), Folder(tree / "images", "test")
    assert [train.ids[index] for index in leaks.shared(train, test)] == [f"hat/{one.name}"]


def test_a_pack_and_the_folders_it_was_made_of_share_all(tree: Path) -> None:
    make_pack(str(tree / "images"), str(tree / "masks"), str(tree / "pack"))
    folder, pack = Folder(tree / "images", "test"), Pack(str(tree / "pack"), "test")
    assert len(leaks.shared(folder, pack)) == len(leaks.shared(pack, folder)) == len(folder)
    assert len(leaks.shared(pack, Pack(str(tree / "pack"), "."))) == len(pack)
    assert not len(leaks.shared(pack, Pack(str(tree / "pack"), "train")))
    parts = [Subset(folder, np.array(chosen), "part") for chosen in ([0, 2, 4], [4, 1, 2])]
    assert leaks.shared(*parts).tolist() == [1, 2]


@pytest.mark.parametrize("change", ["quality", "size", "brightness", "mirror"])
def test_near_duplicates_are_counted_and_told(tree: Path, change: str) -> None:
    source = sorted((tree / "images/test/shoes").iterdir())[1]
    image = cv2.imread(str(source))
    assert image is not None
    made = {
        "quality": image,
        "size": cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
        "brightness": cv2.convertScaleAbs(image, alpha=0.85, beta=20),
        "mirror": cv2.flip(image, 1),
    }[change]
    copy = tree / "images/train/shoes/copy.jpg"
    cv2.imwrite(str(copy), made, [cv2.IMWRITE_JPEG_QUALITY, 60])
    data = Data(images=str(tree / "images"), validation=None)
    (found,) = [line for line in notes(data) if "images/test" in line]
    assert found == f"images/test: 1 of 18 images look like one of train: shoes/{source.name} and shoes/copy.jpg"
    copy.unlink()
    assert not notes(data)
