"""The Python interface: a study, and each stage as a function."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from epigone.corpus.compressed import require
from epigone.errors import CorpusError, MissingExtra, UnknownName, UserError
from epigone.files import cache_root, write_json, write_jsonl, write_text
from epigone.models import references
from epigone.runs import lease
from epigone.runs.execute import Result, Watcher, execute
from epigone.runs.perform import perform, task_alone
from epigone.runs.plan import Planned, plan
from epigone.runs.resolve import UNRESOLVED, World, locked_fingerprints
from epigone.runs.store import Store
from epigone.schema import Progress, Record, Sample, Score, silent
from epigone.study import train_file
from epigone.study.declare import STYLE_METRICS, Corpus, Declaration
from epigone.study.file import located, read
from epigone.study.recipes import Recipe
from epigone.study.resolved import corpus_spec, one_recipe
from epigone.study.specs import (
    CorpusSpec,
    DataSpec,
    FeedbackSpec,
    ItemsSpec,
    Kind,
    ModelSpec,
    RecipeSpec,
    TrainSpec,
)
from epigone.study.steps import STAGES, Expansion, expand
from epigone.study.terms import Terms, Use, refuse, terms_in, terms_named
from epigone.study.values import Mistake, told

if TYPE_CHECKING:
    from epigone.findings import Findings


@dataclass(frozen=True, slots=True)
class Study:
    """A study: its declaration, and the folder of its steps."""

    declaration: Declaration
    file: Path
    root: Path

    @classmethod
    def load(cls, path: str | Path, *, runs: str | Path = "runs") -> Study:
        """Read a study file, or the study.yaml of a folder; steps go to `runs`/<study>.

        Raises StudyFileError with the line and column of the first mistake.
        """
        file = Path(path)
        if file.is_dir() and (file / "study.yaml").is_file():
            file = file / "study.yaml"
        declaration = read(file)
        return cls(declaration, file, Path(runs).resolve() / declaration.name)

    @property
    def store(self) -> Store:
        """The study's steps on disk."""
        return Store(self.root)

    def expansion(self, *, online: bool = False) -> Expansion:
        """Cells and steps; `online` may ask a hub for revisions that the study does not name."""
        return self._expand(online)[0]

    def plan(self) -> list[Planned]:
        """State, reason and expected time of every step; asks no network and changes nothing."""
        return plan(self.expansion(), self.store)

    def terms(self) -> dict[str, list[Terms]]:
        """The terms under which all data stands that students learn from.

        A corpus has its own name here: its sources and, once built, its rows. The others are
        "replay text" and "feedback NAME".
        """
        found: dict[str, dict[str, Terms]] = {}
        for step in self.expansion().steps:
            if isinstance(step.spec, CorpusSpec):
                record = self.store.record(step)
                rows = terms_named(record.facts.get("by_terms", ())) if record else []
                found[step.axes[0]] = {t.name: t for t in (*terms_in(step.spec), *rows)}
            elif isinstance(step.spec, TrainSpec | FeedbackSpec) and (own := terms_in(step.spec)):
                name = "replay text" if step.stage == "train" else f"feedback {step.feedback}"
                found.setdefault(name, {}).update({t.name: t for t in own})
        return {name: list(terms.values()) for name, terms in found.items()}

    def check_terms(self, use: Use) -> None:
        """Raise CorpusError where the terms of the data forbid a use of the students."""
        for name, found in self.terms().items():
            refuse(f"corpus {name!r}" if name in self.declaration.corpora else name, found, use)

    def run(
        self,
        watcher: Watcher | None = None,
        *,
        only: str | None = None,
        use: Use = "research",
    ) -> Result:
        """Run every step that is not done yet; the same call again continues.

        Raises UserError, among them HeldElsewhere where another process runs the study, and
        CorpusError where a corpus's terms forbid the use of its students.
        """
        if only is not None and only not in STAGES:
            raise UnknownName("stage", only, STAGES)
        expansion, world = self._expand(True)
        self.check_terms(use)
        _check_sources(self.declaration, self.file.parent)
        with lease.hold(self.root):
            write_text(self.root / "study.yaml", self.file.read_text(encoding="utf-8"))
            write_json(self.root / "study.lock.json", _lock(self.declaration, expansion, world))
            return execute(expansion, self.store, watcher or _Quiet(), only=only, use=use)

    def findings(self) -> Findings:
        """Gaps, intervals and verdict of the scores that are there."""
        from epigone.report.assemble import findings_of

        return findings_of(self.declaration, self.expansion(), self.store)

    def report(self) -> Path:
        """Build report/index.html and its tables from what is done; the page's path is returned."""
        from epigone.report import build
        from epigone.report.assemble import view_of

        view = view_of(self.declaration, self.expansion(), self.store)
        return build(view, self.root / "report")

    def _expand(self, online: bool) -> tuple[Expansion, World]:
        world = World(online=online, locked=locked_fingerprints(self.root), folder=self.file.parent)
        try:
            return expand(self.declaration, world), world
        except Mistake as mistake:
            raise located(mistake, self.file) from None


class _Quiet:
    def started(self, *_: object) -> None: ...
    def progress(self, *_: object) -> None: ...
    def finished(self, *_: object) -> None: ...
    def failed(self, *_: object) -> None: ...
    def blocked(self, *_: object) -> None: ...


def build_corpus(
    files: Sequence[str | Path | Mapping[str, Any]],
    out: str | Path,
    *,
    kind: Kind = "broad",
    teacher: str = "unknown",
    licence: str = "",
    terms: str = "",
    held_out: int = 128,
    seed: int = 0,
    use: Use = "research",
    decontaminate: Sequence[str] = (),
    progress: Progress = silent,
    **settings: Any,
) -> Record:
    """Clean files of teacher text into a corpus folder; the stage behind `epigone corpus build`.

    A file is a reference, or a mapping with the keys of a study file's source. `settings` are
    those of a study file's corpus: languages, rules, mix, min_chars, max_chars, max_tokens.
    `decontaminate` names benchmarks whose items must not be in the corpus. Raises UserError,
    among them CorpusError where the terms forbid the use.
    """
    sources = [dict(f) if isinstance(f, Mapping) else str(f) for f in files]
    try:
        corpus = Corpus.model_validate(
            {"kind": kind, "from": sources, "held_out": held_out, **settings}
        )
        spec = corpus_spec(
            corpus, World(online=True), teacher=teacher, terms=terms, licence=licence, seed=seed
        )
    except ValidationError as error:
        raise told(error) from None
    except Mistake as mistake:
        raise mistake.error from None
    refuse("the corpus", terms_in(spec), use)
    inputs = {f"items_{task}": _items(task, progress) for task in decontaminate}
    # Rows may name teachers of their own.
    return perform(
        task_alone("corpus", spec, inputs, Path(out)),
        progress,
        lambda facts: refuse("rows of the corpus", terms_named(facts.get("by_terms", ())), use),
    )


def _items(task: str, progress: Progress) -> Path:
    version = World(online=False).task_version(task)
    folder = cache_root() / "items" / f"{task}-{version}"
    perform(task_alone("items", ItemsSpec(task=task, task_version=version), {}, folder), progress)
    return folder


def corpus_stats(
    folder: str | Path,
    *,
    tokenizer: str = "",
    diversity: int = 0,
    exact: bool = False,
    progress: Progress = silent,
) -> tuple[dict[str, Any], Path]:
    """Numbers of a corpus folder, and the page that shows them, `folder`/stats.html.

    `tokenizer` is a model whose tokens are counted by role; `diversity` is how many first prompts
    are compared with one another, all of them with all if `exact`.
    """
    from epigone.corpus import diversity as alike
    from epigone.corpus import stats
    from epigone.corpus.statistics import first_prompts, told
    from epigone.report import corpus_page

    path = corpus_folder(folder)
    counter = references.locate(tokenizer, progress) / "tokenizer.json" if tokenizer else None
    found = stats(path, counter, progress)
    if diversity:
        queries = alike.sample(first_prompts(path), diversity)
        if len(queries) < 2:
            raise CorpusError("too few prompts to compare", value=len(queries))
        measured = alike.diversity(
            queries, exact=exact, progress=lambda share: progress(share, 1.0, "comparing prompts")
        )
        found["diversity"] = told(measured, queries, exact)
    return found, corpus_page.build(path.name, found, path.resolve() / "stats.html")


def train(
    base: str,
    corpus: str | Path,
    out: str | Path,
    *,
    amounts: Sequence[int],
    recipe: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Record:
    """Train a base on nested amounts of a corpus folder; `out`/amount-N is the student of N tokens.

    `recipe` has the keys of a study file's recipe; its paths start at the current folder.
    """
    folder = corpus_folder(corpus)
    settings, replay = _recipe(recipe or {})
    wanted = tuple(sorted(set(amounts)))
    if len(wanted) > 1 and not settings.trunk:
        raise UserError(
            f"with a {settings.schedule} schedule each amount is a run of its own",
            value=", ".join(map(str, wanted)),
            fix="train one amount, or take schedule wsd",
        )
    spec = TrainSpec(base=_model(base), amounts=wanted, recipe=settings, seed=seed, replay=replay)
    return perform(task_alone("train", spec, {"corpus": folder}, Path(out)), progress)


def generate(
    model: str,
    prompts: str | Path,
    out: str | Path,
    *,
    n: int | None = None,
    max_new_tokens: int = 256,
    progress: Progress = silent,
) -> list[Sample]:
    """Answer a file of prompts with one model, greedy, and write the samples as JSONL."""
    from epigone.evaluation.answers import answer_prompts, read_prompts

    asked = read_prompts(Path(prompts))[:n]
    name = _model(model)
    folder = references.locate(model, progress)
    samples = answer_prompts(
        folder, asked, model=name.name, max_new_tokens=max_new_tokens, progress=progress
    )
    write_jsonl(Path(out), (s.to_json() for s in samples))
    return samples


def benchmark(
    model: str,
    tasks: Sequence[str],
    out: str | Path | None = None,
    *,
    limit: int | None = None,
    progress: Progress = silent,
) -> list[Score]:
    """Scores of one model on benchmarks, raw few-shot format; per-item samples go to `out`."""
    from epigone.evaluation.benchmarks import benchmark as measure
    from epigone.evaluation.catalogue import known_tasks

    for task in tasks:
        if task not in known_tasks():
            raise UnknownName("benchmark", task, known_tasks())
    named = _model(model)
    folder = references.locate(model, progress)
    scores, samples = measure(folder, tasks, model=named.name, limit=limit, progress=progress)
    if out is not None:
        write_jsonl(Path(out) / "samples.jsonl", samples)
        write_jsonl(Path(out) / "scores.jsonl", (s.to_json() for s in scores))
    return scores


def style(
    teacher: str | Path,
    models: Sequence[str | Path],
    *,
    metrics: Sequence[str] = STYLE_METRICS,
) -> list[Score]:
    """Style metrics of files of samples against the teacher's file of samples."""
    from epigone.evaluation.style import style as measure

    return measure(Path(teacher), [Path(m) for m in models], metrics=tuple(metrics))


def corpus_folder(path: str | Path) -> Path:
    """A corpus folder by path; raises CorpusError for anything else."""
    folder = Path(path)
    if not (folder / train_file.NAME).is_file():
        raise CorpusError(
            "not a corpus folder", value=str(path), fix="'epigone corpus build' makes one"
        )
    return folder


def _recipe(settings: Mapping[str, Any]) -> tuple[RecipeSpec, tuple[DataSpec, ...]]:
    try:
        return one_recipe(Recipe.model_validate(dict(settings)), World(online=True))
    except ValidationError as error:
        raise told(error) from None
    except Mistake as mistake:
        raise mistake.error from None


def _model(ref: str) -> ModelSpec:
    world = World(online=True)
    return ModelSpec(
        kind="base", name=world.model_name(ref), ref=ref, fingerprint=world.fingerprint(ref)
    )


def _check_sources(declaration: Declaration, folder: Path) -> None:
    # Feedback is the last training of all, too late to find out.
    if declaration.feedback and importlib.util.find_spec("trl") is None:
        raise MissingExtra("learning from feedback", "feedback")
    # A token has at least one byte, so a small local file refuses a large amount before any work.
    for name, corpus in declaration.corpora.items():
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


def _lock(declaration: Declaration, expansion: Expansion, world: World) -> dict[str, Any]:
    unresolved = [ref for ref, found in world.seen.items() if found.startswith(UNRESOLVED)]
    if unresolved:
        raise UserError("reference without a revision", value=unresolved[0])
    return {
        "study": declaration.name,
        "references": world.seen,
        "cells": [
            {
                "model": s.model,
                "base": s.base,
                **(asdict(s.cell) if s.cell else {}),
                "steps": [step.name for step in expansion.steps_of(s)],
            }
            for s in expansion.subjects
        ],
        "steps": [
            {"step": s.name, "hash": s.hash, "model": s.model, "identity": s.identity}
            for s in expansion.steps
        ],
    }
