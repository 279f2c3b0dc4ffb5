"""A filter of system calls (Linux seccomp, classic BPF) for what no limit of resources counts."""

from __future__ import annotations

import platform
import struct

from epigone.errors import SandboxError

# Memory beside a process's address space and the sandbox's /tmp: files in memory, segments and
# queues that outlive who made them, and rings that the kernel fills. Numbers from the kernel's
# tables, arch/x86/entry/syscalls/syscall_64.tbl and scripts/syscall.tbl.
_REFUSED = {
    "x86_64": (
        0xC000003E,
        {"memfd_create": 319, "memfd_secret": 447, "shmget": 29, "msgget": 68, "semget": 64,
         "io_uring_setup": 425},
    ),
    "aarch64": (
        0xC00000B7,
        {"memfd_create": 279, "memfd_secret": 447, "shmget": 194, "msgget": 186, "semget": 190,
         "io_uring_setup": 425},
    ),
}  # fmt: skip
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_ALLOW, _KILL, _NOT_PERMITTED = 0x7FFF0000, 0x80000000, 0x00050001
# Where the numbers of x32 begin, a second table of the same calls.
_X32 = 0x40000000


def program() -> bytes:
    """The filter for bubblewrap's --seccomp; SandboxError where the numbers are not known."""
    machine = platform.machine()
    if machine not in _REFUSED:
        raise SandboxError(
            "no sandbox for model-written code: this machine's system calls are not known",
            value=machine, fix="a machine of " + " or ".join(_REFUSED),
        )  # fmt: skip
    architecture, calls = _REFUSED[machine]
    numbers = sorted(calls.values())
    # Jumps count the instructions to skip: to the refusal, which stands last.
    end = len(numbers) + 1
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        # Calls of another table, as of 32-bit programs, would slip through.
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, end, 0, _X32),
        *((_EQUAL, end - 1 - i, 0, number) for i, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOT_PERMITTED),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
