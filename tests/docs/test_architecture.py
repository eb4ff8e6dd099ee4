"""docs/architecture.md against the repository: its tree, its drawing, and every file that it names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_rooms import CORE, OUTER

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "architecture.md", ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"]
ELSEWHERE = ("bgsweep_runs/", "bgsweep/methods/toy.py")  # a user's runs, and an example's file
WHOLE = ("bgsweep", "studies")  # of these every file has a line; of other folders only the folder


def tree(page: Path) -> dict[str, str]:
    """Paths in a page's annotated tree with their annotations; folders end in a slash."""
    (block,) = re.findall(r"```\n(bgsweep/\n.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    found, above = {}, [""]
    for line in block.splitlines():
        indent, name, words = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()  # type: ignore[union-attr]
        depth = len(indent) // 2
        above[depth + 1 :] = [above[depth] + name]
        found[above[depth] + name] = words
    return found


def files() -> set[str]:
    """Files of the package and the studies, without what says nothing by itself."""
    paths = (path for room in WHOLE for path in (ROOT / room).rglob("*") if path.is_file())
    here = {str(path.relative_to(ROOT)) for path in paths if "__pycache__" not in path.parts}
    return {path for path in here if not path.endswith("/__init__.py")} | {"bgsweep/__init__.py"}


def test_every_file_has_a_line_in_the_tree() -> None:
    missing = sorted(files() - tree(PAGES[0]).keys())
    assert not missing, f"docs/architecture.md: add a line for {', '.join(missing)}"


def test_the_trees_name_nothing_that_is_gone() -> None:
    for page in PAGES[:2]:
        gone = [path for path in tree(page) if not (ROOT / path).exists()]
        assert not gone, f"{page.name}: remove the lines of {', '.join(gone)}"


def test_every_file_in_the_tree_is_annotated() -> None:
    bare = [path for path, words in tree(PAGES[0]).items() if not words and not path.endswith("/")]
    assert not bare


def test_every_path_in_the_text_exists() -> None:
    for page in PAGES:
        named = re.findall(r"`([a-z_0-9/]+/(?:[a-z_0-9]+\.[a-z]+)?)`", page.read_text(encoding="utf-8"))
        gone = [path for path in named if not any((ROOT / base / path).exists() for base in ("", "bgsweep"))]
        gone = [path for path in gone if path not in ELSEWHERE]
        assert not gone, f"{page.name}: {gone}"


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_image_is_what_the_script_draws_and_has_every_room() -> None:
    script = ROOT / "scripts" / "draw_rooms.py"
    drawn = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8") == drawn
    assert set(re.findall(r'class="name">(\w+)<', drawn)) == {*CORE, *OUTER}
