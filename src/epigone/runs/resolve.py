"""What a study needs to know of the world: fingerprints, names, versions, without any download."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from epigone.errors import UnknownName, UserError
from epigone.evaluation.catalogue import known_tasks, lm_eval_version
from epigone.evaluation.judge.rubrics import rubrics
from epigone.models import catalogue, references
from epigone.study.templates import BUILT_IN, template_text
from epigone.teachers.wordings import task_wordings

# How the fingerprints begin of what cannot be known yet: hub references without a revision, and
# local data that is not there. The reference follows, or two of them would seem to be the same.
UNRESOLVED = "unresolved"
ABSENT = "absent"


class World:
    """Resolves a study's references; `locked` are the revisions of an earlier run.

    Relative paths start at `folder`, else at the current one. Of what does not lie there, the copy
    in `kept` is taken, else it is known by what an earlier run saw of it. With `online` false
    nothing is asked of the network, a hub reference without a revision stays "unresolved" until
    the study runs, and local data that nobody has seen is "absent". `seen` are the fingerprints
    that were asked for, `texts` the files that were read, `gone` the paths that an earlier run saw
    and that are not there any more.
    """

    def __init__(
        self,
        *,
        online: bool,
        locked: Mapping[str, str] | None = None,
        folder: Path | None = None,
        kept: Mapping[str, Path] | None = None,
    ) -> None:
        self._online = online
        self.folder = folder or Path.cwd()
        self._locked = dict(locked or {})
        self._kept = {ref: path for ref, path in (kept or {}).items() if path.exists()}
        self.seen: dict[str, str] = {}
        self.texts: dict[str, Path] = {}
        self.gone: set[str] = set()

    def reference(self, ref: str) -> str:
        """A text that means the same reference from any folder."""
        if gone := self._gone(ref):
            self.gone.add(str(gone))
            return str(gone)
        return str(self._absent(ref) or self._parsed(ref))

    def fingerprint(self, ref: str) -> str:
        """The revision or content hash of a reference."""
        return self._once(ref, lambda r: references.fingerprint(r, offline=not self._online))

    def data_fingerprint(self, ref: str) -> str:
        """The revision or content hash of a reference to data."""
        if self._absent(ref) and not self._gone(ref):
            return f"{ABSENT}:{ref}"
        return self._once(ref, lambda r: references.data_fingerprint(r, offline=not self._online))

    def text(self, name: str) -> Path:
        """Where a text lies that a study file names by its path; it need not be there."""
        path = self.folder / Path(name).expanduser()
        if not path.exists() and name in self._kept:
            path = self._kept[name]
        if path.is_file():
            self.texts[name] = path
        return path

    def _once(self, ref: str, find: Callable[[references.Reference], str | None]) -> str:
        if self._gone(ref):
            self.seen[ref] = self._locked[ref]
        if ref not in self.seen:
            parsed = self._parsed(ref)
            found = self._locked.get(ref) if parsed.kind == "hf" else None
            self.seen[ref] = found or find(parsed) or f"{UNRESOLVED}:{parsed}"
        return self.seen[ref]

    def provenance(self, ref: str) -> tuple[str, str]:
        """Licence and terms of a corpus reference; empty where unknown."""
        entry = catalogue.load().get(ref)
        if entry is not None and entry.kind != "corpus":
            corpora = [name for name, e in catalogue.load().items() if e.kind == "corpus"]
            raise UserError(f"a {entry.kind} is no corpus", value=ref, fix=f"known: {corpora[0]}")
        return (entry.licence, entry.terms) if entry else ("", "")

    def model_name(self, ref: str) -> str:
        """A short name for a model reference."""
        if gone := self._gone(ref):
            return _name(gone)
        reference = self._parsed(ref)
        references.check_model(reference)
        if reference.kind == "catalogue":
            return ref
        return _name(Path(reference.value))

    def _absent(self, ref: str) -> Path | None:
        return None if self._online or ref in self._kept else references.absent(ref, self.folder)

    def _gone(self, ref: str) -> Path | None:
        """The path of what an earlier run saw, and what is neither there nor kept any more."""
        if ref not in self._locked or ref in self._kept:
            return None
        path = references.local(ref, self.folder)
        return None if path is None or path.exists() else path

    def template(self, name: str) -> str:
        """The text of a chat template, by its name or its file."""
        if name in BUILT_IN:
            return template_text(name, self.folder)
        # An unknown name is told as it was written, which a path is not.
        kept = name in self._kept and not (self.folder / name).exists()
        text = template_text(str(self._kept[name]) if kept else name, self.folder)
        self.text(name)
        return text

    def _parsed(self, ref: str) -> references.Reference:
        path = references.local(ref, self.folder)
        if path is not None and ref in self._kept and not path.exists():
            ref = ("gguf:" if ref.startswith("gguf:") else "") + str(self._kept[ref])
        return references.parse(ref, self.folder)

    def task_version(self, task: str) -> int:
        """The version of a benchmark of Epigone's own, else 0."""
        return known_tasks().get(task, 0)

    def wording(self, task: str) -> str | None:
        """A hash of what a teacher is asked with for a task by that name, None for a folder's.

        Raises UnknownName for neither.
        """
        known = task_wordings()
        if (
            task not in known
            and "/" not in task
            and task not in self._locked
            and not self.folder.joinpath(Path(task).expanduser()).is_dir()
        ):
            raise UnknownName("task", task, [name for name in known if name])
        return known.get(task)

    def rubrics(self, file: str | None, protocols: Sequence[str]) -> dict[str, str]:
        """The text of each protocol's rubric: those of a file, and Epigone's for the others."""
        return rubrics(None if file is None else self.text(file), protocols)

    def suite(self, task: str) -> str:
        """The version of lm-eval where the task is its own, else ""."""
        if task in known_tasks():
            return ""
        return lm_eval_version(task)


def _name(path: Path) -> str:
    return path.name.removesuffix(".gguf").replace(":", "-")
