"""What the doctor looks at on the machine itself."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from epigone.cli.cache import size
from epigone.cli.checks import Check, Probe, State, refused
from epigone.errors import SandboxError
from epigone.evaluation import sandbox
from epigone.files import cache_root
from epigone.processes import cores, memory
from epigone.runs.objects import is_url

SECTION, EXTRAS = "Machine", "Extras"
SECONDS = 20.0
_MEMORY, _DISK, _DISK_LEAST = 8e9, 5e9, 1e9
_TORCH = """
import json, torch
found = range(torch.cuda.device_count())
gpus = [torch.cuda.get_device_properties(i) for i in found]
told = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
told["gpus"] = [[gpu.name, gpu.total_memory] for gpu in gpus]
told["mps"] = torch.backends.mps.is_available()
print(json.dumps(told))
"""
_GET_CUDA = "install torch's build for your GPU: https://pytorch.org/get-started/locally"
GIVES = {
    "cypher": "Cypher queries are run and checked, as studies/text2cypher.yaml asks",
    "feedback": "students learn from a teacher's judgements, with TRL",
    "mturk": "people of Mechanical Turk rate",
    "pdf": "reports as Markdown and PDF",
    "postgres": "rating databases in PostgreSQL; else SQLite",
    "raters": "people compare answers on a site",
    "ray": "studies on more than one machine",
    "sandbox": "bubblewrap where the system has none, for HumanEval",
    "serve": "a local teacher from a GGUF file",
    "toxicity": "the scorer of toxicity that needs no network",
    "vllm": "faster generation on a GPU",
    "zstd": "data in .zst files",
}


def probes(runs: str) -> list[Probe]:
    """What to find out about the machine; `runs` is where steps will lie, as folder or URL."""
    found: list[tuple[str, Callable[[], Sequence[Check]]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("torch", _accelerators),
        ("memory", _memory),
        (
            "disk of cache",
            lambda: [_disk("disk of cache", cache_root(), "set EPIGONE_HOME to another folder")],
        ),
        ("sandbox", _sandbox),
        ("programs", _programs),
        ("extras", _extras),
    ]
    if not is_url(runs):
        other = "name another folder with --runs"
        disk = ("disk of runs", lambda: [_disk("disk of runs", Path(runs), other)])
        found.insert(4, disk)
    fix = "run epigone doctor again when the machine has less to do"
    return [
        Probe(find, SECONDS, Check(SECTION, name, "note", f"no answer in {SECONDS:.0f} s", fix))
        for name, find in found
    ]


def _python() -> list[Check]:
    found = f"{platform.python_version()} at {sys.executable}, {platform.system()}"
    found = f"{found} {platform.machine()}"
    if sys.platform == "win32":
        fix = "use WSL: https://learn.microsoft.com/windows/wsl"
        return [Check(SECTION, "Python", "problem", found, fix)]
    return [Check(SECTION, "Python", "ok", found)]


def _packages() -> list[Check]:
    try:
        wanted = _requirements("")
        version = metadata.version("epigone")
    except metadata.PackageNotFoundError:
        fix = "pip install . in its folder"
        return [Check(SECTION, "packages", "note", "Epigone runs, but is not installed", fix)]
    wrong = [told for name, specifier in wanted if (told := _wrong(name, specifier))]
    if wrong:
        fix = "pip install --upgrade epigone"
        return [Check(SECTION, "packages", "problem", "; ".join(wrong), fix)]
    return [Check(SECTION, "packages", "ok", f"epigone {version} and all {len(wanted)} it needs")]


def _requirements(extra: str) -> list[tuple[str, Any]]:
    """Names and versions of the packages that Epigone needs here, by itself or for an extra."""
    from packaging.requirements import Requirement

    found = [Requirement(text) for text in metadata.requires("epigone") or ()]
    return [
        (r.name, r.specifier)
        for r in found
        if (not extra and r.marker is None)
        or (r.marker is not None and "extra" in str(r.marker) and extra
            and r.marker.evaluate({"extra": extra}))
    ]  # fmt: skip


def _wrong(name: str, specifier: Any) -> str:
    """What is wrong with an installed package, empty where nothing is."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    fits = specifier.contains(version, prereleases=True)
    return "" if fits else f"{name} {version} is not {specifier}"


def _accelerators() -> list[Check]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _TORCH],
            capture_output=True, text=True, timeout=SECONDS - 1, check=False,
        )  # fmt: skip
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        found = f"torch was not imported in {SECONDS - 1:.0f} s"
        return [Check(SECTION, "torch", "note", found, "try again: the first time is the slowest")]
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        fix = "pip install --force-reinstall torch"
        return [Check(SECTION, "torch", "problem", f"cannot be imported: {last}", fix)]
    build = f"CUDA {told['cuda']}" if told["cuda"] else f"ROCm {told['hip']}" if told["hip"] else ""
    found = f"{told['version']}, {build or 'CPU'} build, {cores()} threads"
    return [Check(SECTION, "torch", "ok", found), *gpus(told, _driver(), done.stderr)]


def gpus(torch: dict[str, Any], driver: Sequence[Sequence[str]] | None, said: str) -> list[Check]:
    """Each GPU: what torch can use beside what the driver tells, and why they differ.

    `driver` has name, MiB and the driver's version of each, None where it does not answer.
    """
    if torch["gpus"]:
        versions = {name: version for name, _, version in driver or ()}
        return [
            Check(SECTION, f"GPU {number}", "ok", f"{name}, {size(memory)}"
                  + (f", driver {versions[name]}" if name in versions else ""))
            for number, (name, memory) in enumerate(torch["gpus"])
        ]  # fmt: skip
    if torch["mps"]:
        return [Check(SECTION, "GPU", "ok", "Apple's, through Metal")]
    if driver is None:
        found = "there is an NVIDIA device, but its driver does not answer"
        return [Check(SECTION, "GPU", "note", found, "nvidia-smi has to work first")]
    if not driver:
        return [Check(SECTION, "GPU", "ok", "none: models run on the CPU")]
    why = (said.strip().splitlines() or [""])[-1] if torch["cuda"] else "it is a build for the CPU"
    fix = "update the GPU's driver, or use an older CUDA build" if torch["cuda"] else _GET_CUDA
    return [
        Check(SECTION, f"GPU {number}", "note", f"{name}, {mib} MiB, driver {version}: torch "
              f"cannot use it, {why or 'and does not say why'}", fix)
        for number, (name, mib, version) in enumerate(driver)
    ]  # fmt: skip


def _driver() -> list[list[str]] | None:
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version",
             "--format=csv,noheader,nounits"]  # fmt: skip
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None if Path("/dev/nvidiactl").exists() else []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return [row for row in rows if len(row) == 3]


def _memory() -> list[Check]:
    there = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    found = f"{size(there)} in all"
    allowed = memory()
    if allowed.all < there:
        there, found = allowed.all, f"{size(allowed.all)} of {size(there)} are for this process"
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024.0 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))
        found += f", {size(min(free, allowed.free))} free"
    if there < _MEMORY:
        fix = f"the demo needs up to {size(_MEMORY)}; epigone plan tells what a study needs"
        return [Check(SECTION, "memory", "note", found, fix)]
    return [Check(SECTION, "memory", "ok", found)]


def _disk(name: str, folder: Path, other: str) -> Check:
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    full = False
    try:
        # Permissions alone do not tell: root has them on disks that only read, and in /proc.
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full:
            return Check(SECTION, name, "problem", f"{there} cannot be written to", other)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check(SECTION, name, "problem", f"{folder}: {error.strerror}", other)
    found = f"{size(free)} free for {folder.absolute()}"
    if full or free < _DISK:
        state: State = "note" if free >= _DISK_LEAST and not full else "problem"
        return Check(SECTION, name, state, found, f"free some space, or {other}")
    return Check(SECTION, name, "ok", found)


def _sandbox() -> list[Check]:
    try:
        sandbox.probe()
    except SandboxError as error:
        found = refused(SECTION, "sandbox", error, "note")
        told = f"{found.found}; only code that models write needs it (HumanEval)"
        return [Check(SECTION, "sandbox", "note", told, found.fix, "sandbox")]
    return [Check(SECTION, "sandbox", "ok", "bubblewrap isolates a program")]


def _programs() -> list[Check]:
    browser = _first("chromium", "chromium-browser", "google-chrome")
    postgres = _first("psql", "pg_ctl")
    return [
        Check(SECTION, "browser", "ok" if browser else "note",
              f"{browser or 'no Chromium'}; only Epigone's own tests drive one",
              "install Chromium to run all of them, as apt install chromium"),
        Check(SECTION, "PostgreSQL", "ok" if postgres else "note",
              f"{postgres or 'not here'}; ratings are kept in SQLite unless a URL is named",
              "install it only to keep ratings in one of this machine, as apt install postgresql"),
    ]  # fmt: skip


def _first(*names: str) -> str:
    return next((found for name in names if (found := shutil.which(name))), "")


def _extras() -> list[Check]:
    try:
        return [_extra(name, gives) for name, gives in GIVES.items()]
    except metadata.PackageNotFoundError:
        return []  # told beside the packages


def _extra(name: str, gives: str) -> Check:
    wrong = [told for package, wanted in _requirements(name) if (told := _wrong(package, wanted))]
    if not wrong:
        return Check(EXTRAS, name, "ok", f"installed: {gives}")
    if name == "sandbox" and shutil.which("bwrap"):
        return Check(EXTRAS, name, "ok", "not installed; the system has bubblewrap")
    fix = f"pip install 'epigone[{name}]'"
    absent = all(told.endswith("is missing") for told in wrong)
    why = "not installed" if absent and len(wrong) == 1 else "; ".join(wrong)
    return Check(EXTRAS, name, "note", f"{why}: {gives}", fix)
