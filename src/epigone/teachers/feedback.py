"""From files of students' answers to a folder of what a teacher says of them, to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from epigone.errors import CorpusError, EndpointError, UserError
from epigone.files import write_json, write_jsonl
from epigone.models.endpoint import KEY
from epigone.schema import Progress, silent
from epigone.teachers.answers import Settings, ask_each, day_of, kind_of
from epigone.teachers.ask import Asker
from epigone.teachers.drafts import Choice, between, names_of, once, read_drafts, unfit, within
from epigone.teachers.means import Means, ask_all, endpoint_of, purpose_of
from epigone.teachers.opinions import Opinion, Ranking, Revising, ask_rank, ask_revision
from epigone.teachers.wordings import wording

Some = TypeVar("Some", bound=Opinion)


@dataclass(frozen=True, slots=True)
class Asking:
    """Whom to ask, and how.

    `about` is what each row says of its teacher (teacher, licence, terms); the key is in the
    variable `key_env`.
    """

    endpoint: str
    settings: Settings = field(default_factory=Settings)
    means: Means = field(default_factory=Means)
    about: Mapping[str, str] | None = None
    key_env: str = KEY


def rank(
    answers: Sequence[str | Path],
    out: str | Path,
    asking: Asking,
    *,
    n: int | None = None,
    keep_cut: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Ask which of two answers is better, in both orders; where both agree, they make a pair.

    `answers` are two files with answers to the same prompts, or one whose rows have several; of
    what they give the first `n` are asked about, with `keep_cut` also where an answer was cut at
    its longest. Writes pairs.jsonl, rejected.jsonl and asked.json into `out` once all are judged.
    Raises UserError, among them EndpointError where the endpoint is down or gives no verdict, and
    BudgetReached.
    """
    skipped: Counter[str] = Counter()
    choices = _choices([Path(a) for a in answers], skipped)
    choices = once(
        choices, lambda c: (c.one.prompt, frozenset((c.one.text, c.other.text))), skipped
    )
    made = [Ranking(c.id, unfit(c.one, c.other, keep_cut=keep_cut), choice=c) for c in choices[:n]]
    told = _asked(asking, Path(out), made, ask_rank, "pairs", progress)
    rows = [_pair(ranking, asking) for ranking in made if not ranking.rejected]
    facts = {**_written(Path(out) / "pairs.jsonl", rows, made, skipped), **_orders(made), **told}
    return _account(Path(out), asking, answers, made, facts, ("rank",))


def revise(
    answers: str | Path,
    out: str | Path,
    asking: Asking,
    *,
    constitution: str | Path | None = None,
    n: int | None = None,
    keep_cut: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Ask for a critique of each answer by a constitution, and for a new answer by the critique.

    `constitution` is a text file of principles, instead of those that come with Epigone. Writes
    revisions.jsonl, rejected.jsonl and asked.json into `out`; otherwise like `rank`.
    """
    principles = read_constitution(constitution)
    skipped: Counter[str] = Counter()
    drafts = [
        (f"{row.id}-{i}" if len(row.drafts) > 1 else row.id, draft)
        for row in read_drafts(Path(answers), Path(answers).name, skipped)
        for i, draft in enumerate(row.drafts, 1)
    ]
    drafts = once(drafts, lambda named: (named[1].prompt, named[1].text), skipped)
    made = [Revising(name, unfit(d, keep_cut=keep_cut), draft=d) for name, d in drafts[:n]]
    work = partial(ask_revision, principles=principles)
    told = _asked(asking, Path(out), made, work, "answers", progress)
    rows = [_revision(revising, asking) for revising in made if not revising.rejected]
    facts = {**_written(Path(out) / "revisions.jsonl", rows, made, skipped), **told}
    facts["constitution"] = principles
    return _account(Path(out), asking, [answers], made, facts, ("critique", "revise"))


def read_constitution(path: str | Path | None = None) -> str:
    """The principles of a text file, or those that come with Epigone. Raises UserError."""
    if path is None:
        path = Path(str(files("epigone.teachers") / "constitution.md"))
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "the constitution cannot be read", value=str(path), fix=str(error)
        ) from None
    if not text or "\x00" in text:
        raise UserError("the constitution is no text", value=str(path), fix="one principle a line")
    return text


def _choices(paths: Sequence[Path], skipped: Counter[str]) -> list[Choice]:
    if len(paths) not in (1, 2):
        raise UserError("answers of one file or of two are ranked", value=len(paths))
    read = [read_drafts(p, name, skipped) for p, name in zip(paths, names_of(paths), strict=True)]
    if len(read) == 2:
        found = between(read[0], read[1], skipped)
        wrong, fix = "no prompt is answered in both files", "answers are matched by their prompts"
    else:
        found = within(read[0], skipped)
        wrong, fix = "no row has several answers", "give two files, or rows with answers: [..]"
    if not found:
        raise CorpusError(wrong, value=", ".join(map(str, paths)), fix=fix)
    return found


def _asked(
    asking: Asking,
    out: Path,
    made: Sequence[Some],
    ask: Callable[[Asker, Settings, Some], Awaitable[Some]],
    what: str,
    progress: Progress,
) -> dict[str, Any]:
    """Ask about those that nothing speaks against; the endpoint's counts and costs."""
    fit = [opinion for opinion in made if not opinion.rejected]
    if not fit:
        why = ", ".join(f"{n} x {reason}" for reason, n in _rejected(made).items())
        raise CorpusError(f"no {what} to ask about", value=why or "none")
    means = replace(asking.means, purpose=asking.means.purpose or purpose_of(out))

    async def work(asker: Asker) -> list[Some]:
        return await ask_each(
            asker, fit, partial(ask, asker, asking.settings), means.concurrency, progress, what
        )

    return ask_all(endpoint_of(asking.endpoint, asking.key_env), means, work, progress)[1]


def _rejected(made: Sequence[Opinion]) -> dict[str, int]:
    return dict(sorted(Counter(kind_of(o.rejected) for o in made if o.rejected).items()))


def _written(
    path: Path, rows: Sequence[Any], made: Sequence[Opinion], skipped: Counter[str]
) -> dict[str, Any]:
    """Write what is of use, and beside it what is not and why; the counts."""
    write_jsonl(
        path.with_name("rejected.jsonl"),
        ({"id": o.id, "reason": o.rejected, "text": o.told[:500]} for o in made if o.rejected),
    )
    return {
        "asked": len(made),
        "written": write_jsonl(path, rows),
        "rejected": _rejected(made),
        "skipped": dict(sorted((+skipped).items())),
    }


def _account(
    out: Path,
    asking: Asking,
    answers: Sequence[str | Path],
    made: Sequence[Opinion],
    facts: dict[str, Any],
    wordings: Sequence[str],
) -> dict[str, Any]:
    """Write asked.json. Raises EndpointError where nothing was said of any answer."""
    facts["wordings"] = {name: wording(name).version for name in wordings}
    write_json(
        out / "asked.json",
        {"files": [str(a) for a in answers], "settings": asdict(asking.settings), **facts},
    )
    if not any(opinion.said for opinion in made):
        raise EndpointError(
            f"none of {len(made):,} replies is of use",
            value=next(iter(sorted(facts["rejected"], key=facts["rejected"].get, reverse=True))),
            fix=f"what was said is in {out / 'rejected.jsonl'}",
        )
    return facts


def _orders(made: Sequence[Ranking]) -> dict[str, Any]:
    """How often each place won, and how often both orders had the same verdict."""
    won = Counter(place for ranking in made for place in ranking.places)
    both = [ranking.places for ranking in made if len(ranking.places) == 2]
    agree = sum({1: 2, 2: 1, 0: 0}[place] == swapped for place, swapped in both)
    return {
        "verdicts": {"first": won[1], "second": won[2], "neither": won[0]},
        "both_orders": len(both),
        "orders_agree": agree,
        "first_place_share": _share(won[1], won[1] + won[2]),
        "agreement": _share(agree, len(both)),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _pair(ranking: Ranking, asking: Asking) -> dict[str, Any]:
    better, worse = ranking.better_first
    return {
        "id": ranking.id,
        "prompt": [{"role": m.role, "content": m.content} for m in better.prompt],
        "chosen": [{"role": "assistant", "content": better.text}],
        "rejected": [{"role": "assistant", "content": worse.text}],
        "chosen_from": better.origin,
        "rejected_from": worse.origin,
        "verdicts": [answer.text for answer in ranking.said],
        **_source(ranking, asking),
    }


def _revision(revising: Revising, asking: Asking) -> dict[str, Any]:
    draft = revising.draft
    return {
        "id": revising.id,
        "prompt": [{"role": m.role, "content": m.content} for m in draft.prompt],
        "draft": draft.text,
        "critique": revising.said[0].text.strip(),
        "revision": revising.new,
        "draft_from": draft.origin,
        **_source(revising, asking),
    }


def _source(opinion: Opinion, asking: Asking) -> dict[str, str]:
    """What a row says of its teacher."""
    last = opinion.said[-1]
    model = endpoint_of(asking.endpoint, asking.key_env).model
    return {
        "teacher": model, **(asking.about or {}), "model": last.model, "date": day_of(last.created),
    }  # fmt: skip
