"""A study whose steps lie at a URL, and their mirror on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from epigone.files import cache_root, write_aside, write_text
from epigone.runs.objects import Objects, StoreError, Torn
from epigone.runs.store import FAILURE, LOG, RECORD, Damaged, partial_of, read_record
from epigone.schema import Record
from epigone.study.identity import digest

FOLDER = "stores"
_LOCK_FILE = "study.lock.json"
# What is fetched only for the step that needs it.
_LARGE, _WEIGHTS = 64 << 20, ".safetensors"
# Beside the steps of a mirror: by step, the token of the record at the URL that it is a copy of.
_MARKS = "remote"
_STEP = re.compile(r"steps/([a-z_]+/[^/]+-[0-9a-f]{8})/record\.json")
_FAILED = re.compile(r"steps/([a-z_]+/[^/]+-[0-9a-f]{8})\.partial/failure\.json")
_AT_ONCE = 16


class Remote:
    """The steps of one study below a URL.

    What counts is there: a step is done when its record is, which is put last. Its files are here
    as far as they were needed.
    """

    def __init__(self, url: str, study: str) -> None:
        """Nothing is asked yet; raises UserError for a URL that cannot be used."""
        self.objects = Objects(f"{str(url).rstrip('/')}/{study}")
        self.runs = self.objects.url.removesuffix(f"/{study}")
        named = hashlib.sha256(self.runs.encode()).hexdigest()[:16]
        self.root = cache_root() / FOLDER / named / study
        # Held by the process of this machine that runs the study.
        self.lock_file = self.root / _MARKS / "driver"
        # Who may write there: raises for a run that another one has taken over from.
        self.check: Callable[[], None] = lambda: None
        self._sizes: dict[str, int] = {}

    def folder(self, name: str) -> Path:
        """Where a step lies here, by its stage and folder."""
        return self.root / "steps" / name

    def pull(self) -> None:
        """Have the lock file, the records of what is done and the failures of what failed here."""
        found = self.objects.find()
        self._sizes = {name: at.size for name, at in found.items()}
        done = {m[1]: found[name].token for name in found if (m := _STEP.fullmatch(name))}
        marked = self._marked()
        if marked and not done and _LOCK_FILE not in found:
            raise StoreError(
                "nothing of the study is at the URL any more",
                value=self.objects.url,
                fix=f"{self.root} holds what was fetched; delete it to begin anew",
            )
        if _LOCK_FILE in found:
            lock = self.objects.read(_LOCK_FILE, _json)
            if lock is not None:
                _write(self.root / _LOCK_FILE, lock)
        changed = [n for n in done if marked.get(n) != done[n] or not self._has(n)]
        gone = [n for n in marked if n not in done]
        _all(lambda n: self.sync(n, done[n]), changed)
        _all(lambda n: self.sync(n, None), gone)
        _all(self.bring_failure, (m[1] for name in found if (m := _FAILED.fullmatch(name))))

    def bring_small(self) -> None:
        """Have all outputs of finished steps here that are not large."""
        _all(lambda name: self._bring(name, large=False), self._marked())

    def bring(self, name: str, *, large: bool = True) -> None:
        """Have a finished step's outputs here, each as its record says.

        Raises StoreError where the step is not done, or its files are damaged at the URL.
        """
        about = self.objects.about(f"steps/{name}/{RECORD}")
        if about is None:
            raise StoreError("a step is not in the store", value=f"{self.objects}/steps/{name}")
        self.sync(name, about.token)
        self._bring(name, large=large)

    def _bring(self, name: str, *, large: bool) -> None:
        folder = self.folder(name)
        with self._alone(name):
            record = read_record(folder)
            for output, sha256 in record.outputs.items() if record else ():
                if (folder / output).exists():
                    continue
                assert record is not None
                at = self._place(name, record, output)
                if large or not self._is_large(at):
                    self.objects.get(at, folder / output, sha256)

    def push(self, name: str) -> Record:
        """Put a step there that was made here, its record last; the record that counts is returned.

        Where another one has made the step meanwhile, theirs counts and takes this one's place.
        """
        folder, at = self.folder(name), f"steps/{name}/{RECORD}"
        with self._alone(name):
            record = read_record(folder)
            if record is None:
                raise StoreError("a step is not here that was made here", value=str(folder))
            if self._mark(name).exists():
                return record
            self.check()
            theirs = self._theirs(name)
            if theirs is None:
                for output in record.outputs:
                    if (folder / output).exists():
                        self.objects.put(folder / output, _made(name, record, output))
                if (folder / LOG).exists():
                    self.objects.put(folder / LOG, f"steps/{name}/{LOG}")
                self.check()
                if not self._seal(at, (folder / RECORD).read_bytes()):
                    theirs = self._theirs(name)
            if theirs is not None and theirs[0].outputs != record.outputs:
                self._install(name, theirs[1])
                record = theirs[0]
            about = self.objects.about(at)
            if about is None:
                raise StoreError(
                    "a record is gone that was put there", value=f"{self.objects}/{at}"
                )
            write_text(self._mark(name), about.token)
        self.objects.remove([f"steps/{name}.partial/{file}" for file in (FAILURE, LOG)])
        return record

    def _seal(self, at: str, record: bytes) -> bool:
        """Put a record there unless there is one; False where there is another's."""
        if self.objects.create(at, record):
            return True
        # What an own try has left of it that was cut off is nobody's.
        found = self.objects.read(at, bytes)
        if found is None or not record.startswith(found):
            return False
        self.objects.write(at, record)
        return True

    def push_left(self) -> None:
        """Put steps there that a killed run had made here."""
        steps = self.root / "steps"
        for record in sorted(steps.glob(f"*/*-????????/{RECORD}")):
            name = str(record.parent.relative_to(steps))
            if not self._mark(name).exists():
                self.push(name)

    def push_failure(self, name: str) -> None:
        """Put there how a step failed here."""
        partial = partial_of(self.folder(name))
        for file in (LOG, FAILURE):
            if (partial / file).exists():
                self.objects.put(partial / file, f"steps/{name}.partial/{file}")

    def bring_failure(self, name: str, *, newer: bool = False) -> None:
        """Have how a step failed here, unless something of it was made here; a `newer` one is."""
        partial = partial_of(self.folder(name))
        if self._has(name) or (partial.exists() and not newer):
            return
        for file in (LOG, FAILURE):
            data = self.objects.read(f"steps/{name}.partial/{file}", bytes)
            if data is not None:
                _write(partial / file, data)

    def push_files(self, *names: str) -> None:
        """Put files there that lie at the top of the study."""
        for name in names:
            self.objects.put(self.root / name, name)

    def sync(self, name: str, token: str | None) -> None:
        """Have a step's record here as it is there, or nothing of a step that is gone from there.

        What was made here and never put there stays.
        """
        with self._alone(name):
            mark = self._mark(name)
            if token is None:
                # What was put there since the files were listed is not gone.
                if mark.exists() and self.objects.about(f"steps/{name}/{RECORD}") is None:
                    shutil.rmtree(self.folder(name), ignore_errors=True)
                    mark.unlink()
                return
            if self._has(name) and mark.exists() and mark.read_text(encoding="utf-8") == token:
                return
            theirs = self._theirs(name)
            if theirs is None:
                return
            own = None
            with suppress(Damaged):
                own = read_record(self.folder(name))
            if own is None or own.outputs != theirs[0].outputs:
                self._install(name, theirs[1])
            write_text(mark, token)

    def _theirs(self, name: str) -> tuple[Record, bytes] | None:
        def take(data: bytes) -> tuple[Record, bytes]:
            record = Record.from_json(json.loads(data))
            if not name.endswith(f"-{record.hash[:8]}") or not all(map(_is_safe, record.outputs)):
                raise Torn("it is another step's, or names files outside of its folder")
            return record, data

        return self.objects.read(f"steps/{name}/{RECORD}", take)

    def _install(self, name: str, record: bytes) -> None:
        """A folder with a record takes the place of what is here."""
        folder = self.folder(name)
        (self.root / _MARKS).mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=self.root / _MARKS, prefix="new-"))
        _write(aside / RECORD, record)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            self._mark(name).unlink(missing_ok=True)
            shutil.rmtree(folder)
        aside.chmod(0o755)
        aside.rename(folder)

    def _has(self, name: str) -> bool:
        return (self.folder(name) / RECORD).exists()

    def _place(self, name: str, record: Record, output: str) -> str:
        """Where an output is there; of a step of an older store it is beside the record."""
        made, older = _made(name, record, output), f"steps/{name}/{output}"
        if made not in self._sizes and older not in self._sizes:
            found = self.objects.find(f"steps/{name}")
            self._sizes |= {there: at.size for there, at in found.items()}
        return older if older in self._sizes and made not in self._sizes else made

    def _is_large(self, name: str) -> bool:
        if name.endswith(_WEIGHTS):
            return True
        if name not in self._sizes:
            about = self.objects.about(name)
            self._sizes[name] = about.size if about else 0
        return self._sizes[name] > _LARGE

    def _mark(self, name: str) -> Path:
        return self.root / _MARKS / name

    def _marked(self) -> Mapping[str, str]:
        marks = self.root / _MARKS
        return {
            str(file.relative_to(marks)): file.read_text(encoding="utf-8")
            for file in marks.glob("*/*-????????")
            if not file.parent.name.startswith("new-")
        }

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Nobody else on this machine fetches or puts this step."""
        lock = self._mark(name).with_name(f".{PurePosixPath(name).name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with suppress(OSError):  # a file system without locks: a folder comes by one rename
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _made(name: str, record: Record, output: str) -> str:
    """Where an output of a step lies at the URL: its record tells, by what it says of them all.

    One that was overtaken may still be putting other bytes there, and nobody can hold it back.
    """
    return f"steps/{name}/{digest(dict(record.outputs))[:16]}/{output}"


def _is_safe(name: str) -> bool:
    """Whether a name that came from a URL stays within a step's folder."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _json(data: bytes) -> bytes:
    json.loads(data)
    return data


def _write(file: Path, data: bytes) -> None:
    with write_aside(file) as aside:
        aside.write(data)


def _all(do: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(do, names):
            pass
