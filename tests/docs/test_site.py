"""The site's navigation, its links, and the reference pages that are made from the code; without MkDocs."""

import json
import re
from pathlib import Path

import pytest
import yaml

import bgsweep
from bgsweep.config.base import dotted
from bgsweep.config.experiment import Experiment
from bgsweep.config.methods import METHODS
from bgsweep.config.sweep import SweepConfig
from scripts import site_hooks, site_reference

ROOT = Path(__file__).parents[2]
DOCS = {path.relative_to(ROOT / "docs").as_posix(): path for path in (ROOT / "docs").rglob("*.md")}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """All pages of the site by their paths, as Markdown with the site's links."""
    texts = {page: path.read_text(encoding="utf-8") for page, path in DOCS.items()} | site_hooks.generated()
    return {
        page: text if page.startswith("reference/") else site_hooks.relinked(text, page) for page, text in texts.items()
    }


def named(entry: object) -> list[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in named(each)]  # type: ignore[attr-defined]


def test_the_navigation_names_every_page_once_and_nothing_else(pages: dict[str, str]) -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert [name for part in nav for name in part] == ["Home", "Tutorial", "How-to", "Explanation", "Reference"]
    assert sorted(named(nav)) == sorted(pages)
    assert len(named(nav[1])) == 5


def test_every_link_leads_to_a_page_or_an_image_of_the_site(pages: dict[str, str]) -> None:
    images = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*") if path.is_file()}
    wrong, found = [], 0
    for page, text in pages.items():
        prose = re.sub(r"^```.*?^```|^ {4}[^\n]*$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose):
            path = (Path("/", page).parent / target).resolve().relative_to("/").as_posix()
            found += 1
            wrong += [] if path in pages or path in images else [f"{page}: {target}"]
    assert found > 100 and not wrong


def test_links_of_the_repository_become_links_of_the_site() -> None:
    text = "[a](../CONTRIBUTING.md#x), [`b`](../bgsweep/api.py), [c](views.md), [d](https://x.org)\n    [e](views.md)\n"
    linked = "[a](contributing.md#x), `b`, [c](views.md), [d](https://x.org)\n    [e](views.md)\n"
    assert site_hooks.relinked(text, "packs.md") == linked
    assert site_hooks.relinked("[a](docs/views.md) [b](LICENSE)", "contributing.md") == "[a](views.md) b (`LICENSE`)"
    assert site_hooks.relinked("[r](../README.md)", "benchmarks/results.md") == "[r](../index.md)"


def test_a_script_becomes_a_page() -> None:
    script = "# %% [markdown]\n# # Title\n#\n# Words\n#\n#     command\n\n# %%\nimport x\n\n\n# %%\nx.y()  # comment\n"
    page = site_hooks.notebook(script, "examples/t.py")
    told, words, first, second = (
        page.partition("Words")[0],
        *page.split("\n\n")[2:3],
        *re.findall(r"```python\n.*?```", page, re.S),
    )
    assert told.startswith("# Title\n\nThe script `examples/t.py`") and words == "Words"
    assert "\n    command\n" in page and first == "```python\nimport x\n```" and "x.y()  # comment" in second


def test_blocks_in_numbered_lists_are_indented_for_pythons_markdown() -> None:
    text = "1. One:\n\n   ```python\n   x = 1\n   ```\n\nprose\n   y\n"
    assert site_hooks.indented(text) == "1. One:\n\n    ```python\n    x = 1\n    ```\n\nprose\n   y\n"


def test_every_command_with_all_its_arguments_is_in_the_reference(pages: dict[str, str]) -> None:
    text = "\n".join(text for page, text in pages.items() if page.startswith("reference/commands-"))
    sections = {each.partition("\n")[0]: each for each in text.split("\n## ")[1:]}
    found = list(site_reference.commands())
    assert len(found) > 25 and {parser.prog for parser in found} == sections.keys()
    for parser in found:
        for action in parser._actions[1:]:
            name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
            assert f"`{name}" in sections[parser.prog] or f"[{name}" in sections[parser.prog], (parser.prog, name)


def test_every_key_with_its_default_is_in_the_reference(pages: dict[str, str]) -> None:
    text = "\n".join(text for page, text in pages.items() if page.startswith("reference/keys-") and "suite" not in page)
    rows = dict(re.findall(r"^\| `(\S+)` \| .*? \| `(.*?)` \|", text, re.MULTILINE))
    defaults = Experiment().model_dump(mode="json", exclude={"method"})
    keys = {key: value for key, value in dotted(defaults).items() if not isinstance(value, dict)}
    assert len(keys) > 90
    for key, value in keys.items():
        if key in rows:
            assert json.loads(rows[key]) == value, key
        else:  # a section that is left out by default: its keys are there
            assert value is None and f"\n| `{key}." in text, key
    for name, section in METHODS.items():
        part = text.partition(f"## method.name: {name}\n")[2].partition("\n## ")[0]
        assert all(f"| `method.{key}` |" in part for key in section.model_fields if key != "name")
    others = SweepConfig(experiment=Experiment()).model_dump(
        mode="json", by_alias=True, exclude={"experiment", "space"}
    )
    # As above: of a section that is left out by default, its keys are there.
    assert all(
        f"| `{key}` |" in text or (one is None and f"\n| `{key}." in text) for key, one in dotted(others).items()
    )


def test_the_python_pages_have_every_public_name_and_every_check(pages: dict[str, str]) -> None:
    for name in site_reference.public_names():
        assert f" heading: bg.{name}\n" in pages["reference/python.md"] and hasattr(bgsweep, name)
    assert site_reference.checks() == re.findall(
        r"^::: bgsweep.testing.(\w+)$", pages["reference/testing.md"], re.MULTILINE
    )
    assert len(site_reference.checks()) >= 6
    for path in site_reference.INTERFACES:
        module, _, name = path.rpartition(".")
        assert hasattr(__import__(module, fromlist=[name]), name), path
