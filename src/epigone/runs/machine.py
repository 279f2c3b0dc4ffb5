"""What the machine has that a plan runs on."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Here:
    """Bytes of memory, and the name and bytes of each GPU."""

    ram: int
    gpus: tuple[tuple[str, int], ...] = ()

    @property
    def room(self) -> int:
        """Bytes of the memory in which a model would lie."""
        return self.gpus[0][1] if self.gpus else self.ram


def here() -> Here:
    """This machine; GPUs are those that NVIDIA's driver tells of and this process may see."""
    ram = min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), allowed())
    if not Path("/dev/nvidiactl").exists():
        return Here(ram)
    asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        gpus = gpus_told(told)
        seen = os.environ.get(_VISIBLE)
        return Here(ram, gpus if seen is None else gpus[: len(_listed(seen))])
    except (OSError, ValueError, subprocess.SubprocessError):
        return Here(ram)


def gpus_told(text: str) -> tuple[tuple[str, int], ...]:
    """GPUs in what nvidia-smi prints: a name and MiB a line."""
    rows = [line.rpartition(",") for line in text.splitlines() if line.strip()]
    return tuple((name.strip(), int(mib) << 20) for name, _, mib in rows)


def allowed() -> int:
    """Bytes that a container's limit lets this process have; a very large number without one."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return int(Path(file).read_text())
        except (OSError, ValueError):
            continue  # not there, or "max"
    return 1 << 62


def gpu_names(count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each of the GPUs that this process may see."""
    seen = os.environ.get(_VISIBLE)
    return [str(n) for n in range(count)] if seen is None else _listed(seen)[:count]


def _listed(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]
