"""Ledgers of a store at a URL: what was paid for, on every machine and never twice.

A machine's ledger goes there in pieces that are never written again. What is missing on one side
is what the other has more often, line by line, so that nothing depends on where a kill came.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
from collections import Counter
from pathlib import Path

from epigone.files import fsync_dir
from epigone.runs.objects import Objects, Torn

_PIECE = re.compile(r"([a-z0-9.-]+)/([0-9]{12}-[0-9a-f]{16})\.jsonl")


class Segments:
    """The ledgers in a folder of this machine, and their pieces at a URL."""

    def __init__(self, objects: Objects, folder: Path) -> None:
        """Nothing is asked yet."""
        self._objects, self._folder = objects, folder
        # How often each line stands at the URL, and which pieces were looked at.
        self._there: dict[str, Counter[bytes]] = {}
        self._seen: set[str] = set()
        # How much of each file is there, and how often each line stands in so much of it.
        self._pushed: dict[str, tuple[int, Counter[bytes]]] = {}
        self._pusher = -1
        self._turn = threading.Lock()

    def pull(self) -> None:
        """Have every line here that is there."""
        with self._turn:
            for ledger, lines in self._learn().items():
                self._add(self._folder / f"{ledger}.jsonl", lines)

    def push(self) -> None:
        """Have every line there that is here; while another process of this machine does, it does.

        A line that is being written goes the next time.
        """
        with self._turn:
            if not self._folder.is_dir() or not self._alone():
                return
            files = sorted(self._folder.glob("*.jsonl"))
            grown = [f for f in files if f.stat().st_size != self._pushed.get(f.stem, (0,))[0]]
            if grown:
                self._learn()  # what others put there may have come into these files
            for file in grown:
                self._push(file)

    def close(self) -> None:
        """Let another process of this machine push."""
        with self._turn:
            if self._pusher >= 0:
                os.close(self._pusher)
                self._pusher = -1

    def _push(self, file: Path) -> None:
        begin, here = self._pushed.get(file.stem, (0, Counter()))
        with open(file, "rb") as opened:
            if os.fstat(opened.fileno()).st_size < begin:
                begin, here = 0, Counter()  # a full disk: what did not fit was taken back
            opened.seek(begin)
            data = opened.read()
        new = _lines(data)
        here.update(map(_key, new))
        there = self._there.setdefault(file.stem, Counter())
        more = {key: here[key] - there[key] for key in map(_key, new)}
        left: list[bytes] = []
        # From the last to the first: of equal lines the newest are those that are not there.
        for line in reversed(new):
            if more[_key(line)] > 0:
                more[_key(line)] -= 1
                left.append(line)
        end = begin + sum(map(len, new))
        if left:
            piece = b"".join(reversed(left))
            name = f"{file.stem}/{end:012d}-{_key(piece).hex()}.jsonl"
            self._objects.write(name, piece)
            self._seen.add(name)
            there.update(map(_key, left))
        self._pushed[file.stem] = end, here

    def _alone(self) -> bool:
        """Whether this process is the one of this machine that pushes."""
        if self._pusher >= 0:
            return True
        descriptor = os.open(self._folder / ".pushing", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another has it; without locks nobody can ask, and nothing is new
            os.close(descriptor)
            return False
        self._pusher = descriptor
        return True

    def _learn(self) -> dict[str, list[bytes]]:
        """Read the pieces that were not read yet; their lines by ledger, in their order."""
        found: dict[str, list[bytes]] = {}
        for name in sorted(self._objects.find()):
            match = _PIECE.fullmatch(name)
            if match is None or name in self._seen:
                continue

            def take(data: bytes, named: str = match[2]) -> bytes:
                if _key(data).hex() != named.rpartition("-")[2]:
                    raise Torn("it is not what was put")
                return data

            data = self._objects.read(name, take) or b""
            self._seen.add(name)
            self._there.setdefault(match[1], Counter()).update(map(_key, _lines(data)))
            found.setdefault(match[1], []).extend(_lines(data))
        return found

    def _add(self, file: Path, lines: list[bytes]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            try:
                # As whoever asks: a process of this machine that does so has it.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # held, or a file system without locks, on which nobody can ask
                return
            with open(file, "rb") as opened:
                own = opened.read()
            # What a kill cut off was never counted.
            os.ftruncate(descriptor, own.rfind(b"\n") + 1)
            here = Counter(map(_key, _lines(own)))
            missing = []
            for line in lines:
                key = _key(line)
                if here[key] > 0:
                    here[key] -= 1
                else:
                    missing.append(line)
            os.lseek(descriptor, 0, os.SEEK_END)
            left = memoryview(b"".join(missing))
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fsync_dir(self._folder)


def _key(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()[:8]


def _lines(data: bytes) -> list[bytes]:
    """The whole lines; what comes after the last of them is being written."""
    return [line + b"\n" for line in data.split(b"\n")[:-1]]
