"""The files of a corpus's sources, one after another, and the account of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from epigone.corpus.audit import Audit, Source
from epigone.corpus.clean import shown
from epigone.corpus.readers import File, files_in
from epigone.corpus.rows import Row
from epigone.errors import CorpusError
from epigone.schema import Progress
from epigone.study.specs import CorpusSpec


@dataclass(frozen=True, slots=True)
class Part:
    """A file, the number of its source, and whether it was found in a folder."""

    number: int
    path: Path
    bytes: int
    found: bool


class Reading:
    """Which files are read, how far the reading is, and what the account says of them."""

    def __init__(
        self,
        files: Sequence[Path],
        spec: CorpusSpec,
        audit: Audit,
        progress: Progress,
        share: float,
    ) -> None:
        """Look into the folders; raises CorpusError for one without data files.

        `share` is that of the time which reading takes.
        """
        self._files, self._spec, self._audit = files, spec, audit
        self._progress, self._share = progress, share
        self.parts: list[Part] = []
        for number, path in enumerate(files):
            inside, out = files_in(path)
            folder = path.is_dir()
            self.parts += [Part(number, file, file.stat().st_size, folder) for file in inside]
            audit.skipped += [{"file": file.name, "reason": reason} for file, reason in out]
        self._whole = max(sum(part.bytes for part in self.parts), 1)

    def source(self, part: Part, format: str, container: str) -> Source:
        """The account of a file that is in a known format; the next one in its order."""
        ref = self._spec.sources[part.number].ref
        others = [source.name for source in self._audit.sources]
        name = _name(ref, self._files[part.number], part.path, others)
        source = Source(name, part.bytes, format, container)
        self._audit.sources.append(source)
        return source

    def skip(self, part: Part, error: CorpusError) -> None:
        """Go on behind a file that cannot be read; raises the error unless a folder held it."""
        if not part.found:
            raise error
        # A file that stands beside the data must not stop the reading of a folder.
        self._audit.skipped.append({"file": part.path.name, "reason": shown(str(error))})

    def tell(self, part: Part, place: int, source: Source) -> None:
        """Tell how far the reading is."""
        before = sum(p.bytes for p in self.parts[: self.parts.index(part)])
        done = before + min(place, part.bytes)
        self._progress(done / self._whole * self._share, 1.0, f"reading {source.name}")

    def rows(self) -> Iterator[tuple[int, Row]]:
        """The conversations of all files, with the number of their source."""
        for part in self.parts:
            try:
                file = File(part.path, self._spec.sources[part.number].format)
            except CorpusError as error:
                self.skip(part, error)
                continue
            with file:
                source = self.source(part, file.format.name, file.container)
                for count, item in enumerate(file):
                    if not source.take(item, count) or not isinstance(item, Row):
                        continue
                    if count % 500 == 0:
                        self.tell(part, item.end, source)
                    yield part.number, item


def _name(ref: str, source: Path, file: Path, others: Sequence[str]) -> str:
    # A path is nobody's business and no part of the result; a catalogue's name is.
    name = file.name
    if not Path(ref).expanduser().exists():
        name = f"{ref}/{name}" if source.is_dir() else ref
    again = sum(other == name or other.startswith(f"{name} (") for other in others)
    return f"{name} ({again + 1})" if again else name
