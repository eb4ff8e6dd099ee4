"""MkDocs hooks: pages made from the code and from files outside of docs/, and links that work on the site too."""

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # MkDocs loads this file by its path

from scripts import site_reference  # noqa: E402

OUTSIDE = {
    "README.md": "index.md",  # whose links to it are to the site's first page
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/RESULTS.md": "benchmarks/results.md",
    **{f"examples/{path.name}": f"examples/{path.stem}.md" for path in sorted((ROOT / "examples").glob("*.py"))},
}
"""Files of the repository outside of docs/ that are pages, and their places on the site."""


def generated() -> dict[str, str]:
    """The pages that are not files of docs/: Markdown by path on the site, links as they are in the repository."""
    found = site_reference.pages()
    for file, page in OUTSIDE.items():
        if page != "index.md":
            text = (ROOT / file).read_text(encoding="utf-8")
            found[page] = notebook(text, file) if file.endswith(".py") else text
    return found


def notebook(script: str, name: str) -> str:
    """A script in the percent format as Markdown."""
    found = []
    for cell in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            found.append(re.sub(r"^# ?", "", body.strip("\n"), flags=re.MULTILINE))
        elif body.strip():
            found.append(f"```python\n{body.strip()}\n```")
    title, _, rest = "\n\n".join(found).partition("\n")
    return f"{title}\n\nThe script `{name}`, which also opens as a notebook.\n{rest}\n"


def relinked(text: str, page: str) -> str:
    """A page's Markdown with links that work on the site: those to files that are no pages become their text.

    Args:
        page: its path on the site.
    """
    sources = {site: file for file, site in OUTSIDE.items() if site != "index.md"}
    source = sources.get(page, f"docs/{page}")

    def link(found: re.Match[str]) -> str:
        shown, target, anchor = found.groups()
        if re.match(r"[a-z]+:", target) or not target:
            return found[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        site = OUTSIDE.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
        if site is None:  # a file of the code: no page of the site
            return shown if shown.startswith("`") else f"{shown} (`{file}`)" if shown != file else f"`{file}`"
        return f"[{shown}]({posixpath.relpath(site, posixpath.dirname(page) or '.')}{anchor or ''})"

    parts = re.split(r"(^```.*?^```|^ {4}[^\n]*$)", text, flags=re.MULTILINE | re.DOTALL)  # code and the rest in turns
    parts[::2] = [re.sub(r"(?<!!)\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]*)?\)", link, part) for part in parts[::2]]
    return "".join(parts)


def indented(text: str) -> str:
    """Blocks inside numbered lists by four spaces, as Python-Markdown wants them; GitHub takes three."""
    lines, inside = [], False
    for line in text.splitlines():
        if re.match(r"\d+\. ", line):
            inside = True
        elif line and not line.startswith("   "):
            inside = False
        lines.append(f" {line}" if inside and line.startswith("   ") else line)
    return "\n".join(lines) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for page, text in generated().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Change each page for the site."""
    source = page.file.src_uri
    return indented(markdown if source.startswith("reference/") else relinked(markdown, source))
