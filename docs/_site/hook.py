"""Hooks of mkdocs: pages made of the code, files from outside of docs/, links among them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import commands_page, schema_text, study_page

ROOT = Path(__file__).parents[2]
# Pages of the site that are written elsewhere in the repository, or made.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "bench/RESULTS.md": "measurements.md",
}
# Files to which pages link where the site has a page of its own that tells the same and more.
INSTEAD = {"docs/_site/every-key.yaml": "study-file.md"}
MADE = {"study-file.md": study_page, "commands.md": commands_page, "study.schema.json": schema_text}
# A link in Markdown outside of code: the text's end, the target, its anchor.
LINK = re.compile(r"(\]\()([^)#\s]*)(#[^)\s]*)?(\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".jsonl": "json", ".json": "json"}


def on_config(config: MkDocsConfig) -> None:
    """Put every decision into the navigation."""
    found = sorted((ROOT / "docs/decisions").glob("*.md"))
    _fill(config.nav, [f"decisions/{path.name}" for path in found])


def _fill(nav: Any, decisions: list[str]) -> None:
    for entry in nav:
        for title, value in entry.items():
            if value == "decisions/":
                entry[title] = decisions
            elif isinstance(value, list) and all(isinstance(v, dict) for v in value):
                _fill(value, decisions)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is made, what lies elsewhere, and a page for each file that is linked to."""
    for uri, make in MADE.items():
        files.append(File.generated(config, uri, content=make()))
    for source, uri in ELSEWHERE.items():
        if source != "README.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, uri, content=text))
    linked = {
        target
        for file in files.documentation_pages()
        for target in _targets(_origin(file.src_uri), file.content_string)
        if not _page_of(target) and (ROOT / target).exists()
    }
    for target in sorted(linked):
        files.append(File.generated(config, _shown(target), content=_listing(target)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their pages."""
    origin, here = _origin(page.file.src_uri), posixpath.dirname(page.file.src_uri)

    def linked(found: re.Match[str]) -> str:
        target = _target(origin, found[2])
        if target is None or not (ROOT / target).exists() or found[2].endswith((".png", ".svg")):
            return found[0]
        uri = INSTEAD.get(target, page.file.src_uri)
        if uri == page.file.src_uri:
            uri = _page_of(target) or _shown(target)
        link = posixpath.relpath(uri, here or ".")
        return f"{found[1]}{link}{found[3] or ''}{found[4]}"

    return _outside_code(markdown, lambda text: LINK.sub(linked, text))


def _outside_code(markdown: str, change: Any) -> str:
    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def _origin(uri: str) -> str:
    """Where in the repository a page is written."""
    written = {page: source for source, page in ELSEWHERE.items() if page != "index.md"}
    return written.get(uri, f"docs/{uri}")


def _targets(origin: str, markdown: str) -> set[str]:
    found: set[str] = set()

    def look(text: str) -> str:
        found.update(t for m in LINK.finditer(text) if (t := _target(origin, m[2])))
        return text

    _outside_code(markdown, look)
    return found


def _target(origin: str, link: str) -> str | None:
    """The path in the repository that a relative link means."""
    if not link or re.match(r"[a-z]+:|/", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def _page_of(target: str) -> str:
    """The page of the site that a file of the repository is; empty for none."""
    if target in ELSEWHERE:
        return ELSEWHERE[target]
    inside = target.startswith("docs/") and not target.startswith("docs/_site/")
    return target.removeprefix("docs/") if inside else ""


def _shown(target: str) -> str:
    return f"files/{target}.md"


def _listing(target: str) -> str:
    """A page that shows a file, or the files of a folder."""
    path = ROOT / target
    inside = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    parts = [f"---\nsearch:\n  exclude: true\n---\n# {target}\n"]
    for file in inside:
        if path.is_dir():
            parts.append(f"## {file.name}\n")
        language = LANGUAGES.get(file.suffix, "text")
        text = file.read_text(encoding="utf-8").rstrip()
        parts.append(f"````{language}\n{text}\n````\n")
    return "\n".join(parts)
