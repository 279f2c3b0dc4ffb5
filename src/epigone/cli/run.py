"""epigone run: do what a study asks for."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import Annotated, Literal

import typer

from epigone.api import Study
from epigone.cli.asking import Budget, dollars
from epigone.cli.benchmark import Unsafe, allow_unsafe
from epigone.cli.common import Json, Place, StudyArgument, Teller, Use, say_json, seconds
from epigone.cli.launch import Compile, Parallel, Processes, Track, choose, refuse_launcher
from epigone.cli.report import tell_verdict
from epigone.errors import StepFailed, UserError
from epigone.runs.roles import PATIENCE_MINUTES, Result


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("run")(run)


def run(
    study: StudyArgument,
    only: Annotated[
        str | None, typer.Option("--only", metavar="STAGE", help="Run the steps of one stage only.")
    ] = None,
    use: Use = "research",
    budget: Budget = "",
    runs: Place = "runs",
    on: Annotated[
        Literal["local", "ray"],
        typer.Option("--on", help="Where steps are performed: on this machine, or on Ray."),
    ] = "local",
    address: Annotated[
        str,
        typer.Option(
            "--address", help="The Ray cluster: auto, HOST:PORT; else one on this machine."
        ),
    ] = "",
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try again what failed by an error of its own."),
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Go on with other steps after a mistake in the study."),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=0.01, metavar="MINUTES", help="End a step that is silent."),
    ] = PATIENCE_MINUTES,
    processes: Processes = None,
    parallel: Parallel = None,
    track: Track = None,
    compiled: Compile = False,
    unsafe_local: Unsafe = False,
    json: Json = False,
) -> None:
    """Run every step that is not done, then build the report and print the verdict.

    Interrupt it or kill it at any time: the same command again continues. With ^C or SIGTERM,
    training saves where it is and the exit code is 130 or 143. Run it from several terminals or
    machines that share the folder, and they share the steps.

    Example: epigone run studies/pocket.yaml
    """
    refuse_launcher()
    choose(processes, parallel, track, compiled)
    allow_unsafe(unsafe_local)
    loaded = Study.load(study, runs=runs)
    started = time.monotonic()
    if address and on != "ray":
        raise UserError("an address is Ray's", value=address, fix="add --on ray")
    with Teller() as teller:
        result = loaded.run(
            teller,
            only=only,
            use=use,
            budget=dollars(budget),
            on=on,
            address=address,
            retry_failed=retry_failed,
            keep_going=keep_going,
            patience_minutes=timeout,
        )
    elapsed = time.monotonic() - started
    _tell_waiting(loaded, result, only)
    if result.failed and "done" not in result.outcomes.values():
        raise StepFailed(f"{len(result.failed)} steps failed or were blocked, none is done")
    page = loaded.report()
    if json:
        say_json({"outcomes": result.outcomes, "failed": result.failed, "report": str(page)})
    else:
        _tell_time(loaded, elapsed)
        tell_verdict(loaded, page)
    if result.failed:
        raise typer.Exit(1)


def _tell_waiting(loaded: Study, result: Result, only: str | None) -> None:
    """Steps of the stage that was asked for alone, which wait for those of others."""
    outcomes = result.outcomes
    if only is None:
        return
    waiting = [
        s for s in loaded.expansion().steps if s.stage == only and outcomes.get(s.name) == "left"
    ]
    if not waiting:
        return
    needs = next(i for i in waiting[0].inputs.values() if outcomes.get(i.name) != "done")
    line = UserError(
        f"{len(waiting)} of the steps of {only} wait for others that are not done",
        value=f"{waiting[0].name} needs {needs.name}",
        fix=f"run without --only, or --only {needs.stage} before",
    )
    if "done" not in outcomes.values():
        raise line
    print(line, file=sys.stderr)


def _tell_time(loaded: Study, elapsed: float) -> None:
    spent: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    peak, fetching = 0, 0.0
    for p in loaded.plan():
        if p.record is not None:
            spent[p.step.stage] += p.record.seconds
            count[p.step.stage] += 1
            peak = max(peak, p.record.peak_bytes)
            fetching += p.record.fetch_seconds
    print("\nWhere the time went (steps run side by side):")
    for stage, value in sorted(spent.items(), key=lambda x: -x[1]):
        print(f"  {stage:<10} {seconds(value):>12}  in {count[stage]} steps")
    print(
        f"  {'downloads':<10} {seconds(fetching):>12}  and conversions, before the work of a step"
    )
    print(f"  this run took {seconds(elapsed)}; the largest step held {peak / 1e9:.1f} GB\n")
