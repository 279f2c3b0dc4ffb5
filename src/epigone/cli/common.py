"""What the verbs share: arguments, tables, JSON, and telling progress."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from epigone.errors import UserError
from epigone.logs import redacted
from epigone.runs.objects import is_url
from epigone.schema import Record, Score
from epigone.study.step import Step

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

StudyArgument = Annotated[
    Path, typer.Argument(metavar="STUDY", help="The study's YAML file, or its folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Use = Annotated[
    Literal["research", "commercial"],
    typer.Option("--use", help="What students are for; refuses what the teachers' terms forbid."),
]


def _place(text: str) -> str:
    if not text.strip():
        raise UserError("--runs names nothing", fix="leave it out for the folder runs")
    return text


def _folder(text: str | Path) -> Path:
    # As it was given: a path of it would have lost a slash of a URL.
    text = _place(str(text))
    if is_url(text):
        fix = "--runs FOLDER"
        raise UserError("this needs a folder, and no URL", value=redacted(text), fix=fix)
    return Path(text)


Runs = Annotated[
    Path,
    typer.Option(
        "--runs", parser=_folder, metavar="FOLDER", help="Folder that holds the studies' steps."
    ),
]
Place = Annotated[
    str,
    typer.Option(
        "--runs",
        callback=_place,
        metavar="FOLDER|URL",
        help="Where the studies' steps are: a folder, s3://…, gs://…",
    ),
]

_PLAIN_SECONDS = 15.0
# Of a line on a terminal: the bar, and what must have room beside a step's name.
_BAR, _BESIDE_NAME = 12, 58
# A study of more cells is told by stages, and not by steps.
TALL = 30


def say_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; as tab-separated lines where the output is no terminal."""
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in rows:
            print("\t".join(printable(c) for c in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Table(title=title or None, title_justify="left", header_style="bold", box=None)
    for column in columns:
        out.add_column(column, overflow="fold")
    for row in rows:
        # Text, not markup: names and messages may hold square brackets.
        out.add_row(*(Text(printable(c)) for c in row))
    Console().print(out)


def score_rows(scores: Sequence[Score]) -> list[list[str]]:
    """Scores as rows of a table with the columns of `SCORE_COLUMNS`."""
    return [
        [s.model, s.task or "-", s.metric, number(s.value), str(s.n), s.better, s.method]
        for s in scores
    ]


# The method is empty where a score was measured as usual.
SCORE_COLUMNS = ("model", "task", "metric", "value", "n", "better", "method")


def score_json(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Scores as JSON, with their per-item values."""
    return [s.to_json() for s in scores]


def number(value: float | None) -> str:
    """A score to three digits; "not known" where there is none."""
    return "not known" if value is None else f"{value:.3f}"


def seconds(value: float) -> str:
    """A duration for people."""
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def printable(text: str) -> str:
    """A text in which nothing steers a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


class Teller:
    """Tells on stderr how work goes: a bar on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}
        self._total: TaskID | None = None
        self._heads: dict[str, str] = {}
        self._said: dict[str, float] = {}
        if sys.stderr.isatty():
            self._bar = _bar()

    def __enter__(self) -> Teller:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: float, total: float, note: str = "") -> None:
        """Progress of a stage that is used by itself."""
        self._tell("", done, total, note)

    def started(self, step: Step, number: int, of: int) -> None:
        """A step of a study begins."""
        self._heads[step.name] = f"[{number}/{of}] {step.stage} {step.slug}"
        self._said[step.name] = time.monotonic()
        if self._bar is None:
            self._line(f"{self._heads[step.name]} …")
        else:
            self._tell(step.name, 0, 0, "")

    def progress(self, step: Step, done: float, total: float, note: str) -> None:
        """A step of a study has done a part of its work."""
        self._tell(step.name, done, total, note)

    def finished(self, step: Step, record: Record) -> None:
        """A step of a study is sealed."""
        self._drop(step)
        self._line(f"{self._head(step)} done in {seconds(record.seconds)}")

    def failed(self, step: Step, error: str, log: Path) -> None:
        """A step of a study failed: the last lines of its log, and where the rest is."""
        self._drop(step)
        self._line(f"{self._head(step)} FAILED: {error}")
        for line in _tail(log, 5):
            self._line(f"    {line}")
        self._line(f"    log: {log}")

    def blocked(self, steps: Sequence[Step], by: Step) -> None:
        """Steps of a study cannot run."""
        names = ", ".join(f"{s.stage} {s.slug}" for s in steps[:3])
        names += f" and {len(steps) - 3} more" if len(steps) > 3 else ""
        self._line(f"blocked by {by.name}: {names}")

    def remaining(self, done: int, of: int, left: float) -> None:
        """So many steps of a study are done, and the others will take so long."""
        if self._bar is None:
            return
        if self._total is None:
            self._total = self._bar.add_task("all steps", total=of, note="", told_left=True)
        note = f"{done}/{of}, about {seconds(left)} left" if done < of else f"{done}/{of}"
        self._bar.update(self._total, completed=done, note=note)

    def _head(self, step: Step) -> str:
        # What another runner did, or what failed before, never began here.
        return self._heads.get(step.name, f"{step.stage} {step.slug}")

    def _tell(self, name: str, done: float, total: float, note: str) -> None:
        head = self._heads.get(name, "")
        if self._bar is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bar.add_task(head, total=None, note="")
            self._bar.update(
                self._tasks[name], completed=done, total=total or None, note=printable(note)
            )
        elif time.monotonic() - self._said.setdefault(name, time.monotonic()) > _PLAIN_SECONDS:
            self._said[name] = time.monotonic()
            share = f"{100 * done / total:.0f}%" if total else ""
            self._line(f"{head} {share} {note}".strip())

    def _drop(self, step: Step) -> None:
        if self._bar is not None and step.name in self._tasks:
            self._bar.remove_task(self._tasks.pop(step.name))

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(printable(text), markup=False, highlight=False)
        else:
            print(printable(text), file=sys.stderr, flush=True)


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    console = Console(stderr=True)

    def room() -> int:
        return max(16, min(60, console.width - _BESIDE_NAME))

    class Name(ProgressColumn):
        """Of a long name the middle is left out."""

        def render(self, task: Task) -> Text:
            name, most = task.description, room()
            if len(name) > most:
                name = f"{name[: most // 2]}…{name[len(name) - (most - most // 2 - 1) :]}"
            return Text(name)

    class Rest(ProgressColumn):
        """Share, times, units a second and what the step says, as far as the line goes."""

        def render(self, task: Task) -> Text:
            parts = [f"{task.percentage:>3.0f}%"] if task.total else ["    "]
            parts.append(f"{seconds(task.elapsed or 0)} so far")
            if task.time_remaining is not None and not task.fields.get("told_left"):
                parts.append(f"{seconds(task.time_remaining)} left")
            speed = task.finished_speed or task.speed
            # Of work that is counted in units: updates, prompts, requests.
            if speed and task.total and task.total > 1 and not task.fields.get("told_left"):
                parts.append(f"{speed:.3g}/s")
            parts.append(task.fields["note"])
            rest = Text("  ".join(filter(None, parts)), style="dim")
            used = max(min(len(t.description), room()) for t in bar.tasks)
            rest.truncate(max(12, console.width - used - _BAR - 3), overflow="ellipsis")
            return rest

    bar = Progress(Name(), BarColumn(bar_width=_BAR), Rest(), console=console, transient=True)
    return bar


def _tail(log: Path, lines: int) -> list[str]:
    try:
        with open(log, "rb") as f:
            f.seek(max(0, log.stat().st_size - 4096))
            return [x[:200] for x in f.read().decode(errors="replace").splitlines()[-lines:]]
    except OSError:
        return []
