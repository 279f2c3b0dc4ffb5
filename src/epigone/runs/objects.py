"""Files at a URL of any kind that fsspec knows: tried again for a while, told of in one line."""

from __future__ import annotations

import errno
import importlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from epigone.errors import UserError
from epigone.files import sha256_file, write_aside
from epigone.logs import redacted

T = TypeVar("T")

# Seconds for which a file system may be away: while one looks, and while one works.
LOOK_PATIENCE, WORK_PATIENCE = 20.0, 600.0
# What comes otherwise than it was put is fetched so often before it counts as damaged.
_TORN = 4
# Where a file needs a folder that is there; elsewhere a folder is a part of a name.
_WITH_FOLDERS = frozenset(
    ["file", "local", "memory", "sftp", "ssh", "ftp", "smb", "hdfs", "arrow_hdfs", "webhdfs"]
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


class StoreError(UserError):
    """A store at a URL that cannot be read or written, or holds what it should not."""


class Torn(Exception):
    """What came is not what was put; it may come whole the next time."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file at a URL: its bytes, as listed, and a text that changes when the file does."""

    size: int
    token: str


def is_url(place: object) -> bool:
    """Whether a place is a URL, and no folder; a path that was made of one is one, too."""
    return _URL.match(str(place)) is not None


class Objects:
    """The files below a URL, by names relative to it; may be used by several threads.

    It is asked again for `patience` seconds, or until `ended` is set, whatever goes wrong.
    """

    def __init__(self, url: str, patience: float = LOOK_PATIENCE) -> None:
        """Nothing is asked yet. Raises UserError for a URL that is none, or that holds a password,
        and where the package is missing that knows URLs of its kind.
        """
        self.patience = patience
        self.ended = threading.Event()
        self.url = url = url.rstrip("/")
        kind, _, rest = url.partition("://")
        # The whole authority: a password may hold what ends it elsewhere.
        secret = urlsplit(url).password is not None or ":" in rest.rpartition("@")[0]
        if secret or "?" in url or "#" in url:
            raise UserError(
                "a URL of a store may hold no password and no key",
                value=f"{kind}://…",
                fix="give them to its package by the environment, as AWS_SECRET_ACCESS_KEY",
            )
        if not is_url(url) or not rest or "::" in url:
            raise UserError("not the URL of a store", value=url, fix="as s3://bucket/folder")
        self._fs, self._root = _opened(kind, url)
        self._folders = kind in _WITH_FOLDERS

    def __str__(self) -> str:
        """The URL."""
        return self.url

    def look(self) -> None:
        """Raise StoreError where the URL cannot be read; that nothing lies there is no error."""

        def look() -> None:
            try:
                self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                # A folder comes with its first file; a bucket has to be there.
                if not self._folders:
                    self._fs.info(self._root.partition("/")[0])

        self.ask(look, "")

    def find(self, folder: str = "") -> dict[str, Found]:
        """All files below a folder, by their names relative to the URL; none where it is not."""
        at = f"{self._root}/{folder}".rstrip("/")

        def find() -> dict[str, Found]:
            self._fs.invalidate_cache()
            try:
                rows = self._fs.find(at, detail=True)
            except FileNotFoundError:
                return {}
            return {
                name.removeprefix(self._root).lstrip("/"): _found(row)
                for name, row in rows.items()
                if row.get("type", "file") == "file"
            }

        return self.ask(find, folder)

    def about(self, name: str) -> Found | None:
        """A file's size and token as they are now, None where there is none."""

        def about() -> Found | None:
            self._fs.invalidate_cache()
            try:
                return _found(self._fs.info(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

        return self.ask(about, name)

    def read(self, name: str, take: Callable[[bytes], T]) -> T | None:
        """What `take` makes of a file's bytes, None where there is no file.

        The bytes are fetched anew where it raises ValueError, TypeError or KeyError.
        """

        def read() -> T | None:
            try:
                data = self._fs.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return None
            try:
                return take(data)
            except (ValueError, TypeError, KeyError) as error:
                raise Torn(f"it is damaged: {error}") from error

        return self.ask(read, name)

    def write(self, name: str, data: bytes) -> None:
        """Put bytes."""
        self.ask(lambda: self._in_folder(name, lambda at: self._fs.pipe_file(at, data)), name)

    def create(self, name: str, data: bytes) -> bool:
        """Put bytes where there is no file; False where there is one.

        Two that do so at once may both believe that it was theirs on file systems that do not know
        how to create: only what is read later tells.
        """

        def create() -> bool:
            try:
                self._in_folder(name, lambda at: self._fs.pipe_file(at, data, mode="create"))
            except FileExistsError:
                return False
            return True

        # An answer that was lost: the file may be ours.
        return self.ask(create, name) or self.read(name, lambda found: found == data) is True

    def put(self, file: Path, name: str) -> None:
        """Put a file of this machine; what is there then is as long, or has the same bytes."""

        def put() -> None:
            self._in_folder(name, lambda at: self._fs.put_file(str(file), at))
            about = self.about(name)
            if about is None or about.size != file.stat().st_size:
                self._compare(name, sha256_file(file))

        self.ask(put, name)

    def get(self, name: str, file: Path, sha256: str) -> None:
        """Have a file here, whole; raises StoreError where its bytes are others than these."""

        def get() -> None:
            with write_aside(file) as aside:
                self._fs.get_file(f"{self._root}/{name}", aside.name)
                if sha256_file(Path(aside.name)) != sha256:
                    raise Torn("it is not what its record says")

        self.ask(get, name)

    def remove(self, names: list[str]) -> None:
        """Remove files; those that are gone are no error."""
        for name in names:

            def remove(at: str = f"{self._root}/{name}") -> None:
                try:
                    self._fs.rm_file(at)
                except FileNotFoundError:
                    return

            self.ask(remove, name)

    def ask(self, do: Callable[[], T], name: str) -> T:
        """Do something that may fail for a while; raises StoreError when it failed for too long."""
        from tenacity import (
            RetryCallState,
            RetryError,
            Retrying,
            retry_if_exception,
            wait_random_exponential,
        )

        def give_up(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            late = (state.seconds_since_start or 0.0) >= self.patience
            torn = isinstance(error, Torn) and state.attempt_number >= _TORN
            return late or torn or self.ended.is_set() or _for_good(error)

        asking = Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, Exception) and not _told(e)),
            wait=wait_random_exponential(multiplier=0.4, max=30.0),
            stop=give_up,
            sleep=self._nap,
        )
        try:
            return asking(do)
        except RetryError as error:
            raise self._error(name, error.last_attempt.exception()) from None

    def _nap(self, seconds: float) -> None:
        self.ended.wait(seconds)

    def _error(self, name: str, error: BaseException | None) -> StoreError:
        where = f"{self.url}/{name}".rstrip("/")
        # What a library says may hold addresses that are signed.
        lines = re.sub(r"\?\S*", "?…", redacted(str(error))).strip().splitlines()
        why = lines[0][:160] if lines else ""
        if isinstance(error, Torn):
            fix = "delete its step's folder there, and the step is made again"
            return StoreError(f"what came of a file of the store is damaged: {why}"[:200],
                              value=where, fix=fix)  # fmt: skip
        return StoreError(
            "the store cannot be used", value=where, fix=f"{type(error).__name__}: {why}"
        )

    def _in_folder(self, name: str, put: Callable[[str], None]) -> None:
        at = f"{self._root}/{name}"
        if self._folders:
            self._fs.makedirs(at.rpartition("/")[0], exist_ok=True)
        put(at)

    def _compare(self, name: str, sha256: str) -> None:
        import hashlib

        with self._fs.open(f"{self._root}/{name}", "rb") as there:
            found = hashlib.file_digest(there, "sha256").hexdigest()
        if found != sha256:
            raise Torn("it is not what was put")


def _opened(kind: str, url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path of it there."""
    core = importlib.import_module("fsspec.core")
    try:
        fs, root = core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except ImportError:
        known = importlib.import_module("fsspec.registry").known_implementations[kind]
        package = known["class"].partition(".")[0]
        fix = known.get("err", "") if package == "fsspec" else f"pip install {package}"
        raise UserError("a package is missing for", value=f"{kind}://", fix=fix) from None
    except ValueError as error:
        raise UserError("not the URL of a store", value=url, fix=str(error)[:120]) from None
    return fs, str(root).rstrip("/")


def _told(error: Exception) -> bool:
    """Whether an error says what is the case, and is no failure."""
    return isinstance(error, FileExistsError | UserError)


def _for_good(error: BaseException | None) -> bool:
    """Whether an error would come again, however often it is tried."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # A bucket that there is not, no right to it, a file system that only reads.
    refused = (FileNotFoundError, PermissionError, NotImplementedError, IsADirectoryError)
    return isinstance(error, refused) or "Credential" in type(error).__name__


def _found(row: dict[str, Any]) -> Found:
    named = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created")
    size = int(row.get("size") or 0)
    # The first of them: times are told to the second by one call and to the microsecond by another.
    return Found(size, f"{next((row[n] for n in named if row.get(n)), '')} {size}")
