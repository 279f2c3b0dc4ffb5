"""The whole error tree: what a user did wrong, and what failed in spite of a correct request."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EpigoneError(Exception):
    """Base of every error that Epigone raises on purpose."""


class UserError(EpigoneError):
    """The user's mistake, told in one line: what is wrong, the value, and how to fix it.

    The command line prints it on stderr and exits with 2, before any work is done.
    """

    def __init__(self, what: str, *, value: object = None, fix: str = "") -> None:
        self.what = what
        self.value = value
        self.fix = fix
        super().__init__(self._line())

    def _line(self) -> str:
        shown = "" if self.value is None else f": {_short(self.value)}"
        fix = f" ({self.fix})" if self.fix else ""
        return f"{self.what}{shown}{fix}"


class UnknownName(UserError):
    """A name that Epigone does not know, with the nearest name that it does know."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
        super().__init__(f"unknown {kind}", value=name, fix=fix)


class StudyFileError(UserError):
    """A study file that cannot be read, with the line and column of the mistake where known."""

    def __init__(
        self,
        path: str,
        what: str,
        *,
        line: int | None = None,
        column: int | None = None,
        **kw: object,
    ) -> None:
        where = path if line is None else f"{path}:{line}:{column}"
        super().__init__(f"{where}: {what}", value=kw.get("value"), fix=str(kw.get("fix") or ""))
        self.line = line
        self.column = column


class NewerFormat(UserError):
    """A file of a layout that only a newer Epigone knows."""

    def __init__(self, what: str, found: int, known: int, file: str) -> None:
        super().__init__(
            f"{what} was written by a newer Epigone, in format {found}; this one knows up to "
            f"{known}",
            value=file,
            fix="upgrade Epigone",
        )


class MissingExtra(UserError):
    """A feature whose optional packages are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs packages that are not installed",
            fix=f"pip install 'epigone[{extra}]'",
        )


class FetchError(UserError):
    """Something that has to be downloaded could not be had: network, hash, pip, or disk."""


class ModelError(UserError):
    """A model reference that cannot be loaded safely or does not exist."""


class CorpusError(UserError):
    """Data that is no corpus: of no known format, empty after cleaning, or too small."""


class BenchmarkError(UserError):
    """A benchmark whose data are missing, are of another layout, or cannot be asked so."""


class EndpointError(UserError):
    """An endpoint that refuses, or that does not answer however often it is asked."""


class RequestRefused(EndpointError):
    """A request that an endpoint refuses with an HTTP `status`, and would again."""

    def __init__(self, what: str, *, status: int, value: object = None, fix: str = "") -> None:
        self.status = status
        super().__init__(what, value=value, fix=fix)


class SandboxError(UserError):
    """Code that a model wrote cannot be isolated on this machine, so it is not run."""


class HeldElsewhere(UserError):
    """Another process is working on this study."""


class StepFailed(EpigoneError):
    """A step of a study failed; its log tells why."""


class MachineLost(StepFailed):
    """A step lost the process or the machine that worked on it, by no fault of its own."""


class Stopped(KeyboardInterrupt):
    """The work was asked to end by a signal; what it had done is kept."""


def _short(value: object, limit: int = 200) -> str:
    text = value if isinstance(value, str) else repr(value)
    # A hostile file must not be able to write terminal escapes or a book into the message.
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: limit + 1])
    return text if len(text) <= limit else text[:limit] + "…"
