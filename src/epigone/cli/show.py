"""epigone show: a step's record, a model's samples beside the teacher's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from epigone.api import Study
from epigone.cli.common import Json, Place, StudyArgument, number, printable, say_json, table
from epigone.errors import StepFailed, UnknownName, UserError
from epigone.files import read_jsonl
from epigone.runs.plan import Planned
from epigone.runs.store import LOG as STEP_LOG
from epigone.runs.store import verify as check
from epigone.schema import Record, Sample

_ROWS = 10


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("show")(show)


def show(
    study: StudyArgument,
    what: Annotated[
        str | None, typer.Argument(metavar="[STEP]", help="A step, or a model of the study.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash the step's files again and compare.")
    ] = False,
    n: Annotated[int, typer.Option("-n", min=1, help="Samples to show of a model.")] = 3,
    runs: Place = "runs",
    json: Json = False,
) -> None:
    """Show a step's record, or a model's answers beside the teacher's; without STEP, the names.

    Example: epigone show studies/pocket.yaml gemma-3-270m -n 2
    """
    loaded = Study.load(study, runs=runs)
    loaded.fetch()
    planned = loaded.plan()
    models = [s.model for s in loaded.expansion().subjects]
    if what is None:
        names = [[p.state, p.step.name] for p in planned] + [["model", m] for m in models]
        if json:
            say_json({"steps": [p.step.name for p in planned], "models": models})
        else:
            table("", ("", "name"), names)
        return
    if what in models:
        _samples(loaded, planned, what, n, json)
        return
    found = [p for p in planned if p.step.name == what or p.step.name.startswith(what)]
    if not found:
        raise UnknownName("step or model", what, [p.step.name for p in planned] + models)
    if len(found) > 1 and found[0].step.name != what:
        raise UserError(
            f"{len(found)} steps begin so", value=what, fix=f"for example {found[0].step.name}"
        )
    record = found[0].record
    if record is None:
        _unfinished(loaded, found[0], json)
        return
    if verify:
        loaded.fetch(found[0].step.name)
    changed = check(loaded.store.folder(found[0].step)) if verify else []
    if changed:
        raise StepFailed(f"{what}: files differ from the record: {', '.join(changed)}")
    if json or record.stage != "train":
        say_json(record.to_json())
    else:
        _training(loaded.store.folder(found[0].step), record)


def _unfinished(loaded: Study, found: Planned, json: bool) -> None:
    """Why a step failed, as far as its files tell, or that there is nothing to show."""
    failure = loaded.store.failure(found.step)
    if failure is None:
        raise UserError(f"the step is {found.state}", value=found.step.name, fix="epigone run")
    if json:
        say_json(failure)
        return
    again = " --retry-failed" if failure.get("fault") else ""
    for line in str(failure.get("traceback") or "").splitlines():
        print(printable(line))
    print(f"{found.step.name} failed: {printable(str(failure.get('error', '')))}")
    print(f"log: {loaded.store.partial(found.step) / STEP_LOG}")
    print(f"epigone run{again} tries it again")


def _training(folder: Path, record: Record) -> None:
    from epigone.findings.verdict import tokens
    from epigone.report.training import LOG, curves_of, statistics, thinned

    told = statistics(record.facts, record.seconds, record.peak_bytes)
    for name, words in {"Step": f"{record.stage}/{record.slug}", **told}.items():
        print(f"{name:<11} {words}")
    rows = []
    for curve in curves_of(list(read_jsonl(folder / LOG))):
        name = "trunk" if curve.branch is None else f"decay to {tokens(curve.branch)}"
        rows += [
            [name, str(p.last + 1), f"{p.seen:,}", number(p.loss), f"{p.lr:.3g}",
             number(p.gradient_norm)]
            for p in thinned(curve.points, _ROWS)
        ]  # fmt: skip
    print()
    table("", ("run", "to step", "supervised tokens", "loss", "learning rate", "norm"), rows)


def _samples(loaded: Study, planned: list[Planned], model: str, n: int, json: bool) -> None:
    answers: dict[str, dict[str, Sample]] = {}
    teacher = loaded.declaration.teacher.name
    for p in planned:
        if p.step.stage == "generate" and p.step.model in (model, teacher) and p.record:
            rows = read_jsonl(loaded.store.folder(p.step) / "samples.jsonl")
            answers[p.step.model] = {s.item: s for s in map(Sample.from_json, rows)}
    if model not in answers:
        raise UserError("no samples of this model yet", value=model, fix="epigone run")
    items = list(answers[model])[:n]
    if json:
        out: list[dict[str, Any]] = [
            {name: samples[i].to_json() for name, samples in answers.items() if i in samples}
            for i in items
        ]
        say_json(out)
        return
    for item in items:
        for message in answers[model][item].prompt:
            print(f"--- {message.role} ({_bounded(item)})\n{_bounded(message.content)}\n")
        for name in (teacher, model):
            if item in answers.get(name, {}):
                print(f"--- {name}\n{_bounded(answers[name][item].output)}\n")


def _bounded(text: str, limit: int = 4000) -> str:
    # A model's text may hold terminal escapes.
    kept = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text[:limit])
    return kept + ("…" if len(text) > limit else "")
