"""Model and corpus references: what a name in a study file means, and where it lies."""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload
from urllib.parse import urlsplit

from epigone.errors import ModelError, UnknownName, UserError
from epigone.files import cache_root, canonical, sha256_file
from epigone.formats import read_cache, write_cache
from epigone.models import catalogue, hub, sizes
from epigone.models.hub import MODEL_FILES, PICKLES, pickle_refused, require_model
from epigone.models.in_use import use
from epigone.schema import Progress, silent
from epigone.study.cost import Shape

Kind = Literal["catalogue", "hf", "file", "folder", "gguf", "endpoint"]

# Raised whenever converting the same GGUF comes to give other weights or another tokenizer.
CONVERSION = 1

_HF = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference; `str()` gives a text that parses to the same anywhere.

    `value` is a catalogue name, a hub repository, an absolute path, or an endpoint's URL#model;
    `revision` is a hub branch, tag or commit.
    """

    kind: Kind
    value: str
    revision: str = ""

    def __str__(self) -> str:
        """The reference as it is written in a study file."""
        prefix = f"{self.kind}:" if self.kind in ("hf", "gguf", "endpoint") else ""
        return prefix + self.value + (f"@{self.revision}" if self.revision else "")


def parse(ref: str | Reference, base_dir: Path | None = None) -> Reference:
    """Understand a reference; relative paths start at `base_dir`, else at the current folder.

    A catalogue name goes before a file of the same name (`./name` is the file). Raises UserError
    for what is malformed or does not exist, and for pickle files, which are never opened.
    """
    if isinstance(ref, Reference):
        return ref
    scheme, _, rest = ref.partition(":")
    if scheme == "hf":
        found = _HF.fullmatch(rest)
        if found is None:
            raise UserError(
                "not a hub reference", value=ref, fix="write hf:org/name or hf:org/name@revision"
            )
        return Reference("hf", found["repo"], found["revision"] or "")
    if scheme == "endpoint":
        return _endpoint(ref, rest)
    if scheme == "gguf":
        return Reference("gguf", str(_file(rest, base_dir)))
    if ref in catalogue.load():
        return Reference("catalogue", ref)
    return _local(ref, base_dir)


def local(ref: str, base_dir: Path | None = None) -> Path | None:
    """The path that a reference names, though nothing may lie there; None for any other."""
    scheme, colon, rest = ref.partition(":")
    if colon and scheme == "gguf":
        return _absolute(rest, base_dir)
    if (colon and scheme in ("hf", "endpoint")) or ref in catalogue.load():
        return None
    return _absolute(ref, base_dir)


def absent(ref: str, base_dir: Path | None = None) -> Path | None:
    """The path that a reference names and where nothing lies; None for any other reference."""
    scheme, colon, _ = ref.partition(":")
    if (colon and scheme in ("hf", "endpoint", "gguf")) or ref in catalogue.load():
        return None
    path = _absolute(ref, base_dir)
    return path if _is_path(ref) and not path.exists() else None


def _is_path(ref: str) -> bool:
    return "/" in ref or ref.startswith(("~", "."))


def _endpoint(ref: str, rest: str) -> Reference:
    url, _, model = rest.partition("#")
    fix = "write endpoint:https://host/v1#model"
    # What stands before it may be a password, which nobody is told.
    shown = ref.rpartition("@")[2]
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        why = "" if "@" in ref else f" ({error})"
        raise UserError(f"not an endpoint's URL{why}", value=shown, fix=fix) from None
    if "@" in parts.netloc:
        # The reference ends up in files that are shared.
        raise UserError(
            "an endpoint's URL holds a password",
            value=host,
            fix="keep the key in an environment variable",
        )
    if parts.scheme not in ("http", "https") or not host or not model:
        raise UserError("not an endpoint", value=shown, fix=fix)
    if parts.query or any(not label for label in host.rstrip(".").split(".")):
        raise UserError("not an endpoint's URL", value=host, fix=fix)
    return Reference("endpoint", f"{url}#{model}")


def _absolute(text: str, base_dir: Path | None) -> Path:
    return Path(os.path.abspath((base_dir or Path.cwd()) / Path(text).expanduser()))


def _file(text: str, base_dir: Path | None) -> Path:
    path = _absolute(text, base_dir)
    if not path.is_file():
        raise UserError("no such file", value=str(path), fix="check the path")
    return path


def _local(ref: str, base_dir: Path | None) -> Reference:
    path = _absolute(ref, base_dir)
    if path.is_dir():
        return Reference("folder", str(path))
    if path.is_file():
        if path.suffix.lower() in PICKLES:
            raise pickle_refused(path.name)
        if path.suffix == ".safetensors":
            raise ModelError(
                "a model is a folder with config, weights and tokenizer",
                value=ref,
                fix="name the folder that the file lies in",
            )
        return Reference("gguf" if path.suffix == ".gguf" else "file", str(path))
    if _is_path(ref):
        on_hub = f", or write hf:{ref} for a model of the hub" if _HF.fullmatch(ref) else ""
        raise UserError("no such file or folder", value=ref, fix=f"check the path{on_hub}")
    raise UnknownName("model, corpus or file", ref, catalogue.load())


@overload
def fingerprint(ref: str | Reference, *, offline: Literal[False] = False) -> str: ...
@overload
def fingerprint(ref: str | Reference, *, offline: bool) -> str | None: ...
def fingerprint(ref: str | Reference, *, offline: bool = False) -> str | None:
    """What a reference adds to a step's identity; nothing is downloaded.

    Equal content gives equal fingerprints, wherever it lies. Only a hub reference needs the
    network: for one without a commit, the commit is asked for, or, with `offline`, None is
    returned; for one with a commit that is not in the hub's cache, whether it exists.
    """
    reference = parse(ref)
    match reference.kind:
        case "catalogue":
            entry = catalogue.find(reference.value)
            return _content(entry.sha256, converted=entry.kind == "model")
        case "file" | "gguf":
            return _content(_hash(Path(reference.value)), converted=reference.kind == "gguf")
        case "folder":
            return _content(_folder_hash(Path(reference.value)), converted=False)
        case "endpoint":
            return str(reference)
        case "hf":
            repo, revision = reference.value, reference.revision
            pinned = _COMMIT.fullmatch(revision) is not None
            if offline or (pinned and hub.is_cached(repo, revision)):
                return str(reference) if pinned else None
            return f"hf:{repo}@{hub.commit_of(repo, revision)}"


def data_fingerprint(ref: str | Reference, *, offline: bool = False) -> str | None:
    """What a reference to data adds to a step's identity; nothing is downloaded.

    As `fingerprint`, but a folder is data, and a hub reference names a dataset.
    """
    reference = parse(ref)
    if reference.kind == "folder":
        return f"sha256:{_data_folder_hash(Path(reference.value))}"
    if reference.kind != "hf":
        return fingerprint(reference, offline=offline)
    pinned = _COMMIT.fullmatch(reference.revision) is not None
    if offline:
        return str(reference) if pinned else None
    commit = hub.commit_of(reference.value, reference.revision, data=True)
    return f"hf:{reference.value}@{commit}"


def locate_data(
    ref: str | Reference, progress: Progress = silent, *, fingerprint: str = ""
) -> Path:
    """A local file or folder of data, downloaded on the first call; see `locate`."""
    reference = parse(ref)
    if reference.kind == "hf":
        pinned = fingerprint.removeprefix(f"hf:{reference.value}@")
        revision = pinned if _COMMIT.fullmatch(pinned) else reference.revision
        return hub.snapshot(reference.value, revision, progress, data=True)
    if reference.kind != "folder":
        return locate(reference, progress, fingerprint=fingerprint)
    path = Path(reference.value)
    if fingerprint and fingerprint != f"sha256:{_data_folder_hash(path)}":
        raise UserError(
            "files have changed since the study was planned", value=str(path), fix="plan again"
        )
    return path


def _data_folder_hash(folder: Path) -> str:
    # What Python compiles of a folder's own code, when it is first run, is no data of it.
    every = (path for path in folder.rglob("*") if path.parent.name != "__pycache__")
    files = sorted(path for path in every if path.is_file())
    listed = {path.relative_to(folder).as_posix(): _hash(path) for path in files}
    return hashlib.sha256(canonical(listed).encode()).hexdigest()


def _content(sha256: str, *, converted: bool) -> str:
    # The weights that run are the conversion's work too.
    return f"sha256:{sha256}" + (f"+conversion-{CONVERSION}" if converted else "")


def _folder_hash(folder: Path) -> str:
    require_model(folder, _names(folder))
    files = {path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    listed = {path.relative_to(folder).as_posix(): _hash(path) for path in files}
    return hashlib.sha256(canonical(listed).encode()).hexdigest()


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def _hash(path: Path) -> str:
    """Hex sha256, remembered for as long as the file looks untouched."""
    memory = cache_root() / "fingerprints.json"
    before = path.stat()
    key = str(path.resolve())
    mark = [before.st_size, before.st_mtime_ns, before.st_ctime_ns, before.st_ino]
    known = read_cache(memory)
    entry = known.get(key)
    if isinstance(entry, list) and len(entry) == 2 and entry[0] == mark:
        return str(entry[1])
    digest = sha256_file(path)
    # A file written within the last moments could change again without its times showing it.
    settled = time.time_ns() - before.st_ctime_ns > 2_000_000_000
    if settled and path.stat().st_mtime_ns == before.st_mtime_ns and before.st_size > 1 << 20:
        # An unwritable cache costs time, not the study.
        with suppress(OSError):
            write_cache(memory, {**read_cache(memory), key: [mark, digest]})
    return digest


def locate(ref: str | Reference, progress: Progress = silent, *, fingerprint: str = "") -> Path:
    """A local path, ready to use: a model's folder in safetensors format, or a data file.

    Downloads and converts on the first call. With the `fingerprint` of an earlier moment exactly
    that content is meant: the same hub commit, and an error if local files have changed. Raises
    ModelError or FetchError.
    """
    reference = parse(ref)
    if reference.kind == "hf":
        pinned = fingerprint.removeprefix(f"hf:{reference.value}@")
        revision = pinned if _COMMIT.fullmatch(pinned) else reference.revision
        return hub.snapshot(reference.value, revision, progress)
    if reference.kind == "endpoint":
        raise ModelError("an endpoint has no files to train or measure", value=str(reference))
    if reference.kind == "catalogue":
        return _catalogued(catalogue.find(reference.value), progress)
    path = Path(reference.value)
    content = _hash(path) if reference.kind != "folder" else _folder_hash(path)
    known = _content(content, converted=reference.kind == "gguf")
    if fingerprint.startswith("sha256:") and fingerprint != known:
        raise UserError(
            "files have changed since the study was planned", value=str(path), fix="plan again"
        )
    return _converted(path, content, progress) if reference.kind == "gguf" else path


def here(ref: str | Reference) -> Path | None:
    """What `locate` and `locate_data` give where nothing has to be fetched or made, else None."""
    reference = parse(ref)
    if reference.kind == "catalogue":
        entry = catalogue.find(reference.value)
        path = _model_folder(entry.sha256) if entry.kind == "model" else entry.path
    elif reference.kind in ("file", "folder"):
        path = Path(reference.value)
    else:
        return None
    return path if path.exists() else None


def check_model(ref: str | Reference) -> None:
    """Raise ModelError, without the network, if a reference cannot be a model to run."""
    reference = parse(ref)
    entry = catalogue.find(reference.value) if reference.kind == "catalogue" else None
    if reference.kind in ("file", "endpoint") or (entry is not None and entry.kind != "model"):
        kind = entry.kind if entry is not None else reference.kind
        if reference.kind == "endpoint":
            raise ModelError(
                "an endpoint is not a model to run here", value=str(reference),
                fix="name a model with weights; epigone benchmark asks one, with -o DIR",
            )  # fmt: skip
        raise ModelError(f"this is a {kind}, not a model to run", value=str(reference))
    if reference.kind == "folder":
        require_model(reference.value, _names(Path(reference.value)))


def _catalogued(entry: catalogue.Entry, progress: Progress) -> Path:
    if entry.kind != "model":
        return catalogue.fetch(entry, progress)
    done = _model_folder(entry.sha256)
    use(done)
    if done.is_dir():
        return done
    return _converted(catalogue.fetch(entry, progress), entry.sha256, progress)


def _model_folder(sha256: str) -> Path:
    return cache_root() / "models" / f"{sha256}-{CONVERSION}"


def _converted(file: Path, sha256: str, progress: Progress) -> Path:
    out = _model_folder(sha256)
    use(out)
    if not out.is_dir():
        # Imports torch, which planning must not.
        from epigone.models.convert import convert_gguf

        lock = cache_root() / "locks" / f"{out.name}.lock"
        try:
            with catalogue.only_one(lock, file.name, progress):
                if not out.is_dir():
                    convert_gguf(file, out, progress)
        except OSError as error:
            raise catalogue.disk_error(file.name, error) from error
    return out


def parameters(ref: str | Reference) -> int | None:
    """How many weights a model has, where that is known without a download, else None."""
    return None if _gone(ref) else sizes.parameters(parse(ref))


def shape(ref: str | Reference) -> Shape | None:
    """What of a model decides its cost, where that is known without a download, else None."""
    return None if _gone(ref) else sizes.shape(parse(ref))


def _gone(ref: str | Reference) -> bool:
    """Whether a path is named at which nothing lies any more."""
    path = local(str(ref))
    return path is not None and not path.exists()
