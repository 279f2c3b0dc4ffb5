"""What the machine has that a plan runs on."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from epigone.processes import memory

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
    ram = int(min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), memory().all))
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


def gpu_names(count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each of the GPUs that this process may see."""
    seen = os.environ.get(_VISIBLE)
    return [str(n) for n in range(count)] if seen is None else _listed(seen)[:count]


def _listed(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]
