"""A judge's opinion of files of answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epigone.errors import UnknownName, UserError
from epigone.files import write_json, write_jsonl
from epigone.models import references
from epigone.models.received import sound
from epigone.schema import Progress, Sample, Score, silent
from epigone.study.cost import tokens_of
from epigone.study.judge import COMPARING, PROTOCOLS, Protocol
from epigone.study.specs import MeansSpec, ModelSpec

if TYPE_CHECKING:
    from epigone.evaluation.judge.ask import Question, Verdict
    from epigone.teachers.means import Means

SUMMARY = "summary.json"
_KEY = MeansSpec().key_env
Answers = Mapping[str, Sample]


@dataclass(frozen=True, slots=True)
class Judging:
    """What a judge is asked of files of answers, ready to be asked.

    `answers` are by model, the teacher's first; `pairs` are the models that are compared. `judge`
    is None where references tell all.
    """

    judge: ModelSpec | None
    protocols: tuple[Protocol, ...]
    rubrics: Mapping[str, str]
    answers: Mapping[str, Answers]
    pairs: tuple[tuple[str, str], ...]
    references: Mapping[str, Sequence[str]]
    questions: tuple[Question, ...]
    max_tokens: int
    tries: int

    @property
    def teacher(self) -> str:
        """The model that the others are compared with."""
        return next(iter(self.answers))

    @property
    def name(self) -> str:
        """What the judge is called, empty without one."""
        return self.judge.name if self.judge else ""


def read_judging(
    teacher: str | Path,
    models: Sequence[str | Path],
    judge: str = "",
    *,
    protocols: Sequence[str] = ("pairwise",),
    rubric: str | Path | None = None,
    references_file: str | Path | None = None,
    name: str = "",
    n: int | None = None,
    all_pairs: bool = False,
    max_tokens: int = 512,
    tries: int = 3,
    key_env: str = _KEY,
    concurrency: int = 8,
) -> Judging:
    """Read everything that a judge is to be asked; nothing is asked yet.

    `judge` is an endpoint as endpoint:https://host/v1#model, and `name` what it is called; none is
    needed where references tell all. Raises UserError for what cannot be asked.
    """
    from epigone.evaluation.judge.answers import on_the_same_items, read_answers, read_references
    from epigone.evaluation.judge.rubrics import rubrics
    from epigone.evaluation.outputs import names_of

    chosen = _protocols(protocols)
    if references_file is not None and "correct" not in chosen:
        raise UserError("only correct takes references", value=str(references_file))
    paths = [Path(teacher), *map(Path, models)]
    names = names_of(paths)
    read = [read_answers(p, who) for p, who in zip(paths, names, strict=True)]
    first = dict(list(read[0].items())[:n])
    answers = dict(zip(names, on_the_same_items(first, read), strict=True))
    right = {} if references_file is None else read_references(Path(references_file))
    if references_file is not None and not set(right) & set(first):
        raise UserError("no reference is of an item of the teacher's answers",
                        value=str(references_file))  # fmt: skip
    ahead = combinations(names, 2) if all_pairs else ((names[0], m) for m in names[1:])
    pairs = tuple((b, a) for a, b in ahead)
    questions = tuple(_questions(chosen, answers, pairs, right))
    if questions and not judge:
        raise UserError(
            "a judge is needed", value=f"{len(questions)} questions",
            fix="--judge endpoint:URL#MODEL; none is for correct, where every item has references",
        )  # fmt: skip
    return Judging(
        judge=_model(judge, name, key_env, concurrency) if judge else None,
        protocols=chosen,
        rubrics=rubrics(None if rubric is None else Path(rubric), chosen),
        answers=answers,
        pairs=pairs,
        references=right,
        questions=questions,
        max_tokens=max_tokens,
        tries=tries,
    )


def _questions(
    protocols: Sequence[Protocol],
    answers: Mapping[str, Answers],
    pairs: Sequence[tuple[str, str]],
    right: Mapping[str, Sequence[str]],
) -> Iterator[Question]:
    from epigone.evaluation.judge.protocols import comparisons, singles

    for protocol in protocols:
        if protocol in COMPARING:
            for a, b in pairs:
                yield from comparisons(protocol, answers[a], answers[b], None)
        else:
            for own in answers.values():
                yield from singles(protocol, own, None, right)


def judge_cost(
    asked: Judging, means: Means | None = None, out: str | Path | None = None
) -> dict[str, Any]:
    """Requests, tokens and US dollars that a judging takes; None dollars where no price is known.

    What the ledger holds is `answered` and not counted; `spent` is what was paid for `out` before.
    Raises UserError for a budget without a price.
    """
    from epigone.evaluation.judge.ask import same_text
    from epigone.evaluation.judge.estimate import expected
    from epigone.teachers.means import Means, endpoint_of, price_of, purpose_of
    from epigone.teachers.purse import spent_for

    means = means or Means()
    if asked.judge is None:
        told = expected((), {}, 0, 0, "", tokens_of)
        return {**asdict(told), "usd": 0.0, "most_usd": 0.0, "price": "nobody is asked",
                "answered": 0, "spent": 0.0}  # fmt: skip
    left = _open_questions(asked, asked.judge, means)
    model = asked.judge.ref.partition("#")[2]
    told = expected(left, asked.rubrics, asked.max_tokens, asked.tries, model, tokens_of)
    price, known = price_of(endpoint_of(asked.judge.ref), means)
    free = known == "not known"
    return {
        **asdict(told),
        "usd": None if free else float(price.cost(told.prompt_tokens, told.tokens)),
        "most_usd": None if free else float(price.cost(told.most_prompt_tokens, told.most_tokens)),
        "price": known,
        "answered": sum(same_text(q) is None for q in asked.questions) - len(left),
        "spent": float(spent_for(means.ledgers, purpose_of(Path(out)))) if out else 0.0,
    }


def _open_questions(asked: Judging, judge: ModelSpec, means: Means) -> list[Question]:
    from epigone.evaluation.judge.ask import same_text
    from epigone.evaluation.judge.estimate import open_questions
    from epigone.models.endpoint import CHAT, Reply, reply_of
    from epigone.teachers.ledger import Ledger, key_of, ledger_file
    from epigone.teachers.means import endpoint_of

    path = ledger_file(means.ledgers, endpoint_of(judge.ref))
    if not path.exists():
        return [q for q in asked.questions if same_text(q) is None]
    ledger = Ledger(path, look=True)

    def known(body: Mapping[str, Any]) -> Reply | None:
        row = ledger.get(key_of(CHAT, body, 0))
        return None if row is None else reply_of(row["response"])

    try:
        return open_questions(asked.questions, asked.rubrics, asked.max_tokens, asked.tries,
                              judge.ref.partition("#")[2], known)  # fmt: skip
    finally:
        ledger.close()


def judge(
    asked: Judging,
    out: str | Path,
    means: Means | None = None,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Ask a judge, and write verdicts, ratings, scores and a summary into `out`.

    What the ledger holds already is not asked again. Returns the summary, where `unread` counts the
    questions if no reply to any of them could be read. Raises UserError, among
    them EndpointError where the endpoint is down or refuses everything, and BudgetReached.
    """
    from epigone.api.verdicts import summary
    from epigone.evaluation.judge.protocols import missing, scores, unread
    from epigone.evaluation.judge.rubrics import fingerprint
    from epigone.evaluation.judge.stage import SCORES, VERDICTS, ask, write
    from epigone.teachers.keeper import keeping
    from epigone.teachers.means import Means, purpose_of

    folder = Path(out)
    if folder.exists() and any(folder.iterdir()) and not (folder / VERDICTS).exists():
        raise UserError("the folder holds something else", value=str(folder), fix="name a new one")
    verdicts: list[Verdict] = []
    cost = may = Decimal(0)
    if asked.judge is not None:
        means = replace(means or Means(), purpose=purpose_of(folder), batch=False)
        waits = partial(progress, 0, 1, "waiting for another process that asks")
        with keeping(asked.judge, waits, means) as ledger:
            spent = ledger.spent
            verdicts = ask(
                asked.judge, asked.rubrics, asked.max_tokens, asked.tries, asked.questions, progress
            )
            cost, may = ledger.spent - spent, ledger.open
    who = asked.name
    found: list[Score] = []
    for model, own in asked.answers.items():
        against = "" if model == asked.teacher else asked.teacher
        found += scores(verdicts, who, model, against, own, None, asked.references)
    told = summary(asked, verdicts, found, seed)
    told = {
        "judge": who,
        "endpoint": asked.judge.ref.partition(":")[2] if asked.judge else "",
        "rubric": fingerprint(asked.rubrics),
        "teacher": asked.teacher,
        "questions": len(verdicts),
        "tries": sum(v.tries for v in verdicts),
        "missing": missing(verdicts),
        "unread": unread(verdicts),
        "references": len(set(asked.references) & set(asked.answers[asked.teacher])),
        **told,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, verdicts, who)
    write_jsonl(folder / SCORES, (s.to_json() for s in found))
    write_json(folder / SUMMARY, told)
    return {**told, "cost": str(cost), "may_cost_more": str(may)}


def _protocols(names: Sequence[str]) -> tuple[Protocol, ...]:
    for name in names:
        if name not in PROTOCOLS:
            raise UnknownName("protocol", name, PROTOCOLS)
    found = tuple(p for p in PROTOCOLS if p in names)
    if not found:
        raise UserError("nothing is asked", fix=f"a protocol: {', '.join(PROTOCOLS)}")
    return found


def _model(ref: str, name: str, key_env: str, concurrency: int) -> ModelSpec:
    where = references.parse(ref)
    if where.kind != "endpoint":
        raise UserError(
            "a judge is an endpoint", value=ref,
            fix="endpoint:https://host/v1#model; 'epigone teacher serve' makes a local one",
        )  # fmt: skip
    means = MeansSpec(key_env=key_env, concurrency=concurrency)
    own = sound(name) or where.value.partition("#")[2]
    return ModelSpec(kind="judge", name=own, ref=str(where), fingerprint=str(where), means=means)
