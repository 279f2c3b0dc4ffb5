"""A finished study whose steps hold a few bytes each: all of a store, and nothing was computed."""

from __future__ import annotations

import errno
import shutil
import tempfile
from decimal import Decimal
from functools import cache
from pathlib import Path

from epigone.api import Study
from epigone.files import write_json
from epigone.models.endpoint import Endpoint
from epigone.runs.lock import lock_document, world_of
from epigone.runs.store import Store, outputs, seal
from epigone.schema import Record
from epigone.study.publications import publications
from epigone.study.step import Step
from epigone.study.steps import expand
from epigone.teachers.ledger import Ledger, Row, ledger_file, sent

ENDPOINT = Endpoint("http://127.0.0.1:9/v1", "m")
TEXT = """\
name: made
teacher: {name: scribe}
bases: [smollm2-135m-instruct]
corpora:
  talk: {kind: broad, from: [data/talk.json], held_out: 6}
amounts: {talk: [1k]}
recipe: {template: own.jinja}
evaluate:
  benchmarks: [facts]
  style: {n: 4}
  judge: {endpoint: {url: "http://127.0.0.1:9/v1", model: m, price: [1, 1]}, rubric: rubric.yaml,
    protocols: [tone], n: 2}
reported: told.yaml
"""
FILES = {
    "study.yaml": TEXT,
    "data/talk.json": '[{"id": "a"}]',
    "own.jinja": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "rubric.yaml": "tone: |-\n  {{conversation}} {{answer}} Yes or no?\n",
    "told.yaml": "cite: somebody\nrows:\n- {metric: facts/acc, value: 50%, source: p. 1, "
    "base: smollm2-135m-instruct}\n",
}


def make(folder: Path) -> Study:
    """The study in `folder`, done in `folder`/runs/made, with two answers in a ledger."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    study = Study.load(folder / "study.yaml", runs=folder / "runs")
    lock(study)
    for step in study.expansion().steps:
        finish(study.store, step)
    ledger = Ledger(ledger_file(study.root.parent / "ledger", ENDPOINT), "made")
    ledger.write(answer("a", "made", "1.5") + answer("b", "made", "0.25"))
    ledger.close()
    return study


@cache
def _once() -> tempfile.TemporaryDirectory[str]:
    made = tempfile.TemporaryDirectory()
    make(Path(made.name))
    return made


def copied(folder: Path) -> Study:
    """As `make`, without waiting for the disk."""
    shutil.copytree(_once().name, folder, dirs_exist_ok=True)
    return Study.load(folder / "study.yaml", runs=folder / "runs")


def lock(study: Study) -> None:
    """Write what a run writes before its first step."""
    world = world_of(study.file, study.root, online=True)
    expansion = expand(study.declaration, world)
    publications(study.declaration, expansion, study.file, world.text)
    study.root.mkdir(parents=True, exist_ok=True)
    (study.root / "study.yaml").write_text(study.file.read_text())
    write_json(
        study.root / "study.lock.json",
        lock_document(study.declaration, expansion, world, study.root),
    )


def finish(store: Store, step: Step) -> None:
    """Seal a step with two small files, of which one of a student is its weights."""
    partial = store.partial(step)
    own = {"rows.jsonl": f"{step.name}\n" * 50}
    if step.stage == "train":
        own["amount-1000/model.safetensors"] = "w" * 5000
    for name, text in own.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_text(text)
    (partial / "log.txt").write_text("noise\n")
    record = Record(
        stage=step.stage, slug=step.slug, hash=step.hash, identity=step.identity,
        inputs=dict(step.identity["inputs"]), outputs=outputs(partial),
        facts={"train_tokens": 5000, "by_terms": {}}, started="", finished="", seconds=1.0,
        peak_bytes=1, environment={},
    )  # fmt: skip
    seal(partial, store.folder(step), record)


def answer(key: str, purpose: str, cost: str) -> list[Row]:
    """The rows of a request and its answer."""
    told = {"sample": 0, "path": "/x", "request": {}, "response": {"text": key}, "cost": cost}
    return [sent(key, Decimal(cost), 10, purpose), Row("came", key, told)]


def no_locks(*_: object) -> None:
    """What `fcntl.flock` does on a file system that has none."""
    raise OSError(errno.ENOLCK, "No locks available")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
