"""The lm-eval tasks of a benchmark: Epigone's own, lm-eval's by name, or a folder's."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from epigone.errors import BenchmarkError, UnknownName, UserError
from epigone.evaluation import catalogue
from epigone.files import cache_root
from epigone.models.in_use import use
from epigone.models.references import locate_data
from epigone.study.specs import BenchmarkSpec, ItemsSpec

# What runs a text as Python: sympy's parser of expressions evaluates them.
_RUNS = re.compile(r"\b(?:parse_expr|sympify)\b|(?<![\w.])(?:eval|exec)\(")


def load_parts(spec: ItemsSpec, *, chat: bool = False) -> dict[str, Any]:
    """The leaf tasks of a benchmark by name, each ready to be asked; in `chat`, programs whole.

    Raises BenchmarkError for data that are missing or of another layout, and for tasks that run
    code outside of the sandbox or ask about images; UnknownName for a task that is not there.
    """
    if spec.suite is None and spec.task not in catalogue.known_tasks():
        raise UnknownName("benchmark", spec.task, catalogue.known_tasks())
    with offline(not _hub(spec)), quiet():
        preset = spec.suite is None and spec.task in catalogue.PRESETS
        parts = _preset(spec, chat) if preset else _listed(spec)
        for name, part in parts.items():
            if getattr(part, "UNSAFE_CODE", False) or (not preset and _runs_text(part)):
                raise BenchmarkError(
                    "lm-eval would run model-written code of this task as you", value=name,
                    fix="humaneval runs it in a sandbox",
                )  # fmt: skip
            if getattr(part, "MULTIMODAL", False):
                raise BenchmarkError("a task that asks about images or sounds", value=name)
            part.set_fewshot_seed(seed=0)
            if isinstance(spec, BenchmarkSpec) and spec.shots is not None:
                if preset:
                    _refuse_shots(part, spec)
                part.set_config(key="num_fewshot", value=spec.shots)
            elif part.get_config("num_fewshot") is None:
                part.set_config(key="num_fewshot", value=0)
    return parts


def _runs_text(part: Any) -> bool:
    """Whether a task's scorers, or what lies beside them, hand text to Python (sympy does, too)."""
    config = part.config
    folders = set(_written_in([config.process_results, config.metric_list, config.filter_list]))
    folders |= set(_written_in([value for value in vars(type(part)).values() if callable(value)]))
    return any(
        _RUNS.search(file.read_text("utf-8", "replace"))
        for folder in folders
        # What comes with lm-eval for all tasks.
        if folder.parts[-2:] not in (("lm_eval", "api"), ("lm_eval", "filters"))
        for file in folder.glob("*.py")
    )


def _written_in(told: Any) -> Iterator[Path]:
    """The folders of the functions in a task's settings, however deep they stand."""
    if isinstance(told, functools.partial):
        yield from _written_in([told.func, told.args, told.keywords])
    elif isinstance(told, Mapping):
        yield from (folder for value in told.values() for folder in _written_in(value))
    elif isinstance(told, list | tuple):
        yield from (folder for value in told for folder in _written_in(value))
    elif (code := getattr(told, "__code__", None)) is not None:
        yield Path(code.co_filename).parent


def _refuse_shots(part: Any, spec: BenchmarkSpec) -> None:
    # Without examples of its own a task would take them from what is asked.
    there = len(part.dataset["dev"]) if "dev" in part.dataset else 0
    if spec.shots is not None and spec.shots > there:
        raise BenchmarkError(
            f"{spec.task} has {there} examples to show", value=spec.shots, fix="fewer shots"
        )


def item_ids(part: Any, name: str, *, own: bool) -> list[str]:
    """A stable name for each of a task's documents: a hash of its content, or its `own` id."""
    seen: Counter[str] = Counter()
    found = []
    for doc in part.eval_docs:
        told = doc["id"] if own else f"{name}-{_hash(doc)}"
        seen[told] += 1
        found.append(told if seen[told] == 1 else f"{told}-{seen[told]}")
    return found


def _hash(doc: Mapping[str, Any]) -> str:
    text = json.dumps(doc, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _preset(spec: ItemsSpec, chat: bool) -> dict[str, Any]:
    from epigone.evaluation.presets import PRESETS

    path = None
    if spec.data is not None:
        path = locate_data(spec.data.ref, fingerprint=spec.data.fingerprint)
    settings: dict[str, Any] = {}
    if spec.task == "humaneval" and isinstance(spec, BenchmarkSpec):
        settings["chat"] = chat
        if spec.temperature:
            settings["samples"] = spec.samples
            settings["sampling"] = {"temperature": spec.temperature, "top_p": spec.top_p}
    return PRESETS[spec.task](path, **settings)


def _listed(spec: ItemsSpec) -> dict[str, Any]:
    """What lm-eval's index has of a name: a task, or all tasks of a group or tag."""
    if spec.suite is None:
        return _indexed(spec.task, [catalogue.TASKS])
    if spec.suite.ref:
        return _indexed(
            spec.task, [locate_data(spec.suite.ref, fingerprint=spec.suite.fingerprint)]
        )
    try:
        return _indexed(spec.task, catalogue.lm_eval_folders(spec.task))
    except BenchmarkError as error:
        # A group may name tasks of other folders.
        if error.__cause__ is not None and not isinstance(error.__cause__, KeyError):
            raise
        return _indexed(spec.task, None)


def _indexed(task: str, folders: Sequence[Path] | None) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(
        include_path=None if folders is None else [str(f) for f in folders],
        include_defaults=folders is None,
    )
    # lm-eval drops a task file that it cannot read, and says so only at debug level.
    if task not in manager.all_tasks:
        raise BenchmarkError(
            "lm-eval cannot read a task of this name", value=task,
            fix=f"readable: {', '.join(manager.all_tasks)[:200] or 'none'}",
        )  # fmt: skip
    try:
        parts: dict[str, Any] = manager.load([task])["tasks"]
    except UserError:  # of the task itself, which says what to do
        raise
    except Exception as error:  # of a dataset, a template, or a function of the task
        why = (str(error).splitlines() or [""])[0][:200]
        raise BenchmarkError(
            "lm-eval cannot load a benchmark", value=task, fix=f"{type(error).__name__}: {why}"
        ) from error
    return parts


def _hub(spec: ItemsSpec) -> bool:
    """Whether documents may have to be fetched from a hub."""
    return spec.suite is not None or (spec.task in catalogue.PRESETS and spec.data is None)


@contextmanager
def offline(wanted: bool = True) -> Iterator[None]:
    """Nothing may ask a hub because a cache is missing, where everything lies in files."""
    import datasets.config

    names = {"HF_DATASETS_CACHE": str(_writable(cache_root() / "datasets"))} if wanted else {}
    if wanted:
        names |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in names}
    asked_for = any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    )
    os.environ.update(names)
    # datasets reads the environment once, when it is first imported.
    frozen = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = wanted or asked_for
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = frozen
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    use(folder)
    return folder


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing of what lm-eval logs and draws: our own progress is on the same terminal."""
    import lm_eval.api.task

    bar, lm_eval.api.task.tqdm = lm_eval.api.task.tqdm, lambda rows, **_: rows
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm = bar


@contextmanager
def compiled_once() -> Iterator[None]:
    """A template is compiled once, which lm-eval does for each document and each example."""
    from lm_eval.utils import env

    vars(env)["from_string"] = functools.lru_cache(maxsize=1024)(env.from_string)
    try:
        yield
    finally:
        del vars(env)["from_string"]
