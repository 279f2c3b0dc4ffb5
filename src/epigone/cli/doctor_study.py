"""What the doctor looks at in a study: its files, packages, models and endpoints."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from epigone.api import Study
from epigone.cli.cache import size
from epigone.cli.checks import Check, Need, refused, side_by_side
from epigone.cli.doctor_network import endpoint_probe, key
from epigone.cli.rate_store import needs_extra
from epigone.corpus.compressed import require
from epigone.errors import EpigoneError, MissingExtra, UserError
from epigone.evaluation import code
from epigone.models import catalogue, references
from epigone.models.endpoint import Endpoint
from epigone.runs.checks import check_scorers
from epigone.runs.objects import StoreError, is_url
from epigone.runs.remote import Remote
from epigone.study.declare import Declaration
from epigone.study.specs import BenchmarkSpec, MeansSpec, ModelSpec, SourceSpec, Spec

SECTION = "Study"
SECONDS = 30.0


def examine(path: Path, runs: str | Path, offline: bool) -> tuple[list[Check], set[Need]]:
    """The checks of a study that steps to do ask for, and what they need of the machine."""
    try:
        # Without a network, what was fetched from a URL has to do.
        mirror = offline and is_url(runs)
        study = Study.load(path, runs=Remote(str(runs), "any").root.parent if mirror else runs)
        todo = [p.step for p in study.plan() if p.record is None]
    except UserError as error:
        name = "store of runs" if isinstance(error, StoreError) else "study file"
        return [refused(SECTION, name, error)], set()
    except (EpigoneError, OSError) as error:
        return [Check(SECTION, "study file", "problem", str(error), "epigone plan")], set()
    found = [Check(SECTION, "study file", "ok", f"{study.file}: {len(todo)} steps to do")]
    specs = {spec.ref: spec for step in todo for spec in _references(step.spec)}
    needs: set[Need] = set()
    if any(isinstance(s.spec, BenchmarkSpec) and s.spec.task in code.TASKS for s in todo):
        needs.add("sandbox")
    found += _packages(study.declaration, study.file.parent, {step.stage for step in todo})
    asked: dict[Endpoint, str] = {}
    for ref, spec in specs.items():
        scheme = ref.partition(":")[0]
        if scheme == "endpoint":
            asked.setdefault(_endpoint(spec), _who(spec))
        elif scheme == "hf":
            needs.add("hub")
            found.append(Check(SECTION, "hub", "ok", f"{ref} comes from the hub, or its cache"))
        else:
            found.append(_local(ref, needs))
    found += [key(endpoint, what) for endpoint, what in asked.items()]
    if not offline:
        found += side_by_side([endpoint_probe(e, what) for e, what in asked.items()])
    return found, needs


def _packages(declaration: Declaration, folder: Path, stages: set[str]) -> Iterator[Check]:
    """Problems with packages and keys that the stages still to do need."""
    if "feedback" in stages and importlib.util.find_spec("trl") is None:
        yield refused(SECTION, "feedback", MissingExtra("learning from feedback", "feedback"))
    for scorer in declaration.evaluate.toxicity.scorers if declaration.evaluate.toxicity else ():
        try:
            check_scorers([scorer], folder)
        except UserError as error:
            yield refused(SECTION, f"scorer {scorer.name}", error)
    if declaration.evaluate.raters:
        try:
            needs_extra()
        except UserError as error:
            yield refused(SECTION, "raters", error)


def _local(ref: str, needs: set[Need]) -> Check:
    """A file, folder or catalogue name: here, or where it is to come from."""
    if (path := references.absent(ref)) is not None:
        return Check(SECTION, "data", "problem", f"nothing lies at {path}", "put it there, or "
                     "change the path; paths start at the study file's folder")  # fmt: skip
    try:
        reference = references.parse(ref)
        if reference.kind == "file":
            require(Path(reference.value))
    except UserError as error:
        return refused(SECTION, "data", error)
    if reference.kind == "folder" and _runs_cypher(Path(reference.value)):
        needs.add("sandbox")
        if importlib.util.find_spec("ladybug") is None:
            return refused(SECTION, "data", MissingExtra(f"{reference.value}", "cypher"))
    if reference.kind != "catalogue":
        return Check(SECTION, "data", "ok", f"{reference.value} is there")
    entry = catalogue.find(reference.value)
    if references.here(reference) is not None or entry.path.exists():
        return Check(SECTION, entry.kind, "ok", f"{entry.name} is in the cache")
    needs.add("index")
    found = f"{entry.name} is to be fetched, {size(entry.download)}"
    return Check(SECTION, entry.kind, "ok", found)


def _runs_cypher(folder: Path) -> bool:
    return any("epigone.evaluation.cypher" in f.read_text("utf-8", "replace")
               for f in folder.glob("*.py"))  # fmt: skip


def _references(value: object) -> Iterator[ModelSpec | SourceSpec]:
    if isinstance(value, ModelSpec | SourceSpec):
        if value.ref:
            yield value
    elif isinstance(value, Spec):
        for _, part in value:
            yield from _references(part)
    elif isinstance(value, tuple):
        for part in value:
            yield from _references(part)


def _endpoint(spec: ModelSpec | SourceSpec) -> Endpoint:
    url, _, model = spec.ref.removeprefix("endpoint:").partition("#")
    means = spec.means if isinstance(spec, ModelSpec) and spec.means else MeansSpec()
    return Endpoint(url, model, means.key_env)


def _who(spec: ModelSpec | SourceSpec) -> str:
    return f"{spec.kind} {spec.name}" if isinstance(spec, ModelSpec) else "scorer"
