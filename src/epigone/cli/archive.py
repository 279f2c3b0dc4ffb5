"""epigone export and import: a study on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from epigone.api import Study
from epigone.cli.common import Json, Runs, StudyArgument, Teller, say_json
from epigone.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("export")(export)
    app.command("import")(bring)


def export(
    study: StudyArgument,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="*.tar.zst, *.tar.gz or *.tar")],
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Also the local files that the study names.")
    ] = False,
    no_weights: Annotated[
        bool,
        typer.Option(
            "--no-weights",
            help="Without the students' weights, most of the bytes. Status and report need none; "
            "steps that are to do and measure a student do.",
        ),
    ] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Pack what is finished of a study, its ratings and its paid answers into one file.

    Of a study that is being run, the steps that are finished now go in.

    Example: epigone export studies/pocket.yaml pocket.tar.zst
    """
    from epigone.runs.pack import pack

    loaded = Study.load(study, runs=runs)
    if not loaded.root.is_dir():
        raise UserError("nothing is done yet", value=str(loaded.root), fix="epigone run")
    with Teller() as teller:
        made = pack(
            loaded.root,
            out,
            loaded.world(),
            data=with_data,
            weights=not no_weights,
            progress=teller,
        )
    size = out.stat().st_size
    if json:
        told = {"done": made.done, "steps": made.steps, "needs": dict(made.needs)}
        say_json({"file": str(out), "bytes": size, **told, "left_out": list(made.left_out)})
        return
    print(f"{made.done} of {made.steps} finished steps of {made.study} in {out}, {size:,} bytes")
    if made.left_out:
        print(f"left out: {len(made.left_out)} files of weights")
    for ref, fingerprint in made.needs.items():
        print(f"not in it: {ref} ({fingerprint[:19]}…); --with-data packs it")


def bring(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What epigone export made.")],
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Put a study that was exported into this machine's folder of studies, where `run` goes on.

    All of it is checked before any of it is seen. A study that is there already gets the steps that
    it lacks; another study of the same name is not touched.

    Example: epigone import pocket.tar.zst
    """
    from epigone.runs.unpack import code_in, unpack

    with Teller() as teller:
        done = unpack(file, runs, teller)
    needs = {r: s for r, s in done.manifest.needs.items() if not _place(done.root, r).exists()}
    code = code_in(done.root)
    if json:
        told = {"new": done.new, "steps": done.steps, "answers": done.answers, "needs": needs,
                "ratings_stay": done.ratings_stay}  # fmt: skip
        say_json({"study": str(done.root), **told, "code": code})
        return
    what = "imported" if done.new else "already there, added"
    print(f"{done.manifest.study}: {what} {done.steps} steps and {done.answers} answers")
    if done.ratings_stay:
        print(f"the study has ratings already, which stay; others are in {file} and were not taken")
    for ref, fingerprint in needs.items() if done.manifest.done < done.manifest.steps else ():
        print(
            f"steps to do may need {ref} ({fingerprint[:19]}…): put it at {_place(done.root, ref)}"
        )
    for name in code:
        print(f"code that a step may run, look at it: {done.root / name}")
    print(f"next: epigone status {done.root}; epigone run {done.root}")


def _place(root: Path, ref: str) -> Path:
    from epigone.models import references

    return references.local(ref, root) or root
