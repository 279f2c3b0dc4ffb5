from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from epigone.report import corpus_page

STATS = {
    "train": {"conversations": 2, "turns": 4, "tokens": 9},
    "held_out": {"conversations": 1, "turns": 2, "tokens": 3},
    "lengths": {"teacher tokens": {"1": 1, "4": 1}, "exchanges": {"1": 2}},
    "openings": {"</script><script>alert(1)</script>": 2, "": 1},
    "languages": {"en": 2},
    "roles": {"user": {"turns": 2, "characters": 5}, "assistant": {"turns": 2, "characters": 7}},
    "sources": [
        {
            "source": "<img src=x onerror=alert(1)>.json",
            "format": "sharegpt",
            "container": "JSON lines",
            "read": 3,
            "turns": 6,
            "lost_bytes": 0,
            "lost_rows": 0,
            "invalid": 1,
        }
    ],
    "dropped": {"forks": 1},
    "changed": {"emails": 2},
    "dates": {"known": 0},
    "by_source": {"<b>bold</b>": 2},
    "by_teacher": {"chatgpt": 2},
    "by_terms": {"openai": 2},
    "diversity": {"queries": 2, "mean_highest_bleu": 8.1, "exact": True},
}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_hostile_names_are_text_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = corpus_page.build("<i>mine</i>", STATS, tmp_path / "stats.html")
    text = path.read_text()
    page = Page(text)
    assert page.open == []
    assert not {"img", "b", "i", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not any(name in ("src", "href") for _, attrs in page.tags for name in attrs)
    assert "alert(1)</script>" not in text
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "content" in a
                  and "default-src" in str(a["content"]))  # fmt: skip
    assert str(policy).startswith("default-src 'none'")
    assert "8.1%" in text


def test_equal_numbers_give_equal_bytes(tmp_path: Path) -> None:
    pages = [corpus_page.build("c", STATS, tmp_path / name).read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]
