"""What is refused before any work of a study is done."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from epigone.corpus.compressed import require
from epigone.errors import CorpusError, EndpointError, MissingExtra, UserError
from epigone.evaluation import code
from epigone.evaluation.needs import check_scorer
from epigone.runs.store import WEIGHTS, Damaged, Listing, Store, missing, remake, verify
from epigone.runs.verify import left_out
from epigone.study.declare import Declaration, Scorer
from epigone.study.specs import AskSpec, CorpusSpec, FeedbackSpec, TrainSpec
from epigone.study.steps import Expansion
from epigone.study.teacher import Endpoint
from epigone.study.terms import Terms, Use, refuse, terms_in, terms_named


def check_before(declaration: Declaration, folder: Path) -> None:
    """Raise UserError for what is not there: packages, a sandbox, sources large enough.

    Paths start at `folder`.
    """
    # Feedback is the last training of all, too late to find out.
    if declaration.feedback and importlib.util.find_spec("trl") is None:
        raise MissingExtra("learning from feedback", "feedback")
    if any(b.task in code.TASKS for b in declaration.evaluate.benchmarks):
        code.probe()
    if declaration.evaluate.toxicity:
        check_scorers(declaration.evaluate.toxicity.scorers, folder)
    if declaration.evaluate.judge:
        check_key(declaration.evaluate.judge.endpoint)
    # A token has at least one byte, so a small local file refuses a large amount before any work.
    for name, corpus in declaration.corpora.items():
        if corpus.synthesize is not None:
            continue
        paths = [folder / Path(source.ref).expanduser() for source in corpus.sources]
        for path in paths:
            require(path)
        if not all(p.is_file() and p.suffix in (".json", ".jsonl") for p in paths):
            continue
        size = sum(os.path.getsize(p) for p in paths)
        largest = max(declaration.amounts[name])
        if largest > size:
            raise CorpusError(
                f"amount larger than corpus {name!r}, whose files have {size:,} bytes",
                value=largest,
                fix="ask for less, or add sources",
            )


def check_gone(expansion: Expansion, store: Store, gone: Collection[str]) -> None:
    """Raise UserError where a step to do needs one of the paths that are not there any more.

    What only finished steps needed may be gone.
    """
    for step in expansion.steps if gone else ():
        needed = [ref for ref in _refs(step.spec.model_dump(mode="json")) if ref in gone]
        if not needed or store.folder(step).exists():
            continue
        raise UserError(
            "no such file or folder, and a step that is to do needs it", value=needed[0],
            fix=f"put it there for {step.name}",
        )  # fmt: skip


def check_left_out(expansion: Expansion, store: Store) -> None:
    """Raise UserError where a step to do needs what an archive of the study was made without."""
    gone = [name for name in left_out(store.root) if not (store.root / name).exists()]
    for step in expansion.steps if gone else ():
        if store.folder(step).exists():
            continue
        for needed in step.inputs.values():
            place = store.folder(needed)
            if any((store.root / name).is_relative_to(place) for name in gone):
                raise UserError(
                    f"{step.name} needs the weights of a student, which are not in the archive "
                    "that was imported", value=needed.name,
                    fix=f"import one that has them, or delete {place} to train again",
                )  # fmt: skip


def check_whole(expansion: Expansion, store: Store) -> None:
    """Raise UserError where a file of a finished step is gone or was cut; none is read.

    Weights may be gone: they are large, and copies of a study are without them.
    """
    listing = Listing(store)
    for step in expansion.steps:
        folder, record = store.folder(step), listing.record(step)
        for name in missing(folder, record) if record else ():
            if (folder / name).exists() or not name.endswith(WEIGHTS):
                raise UserError(remake(folder, name))


@contextmanager
def reading(expansion: Expansion, store: Store) -> Iterator[None]:
    """Whatever reads finished steps: where it cannot, UserError tells of the file to blame."""
    check_whole(expansion, store)
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):
        for step in expansion.steps:
            folder = store.folder(step)
            with suppress(Damaged, OSError):
                wrong = [n for n in verify(folder) if not n.endswith(WEIGHTS)]
                if wrong and folder.exists():
                    raise UserError(remake(folder, wrong[0])) from None
        raise


def _refs(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(ref := value.get("ref"), str) and ref:
            yield ref
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _refs(part)


def check_key(endpoint: Endpoint) -> None:
    """Raise EndpointError where a judge's key is missing, which is asked last of all.

    One on a network of one's own, by http, may need none.
    """
    if not os.environ.get(endpoint.key_env) and endpoint.url.startswith("https:"):
        raise EndpointError(
            "the judge needs a key", value=f"${endpoint.key_env}",
            fix="put it there; any text where its endpoint needs none",
        )  # fmt: skip


def check_scorers(scorers: Iterable[Scorer], folder: Path) -> None:
    """Raise UserError for a scorer whose package, key or label is missing."""
    for scorer in scorers:
        check_scorer(scorer.name, folder / Path(scorer.ref).expanduser(), scorer.label)


def terms_of_data(expansion: Expansion, store: Store) -> dict[str, list[Terms]]:
    """The terms under which all data of a study stands that students learn from.

    A corpus has its own name here: its sources and, once built, its rows. The others are
    "replay text" and "feedback NAME".
    """
    found: dict[str, dict[str, Terms]] = {}
    for step in expansion.steps:
        if isinstance(step.spec, AskSpec | CorpusSpec):
            record = store.record(step)
            rows = terms_named(record.facts.get("by_terms", ())) if record else []
            own = {t.name: t for t in (*terms_in(step.spec), *rows)}
            found.setdefault(step.axes[0], {}).update(own)
        elif isinstance(step.spec, TrainSpec | FeedbackSpec) and (its := terms_in(step.spec)):
            name = "replay text" if step.stage == "train" else f"feedback {step.feedback}"
            found.setdefault(name, {}).update({t.name: t for t in its})
    return {name: list(terms.values()) for name, terms in found.items()}


def check_use(terms: Mapping[str, Sequence[Terms]], corpora: Container[str], use: Use) -> None:
    """Raise CorpusError where the terms of a study's data forbid a use of the students."""
    for name, found in terms.items():
        refuse(f"corpus {name!r}" if name in corpora else name, found, use)
