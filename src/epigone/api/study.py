"""A study: its declaration, its steps, and what comes of them."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from epigone.errors import UnknownName, UserError
from epigone.files import write_json, write_text
from epigone.runs.at_url import mirrored, opened
from epigone.runs.checks import (
    check_before,
    check_gone,
    check_left_out,
    check_use,
    check_whole,
    reading,
    terms_of_data,
)
from epigone.runs.execute import execute
from epigone.runs.executors import Executors, environment_of, executor_of
from epigone.runs.lease import Runner
from epigone.runs.lock import NAME as LOCK
from epigone.runs.lock import STUDY, is_run, lock_document, world_of
from epigone.runs.logged import logged
from epigone.runs.objects import is_url
from epigone.runs.plan import Planned, plan
from epigone.runs.remote import Remote
from epigone.runs.resolve import World
from epigone.runs.roles import PATIENCE_MINUTES, Asked, Result, Watcher
from epigone.runs.store import Store
from epigone.runs.teacher_cost import check_budget
from epigone.study.declare import Declaration
from epigone.study.file import located, read
from epigone.study.identity import digest
from epigone.study.publications import Publications, publications
from epigone.study.step import STAGES
from epigone.study.steps import Expansion, expand
from epigone.study.terms import Terms, Use
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

        The folder of a run is itself where its steps lie, wherever it was moved. `runs` may be a
        URL that fsspec knows; what is done there is then known here. Raises
        StudyFileError with the line and column of the first mistake.
        """
        file = Path(path)
        if file.is_dir() and (file / STUDY).is_file():
            file = file / STUDY
        declaration = read(file)
        if is_url(runs):
            remote = mirrored(str(runs), declaration.name)
            return cls(declaration, file, remote.root, remote)
        if file.name == STUDY and is_run(file.parent):
            return cls(declaration, file, file.parent.resolve())
        return cls(declaration, file, Path(runs).resolve() / declaration.name)

    @property
    def store(self) -> Store:
        """The study's steps on disk."""
        return Store(self.root, mirror=self.remote is not None)

    def fetch(self, step: str = "") -> None:
        """Have all small results here of steps that are done at a URL, or all of one step's."""
        if self.remote is not None and step:
            self.remote.bring(step)
        elif self.remote is not None:
            self.remote.bring_small()

    def expansion(self, *, online: bool = False) -> Expansion:
        """Cells and steps; `online` may ask a hub for revisions that the study does not name."""
        return self._expand(online)[0]

    def world(self) -> World:
        """What the study needs to know of the world, as it is now or as its last run saw it."""
        expansion, world = self._expand(False)
        publications(self.declaration, expansion, self.file, world.text)
        return world

    def plan(self) -> list[Planned]:
        """State, reason and expected time of every step; asks no network and changes nothing."""
        return plan(self.expansion(), self.store)

    def terms(self) -> dict[str, list[Terms]]:
        """The terms under which all data stands that students learn from.

        A corpus has its own name here: its sources and, once built, its rows. The others are
        "replay text" and "feedback NAME".
        """
        return terms_of_data(self.expansion(), self.store)

    def check_terms(self, use: Use) -> None:
        """Raise CorpusError where the terms of the data forbid a use of the students."""
        check_use(self.terms(), self.declaration.corpora, use)

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
        publications(self.declaration, expansion, self.file, world.text)
        check_before(self.declaration, world.folder)
        check_gone(expansion, self.store, world.gone)
        check_left_out(expansion, self.store)
        check_whole(expansion, self.store)
        check_budget(expansion.steps, budget)
        lock = lock_document(self.declaration, expansion, world, self.root)
        asks = digest({"steps": [step.name for step in expansion.steps]})
        with opened(self.remote) as at_url, Runner(self.root, asks) as runner:
            write_text(self.root / STUDY, self.file.read_text(encoding="utf-8"))
            write_json(self.root / LOCK, lock)
            environment = environment_of(self.store, self.declaration.name, budget)
            if self.remote is not None:
                self.remote.push_files(STUDY, LOCK)
            wanted = [s for s in expansion.steps if only in (None, s.stage)]
            executor = executor_of(on, address, environment, self.store, at_url, wanted)
            told = logged(watcher or _Quiet())
            asked = Asked(only, use, retry_failed, keep_going, patience_minutes)
            return execute(expansion, self.store, told, executor, runner, asked)

    def published(self, expansion: Expansion) -> Publications:
        """The scores that the study takes from elsewhere, for models of its expansion."""
        world = world_of(self.file, self.root, online=False)
        return publications(self.declaration, expansion, self.file, world.text)

    def findings(self) -> Findings:
        """Gaps, intervals and verdict of the scores that are there."""
        from epigone.report.assemble import findings_of

        self.fetch()
        expansion = self.expansion()
        given = self.published(expansion)
        with reading(expansion, self.store):
            return findings_of(self.declaration, expansion, self.store, given)

    def report(self) -> Path:
        """Build report/index.html and its tables from what is done; the page's path is returned."""
        return self.report_as(["html"])["html"]

    def report_as(
        self, formats: Iterable[Format], *, out: str | Path | None = None
    ) -> dict[Format, Path]:
        """Build the report in each format from what is done; the file of each is returned.

        They go to `out`, else to the study's folder. Markdown and PDF have their figures as SVG in
        its folder figures. Raises MissingExtra where the packages that draw them are not installed.
        """
        from epigone.report import build, export

        asked = dict.fromkeys(formats)
        folder = self.root / "report" if out is None else Path(out)
        view = self.view()
        found: dict[Format, Path] = {}
        papers: list[Format] = [kind for kind in asked if kind != "html"]
        try:
            if "html" in asked:
                found["html"] = build(view, folder)
            if papers:
                found |= zip(papers, export(view, folder, papers), strict=True)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            fix = "name another folder with --output"
            raise UserError("the report cannot be written", value=str(folder), fix=fix) from None
        return found

    def view(self) -> ReportView:
        """Everything that a report shows, of what is done and of what was reported."""
        from epigone.report.assemble import view_of

        self.fetch()
        expansion = self.expansion()
        given = self.published(expansion)
        with reading(expansion, self.store):
            return view_of(self.declaration, expansion, self.store, given)

    def _expand(self, online: bool) -> tuple[Expansion, World]:
        world = world_of(self.file, self.root, online=online)
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
