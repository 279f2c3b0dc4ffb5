"""The model hub, and which files make a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from epigone.errors import ModelError, UserError
from epigone.models import catalogue
from epigone.schema import Progress

HUB_TIMEOUT = 10.0
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CONVERT_FIX = "save the model as safetensors with save_pretrained, and name that folder"
# What decides how a model folder behaves; everything else in it (a README) may change freely.
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
)
DATA_FILES = tuple(
    f"*.{kind}{packed}"
    for kind in ("json", "jsonl", "ndjson", "csv", "tsv", "parquet", "arrow")
    for packed in ("", ".gz", ".xz", ".zst")
)
# consolidated*: a second copy of the same weights that some repositories hold.
_HUB_IGNORED = ("*.bin", "*.pt", "*.pth", "consolidated*", "*/*.safetensors", "*/*.json")


def pickle_refused(name: str) -> ModelError:
    """The error for a model in a pickle format."""
    return ModelError(
        "pickle files can run code when they are opened and are refused",
        value=name,
        fix=_CONVERT_FIX,
    )


def require_model(where: object, names: Iterable[str]) -> None:
    """Raise ModelError unless files of these names, relative to a folder, make a model."""
    top = [name for name in names if "/" not in name]
    if not any(name.endswith(".safetensors") for name in top):
        pickles = sorted(name for name in top if name.lower().endswith(PICKLES))
        if pickles:
            raise pickle_refused(f"{where} has only {pickles[0]}")
        raise ModelError(
            "a model folder needs *.safetensors, config.json and a tokenizer; it has no weights",
            value=str(where),
            fix="name the model's folder, or a file for a corpus",
        )
    if "config.json" not in top:
        raise ModelError("a model needs a config.json", value=str(where), fix=_CONVERT_FIX)


def is_cached(repo: str, commit: str) -> bool:
    """Whether the hub's cache has a model's configuration at a commit."""
    from huggingface_hub import constants, try_to_load_from_cache

    cache = constants.HF_HUB_CACHE
    return isinstance(try_to_load_from_cache(repo, "config.json", cache, commit), str)


def commit_of(repo: str, revision: str, *, data: bool = False) -> str:
    """The commit that a branch or tag (empty: the default branch) stands for, asked of the hub.

    `data` asks for a dataset. Where the hub's own offline mode is on, its cache answers.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    kind = "dataset" if data else "model"
    try:
        if constants.HF_HUB_OFFLINE:
            # The cache names a snapshot's folder by its commit.
            cached = snapshot_download(
                repo,
                repo_type=kind,
                revision=revision or None,
                allow_patterns=list(DATA_FILES) if data else ["config.json"],
                local_files_only=True,
            )
            return Path(cached).name
        info = HfApi().repo_info(
            repo, repo_type=kind, revision=revision or None, timeout=HUB_TIMEOUT
        )
    except Exception as error:
        raise _hub_error(_written(repo, revision), error, kind) from error
    siblings = getattr(info, "siblings", None)
    if siblings and not data:
        require_model(_written(repo, revision), [file.rfilename for file in siblings])
    return str(info.sha)


def _written(repo: str, revision: str) -> str:
    return f"hf:{repo}" + (f"@{revision}" if revision else "")


def snapshot(repo: str, revision: str, progress: Progress, *, data: bool = False) -> Path:
    """The folder of a model or dataset in the hub's cache, downloaded where it is not there yet.

    Only configuration, tokenizer and safetensors, or files of data; never a pickle, never code.
    """
    from huggingface_hub import snapshot_download
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    where = _written(repo, revision)

    class Bar(tqdm):  # type: ignore[misc]
        """Passes the hub's count of bytes on, and draws nothing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self.bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if self.bytes and self.total:
                progress(min(self.n, self.total), self.total, f"{where}: downloading")
            return None

    progress(0, 1, f"{where}: asking the hub")
    try:
        folder = snapshot_download(
            repo,
            repo_type="dataset" if data else "model",
            revision=revision or None,
            allow_patterns=list(DATA_FILES if data else MODEL_FILES),
            ignore_patterns=None if data else list(_HUB_IGNORED),
            tqdm_class=Bar,
        )
    except Exception as error:
        raise _hub_error(where, error, "dataset" if data else "model") from error
    if data:
        return Path(folder)
    require_model(where, [path.name for path in Path(folder).iterdir()])
    return Path(folder)


def _hub_error(where: str, error: Exception, kind: str = "model") -> UserError:
    from huggingface_hub import errors as hub

    local = f"download the {kind} yourself and name its folder"
    cause: BaseException | None = error
    # A download hides the hub's answer behind "not in the cache".
    while cause is not None and not isinstance(cause, hub.HfHubHTTPError):
        cause = cause.__cause__
    if cause is not None:
        return _answered(where, cause, local, kind)
    network = type(error).__module__.startswith(("http", "requests"))
    # The library's own "not in the cache" and "offline" are OSErrors without a number.
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return catalogue.disk_error(where, error)
    if network or isinstance(error, OSError):
        return ModelError(
            "the model hub cannot be reached",
            value=where,
            fix=f"check the network; give hf:org/name@<commit> if it is in the cache; or {local}",
        )
    return ModelError(
        f"the {kind} could not be had from the hub",
        value=f"{where}: {type(error).__name__}: {error}",
        fix=local,
    )


def _answered(where: str, error: Any, local: str, kind: str) -> ModelError:
    from huggingface_hub import errors as hub

    if isinstance(error, hub.GatedRepoError):
        return ModelError(
            f"the {kind} is gated",
            value=where,
            fix=f"accept its terms and `hf auth login`, or {local}",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return ModelError(f"the {kind} has no such revision", value=where, fix="check the revision")
    status = error.response.status_code
    if isinstance(error, hub.RepositoryNotFoundError) or status in (401, 404):
        return ModelError(
            f"no such {kind} on the hub, or it is private",
            value=where,
            fix="check the name, or `hf auth login`",
        )
    return ModelError(f"the model hub answered {status}", value=where, fix="try again later")
