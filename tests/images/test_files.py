"""Files that are gone, that may not be read, or that nobody meant as images."""

import os
from pathlib import Path

import pytest

from bgsweep.errors import UnreadableImage, UserError
from bgsweep.images.files import images_among, is_junk, read_file, walk


def names(root: Path) -> list[str]:
    return sorted(name for name, _ in walk(root))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.symlink_to("gone.jpg"), "a symbolic link to gone.jpg, which does not exist"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (Path.mkdir, "directory|regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_reason(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / "x.jpg"
    make(path)  # type: ignore[operator]
    with pytest.raises(UnreadableImage, match=rf"^\S+x\.jpg: cannot be read \(.*({reason}).*\); replace or remove it$"):
        read_file(path)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may read anything."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnreadableImage, match=r"x\.jpg: cannot be read \(Permission denied\); replace or remove it"):
        read_file(tmp_path / "x.jpg")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be listed \(Permission denied\)"):
        names(tmp_path)


def test_walk_gives_what_cannot_be_read_and_leaves_out_what_nobody_meant(tmp_path: Path) -> None:
    for name in (
        "a/1.jpg",
        "a/@eaDir/1.jpg",
        "__MACOSX/a/1.jpg",
        ".ipynb_checkpoints/1.jpg",
        "a/Thumbs.db",
        "a/.x.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a/2.jpg").symlink_to("gone.jpg")
    (tmp_path / "a/3.jpg").mkdir()
    (tmp_path / "a/empty").mkdir()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/self").symlink_to("self")
    (tmp_path / "c.png").symlink_to("a")  # is not followed: following millions of links takes minutes
    of_both = [f"{folder}/{name}" for folder in "ab" for name in ("1.jpg", "2.jpg", "3.jpg", "self")]
    assert names(tmp_path) == [*of_both, "c.png"]
    assert is_junk("@eaDir")
    assert not is_junk("dress")


def test_images_of_other_formats_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    found = images_among("p", ["b.JPG", "a.jfif", "c.avif", "x.HEIC", "y.cr2", "z.txt"])
    assert found == ["a.jfif", "b.JPG", "c.avif"]
    assert caplog.messages == [
        "p: 2 files are left out because bgsweep cannot read .cr2, .heic (first: x.HEIC); convert them to JPEG or PNG"
    ]
