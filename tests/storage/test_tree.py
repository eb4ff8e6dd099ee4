from collections.abc import Callable
from pathlib import Path

import pytest

from bgsweep.errors import UnreadableImage, UserError
from bgsweep.storage.tree import LocalTree, RemoteTree, Tree, open_tree


@pytest.fixture(params=["folder", "uri"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    """The same folder, once as such and once as pyarrow reaches it."""
    place = str(tmp_path / "tree")
    opened = open_tree(place if request.param == "folder" else f"file://{place}")
    assert isinstance(opened, LocalTree if request.param == "folder" else RemoteTree)
    return opened


def test_what_is_written_is_listed_and_read(tree: Tree, tmp_path: Path) -> None:
    assert tree.files() == {}
    tree.write("b/c/ä.png", b"12345")
    tree.write("a.png", b"1")
    tree.write("a.png", b"22")
    (tmp_path / "tree/.hidden").mkdir()
    (tmp_path / "tree/.hidden/x.png").write_bytes(b"")
    found = tree.files()
    assert {name: stat.size for name, stat in found.items()} == {"a.png": 2, "b/c/ä.png": 5}
    assert list(found) == ["a.png", "b/c/ä.png"]
    assert found["a.png"].changed == pytest.approx((tmp_path / "tree/a.png").stat().st_mtime, abs=1e-3)
    assert tree.read("b/c/ä.png") == b"12345"


def test_what_is_not_there_cannot_be_read(tree: Tree) -> None:
    with pytest.raises(UnreadableImage, match=r"x\.png: "):
        tree.read("x.png")


def test_what_is_removed_is_gone(tree: Tree) -> None:
    tree.write("a/b.png", b"1")
    tree.write("a/c.png", b"2")
    tree.remove("a/b.png")
    assert list(tree.files()) == ["a/c.png"]
    with pytest.raises(UserError, match=r"b\.png: cannot be removed: .*; fix this and run the command again"):
        tree.remove("a/b.png")


def test_a_killed_writers_leftovers_are_swept(tree: Tree, tmp_path: Path) -> None:
    tree.write("a/b.png", b"1")
    left = tmp_path / "tree/a/.c.png.77.partial"
    left.write_bytes(b"half")
    assert list(tree.files()) == ["a/b.png"]
    tree.sweep()
    assert not left.exists()
    assert list(tree.files()) == ["a/b.png"]


def test_what_cannot_be_written_leaves_nothing(tree: Tree, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=64k")
    full = LocalTree(disk) if isinstance(tree, LocalTree) else open_tree(f"file://{disk}")
    full.write("small.png", b"1")
    with pytest.raises(UserError, match=r"large\.png: cannot be written: .*No space left.*; fix this and run"):
        full.write("large.png", b"1" * 100_000)
    assert list(full.files()) == ["small.png"]
    if isinstance(full, LocalTree):
        assert [path.name for path in disk.iterdir()] == ["small.png"]


def test_an_unknown_kind_of_address_is_named() -> None:
    with pytest.raises(UserError, match=r"carrier-pigeon://loft: .*s3://bucket/folder"):
        open_tree("carrier-pigeon://loft")
