"""A study: its declaration, its steps, and what comes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from epigone.errors import UnknownName
from epigone.files import write_json, write_text
from epigone.runs.at_url import mirrored, opened
from epigone.runs.checks import check_before
from epigone.runs.execute import PATIENCE_MINUTES, Asked, Result, Watcher, execute
from epigone.runs.executors import Executors, environment_of, executor_of
from epigone.runs.lease import Runner
from epigone.runs.logged import logged
from epigone.runs.objects import is_url
from epigone.runs.plan import Planned, plan
from epigone.runs.remote import Remote
from epigone.runs.resolve import World, lock_document, locked_fingerprints
from epigone.runs.store import Store
from epigone.runs.teacher_cost import check_budget
from epigone.study.declare import Declaration
from epigone.study.file import located, read
from epigone.study.identity import digest
from epigone.study.publications import publications
from epigone.study.specs import (
    AskSpec,
    CorpusSpec,
    FeedbackSpec,
    TrainSpec,
)
from epigone.study.step import STAGES
from epigone.study.steps import Expansion, expand
from epigone.study.terms import Terms, Use, refuse, terms_in, terms_named
from epigone.study.values import Mistake

if TYPE_CHECKING:
    from epigone.findings import Findings
    from epigone.report import ReportView


Format = Literal["html", "md", "pdf"]


@dataclass(frozen=True, slots=True)
class Study:
    """A study: its declaration, and the folder of its steps."""

    declaration: Declaration
    file: Path
    root: Path
    remote: Remote | None = None

    @classmethod
    def load(cls, path: str | Path, *, runs: str | Path = "runs") -> Study:
        """Read a study file, or the study.yaml of a folder; steps go to `runs`/<study>.

        `runs` may be a URL that fsspec knows; what is done there is then known here. Raises
        StudyFileError with the line and column of the first mistake.
        """
        file = Path(path)
        if file.is_dir() and (file / "study.yaml").is_file():
            file = file / "study.yaml"
        declaration = read(file)
        if is_url(runs):
            remote = mirrored(str(runs), declaration.name)
            return cls(declaration, file, remote.root, remote)
        return cls(declaration, file, Path(runs).resolve() / declaration.name)

    @property
    def store(self) -> Store:
        """The study's steps on disk."""
        return Store(self.root, mirror=self.remote is not None)

    def fetch(self) -> None:
        """Have all small results here of steps that are done at a URL."""
        if self.remote is not None:
            self.remote.bring_small()

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
            if isinstance(step.spec, AskSpec | CorpusSpec):
                record = self.store.record(step)
                rows = terms_named(record.facts.get("by_terms", ())) if record else []
                own = {t.name: t for t in (*terms_in(step.spec), *rows)}
                found.setdefault(step.axes[0], {}).update(own)
            elif isinstance(step.spec, TrainSpec | FeedbackSpec) and (its := terms_in(step.spec)):
                name = "replay text" if step.stage == "train" else f"feedback {step.feedback}"
                found.setdefault(name, {}).update({t.name: t for t in its})
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
        budget: Decimal | None = None,
        on: Executors = "local",
        address: str = "",
        retry_failed: bool = False,
        keep_going: bool = False,
        patience_minutes: float = PATIENCE_MINUTES,
    ) -> Result:
        """Run every step that is not done yet; the same call again continues.

        `budget` is what the teacher's answers may cost in all runs of the study, in US dollars.
        Other processes may run the study at the same time, on this machine and on others: each step
        is done by one of them. `on` "ray" gives the steps to the Ray cluster at `address`.
        `retry_failed` tries again what failed by an error of its own, `keep_going` goes on after a
        user's mistake that only a step could find, and a step that tells nothing for
        `patience_minutes` is ended.

        Raises UserError, among them HeldElsewhere where another process runs another study in the
        folder, and CorpusError where a corpus's terms forbid the use of its students.
        """
        if only is not None and only not in STAGES:
            raise UnknownName("stage", only, STAGES)
        expansion, world = self._expand(True)
        self.check_terms(use)
        publications(self.declaration, expansion, self.file)
        check_before(self.declaration, self.file.parent)
        check_budget(expansion.steps, budget)
        lock = lock_document(self.declaration, expansion, world)
        asks = digest({"steps": [step.name for step in expansion.steps]})
        with opened(self.remote) as at_url, Runner(self.root, asks) as runner:
            write_text(self.root / "study.yaml", self.file.read_text(encoding="utf-8"))
            write_json(self.root / "study.lock.json", lock)
            environment = environment_of(self.store, budget)
            if self.remote is not None:
                self.remote.push_files("study.yaml", "study.lock.json")
            executor = executor_of(on, address, environment, self.store, at_url)
            told = logged(watcher or _Quiet())
            asked = Asked(only, use, retry_failed, keep_going, patience_minutes)
            return execute(expansion, self.store, told, executor, runner, asked)

    def findings(self) -> Findings:
        """Gaps, intervals and verdict of the scores that are there."""
        from epigone.report.assemble import findings_of

        self.fetch()
        expansion = self.expansion()
        given = publications(self.declaration, expansion, self.file)
        return findings_of(self.declaration, expansion, self.store, given)

    def report(self) -> Path:
        """Build report/index.html and its tables from what is done; the page's path is returned."""
        return self.report_as(["html"])["html"]

    def report_as(self, formats: Iterable[Format]) -> dict[Format, Path]:
        """Build the report in each format from what is done; the file of each is returned.

        Markdown and PDF have their figures as SVG in report/figures. Raises MissingExtra where the
        packages that draw them are not installed.
        """
        from epigone.report import build, export

        asked = dict.fromkeys(formats)
        view = self.view()
        found: dict[Format, Path] = {}
        if "html" in asked:
            found["html"] = build(view, self.root / "report")
        papers: list[Format] = [kind for kind in asked if kind != "html"]
        if papers:
            found |= zip(papers, export(view, self.root / "report", papers), strict=True)
        return found

    def view(self) -> ReportView:
        """Everything that a report shows, of what is done and of what was reported."""
        from epigone.report.assemble import view_of

        self.fetch()
        expansion = self.expansion()
        given = publications(self.declaration, expansion, self.file)
        return view_of(self.declaration, expansion, self.store, given)

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
    def remaining(self, *_: object) -> None: ...
