"""The documentation as a site: it builds strictly, its links hold, nothing is fetched."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

from epigone.study.declare import Declaration
from epigone.study.file import parse

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
ROOT = Path(__file__).parents[2]
# What a browser loads by itself.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """The links, the anchors and the loaded files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADED and LOADED[tag] in found:
            self.loaded.append(found[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file.read_text()) for file in site.rglob("*.html")}


def keys(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every key of every model of the schema, with the model's name."""
    for name, model in {"": schema, **schema["$defs"]}.items():
        for key in model["properties"]:
            yield name, key


def test_every_link_leads_to_a_page_and_to_its_place(pages: Mapping[Path, Page]) -> None:
    assert len(pages) > 60
    for file, page in pages.items():
        if file.name == "404.html":  # its links are those of a server's root
            continue
        assert len(page.ids) == len(set(page.ids)), file
        for link in page.links:
            if re.match("https?:", link):
                continue
            path, anchor = urldefrag(unquote(link))
            target = (file.parent / path).resolve() if path else file
            assert target.is_file(), (file.name, link)
            if anchor and target.suffix == ".html":
                assert anchor in [*pages[target].ids, "__skip"], (file.name, link)


def test_the_keys_of_a_study_have_a_page_of_their_own(pages: Mapping[Path, Page]) -> None:
    found = {file.name: page for file, page in pages.items()}
    assert "study-file.html" in found["index.html"].links
    # Which shows where its examples stand.
    assert "files/docs/_site/every-key.yaml.html" in found["study-file.html"].links


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: Mapping[Path, Page]) -> None:
    for file, page in pages.items():
        assert not [x for x in page.loaded if re.match("(https?:)?//", x)], file
    for file in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", file.read_text()), file


def test_the_references_have_every_key_and_every_verb(site: Path) -> None:
    schema = Declaration.model_json_schema(by_alias=True)
    study = (site / "study-file.html").read_text()
    for name, key in keys(schema):
        model = schema["$defs"][name] if name else schema
        anchor = re.sub(r"[^a-z0-9]+", "-", f"key-{name}-{key}".lower()).replace("--", "-")
        assert f'id="{anchor}"' in study, (name, key)
        said = model["properties"][key]
        refers = "$ref" in said or any("$ref" in part for part in said.get("anyOf", ()))
        assert said.get("description") or refers, (name, key)
    assert json.loads((site / "study.schema.json").read_text())["$defs"] == schema["$defs"]
    commands = (site / "commands.html").read_text()
    for verb in ("run", "plan", "corpus build", "teacher ask", "rate prolific create"):
        assert f"<code>epigone {verb}</code>" in commands
    for option in ("--processes", "--budget", "EPIGONE_PROCESSES"):
        assert option in commands


def test_what_shows_every_key_is_two_studies() -> None:
    text = (ROOT / "docs/_site/every-key.yaml").read_text()
    assert [parse(part).name for part in text.split("---\n")] == [
        "every-key",
        "every-key-of-adapters",
    ]


def test_the_first_ten_minutes(cli: Cli, tmp_path: Path) -> None:
    page = (ROOT / "docs/index.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    text = "\n".join(blocks).replace("\\\n", "")
    for name, lines in re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", text, re.M | re.S):
        (tmp_path / name).write_text(lines)
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("epigone ")]
    verbs = []
    for words in lines:
        verbs.append(words[1])
        if words[1] in ("calibrate", "run"):  # minutes; tests of their own go through them
            assert cli(words[1], "--help", cwd=tmp_path).returncode == 0
            continue
        done = cli(*words[1:], cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        if words[1] == "style":
            # What the page says of it: of two prompts with a list, one.
            assert "list\t1\t2\t0.50 [" in done.stdout
    assert verbs == ["style", "calibrate", "new", "plan", "status", "run"]


def test_what_the_readme_claims_has_its_evidence() -> None:
    text = (ROOT / "README.md").read_text()
    links = [urldefrag(link) for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    for path, anchor in links:
        file = ROOT / path
        assert file.exists(), path
        if path.startswith("tests/"):
            assert f"def {anchor}(" in file.read_text(), anchor
        elif anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads]
    assert len([p for p, _ in links if p.startswith(("tests/", "bench/"))]) > 15
