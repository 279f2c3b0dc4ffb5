from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from epigone.corpus.compressed import Reader

TEXT = bytes(range(256)) * 4000
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".json": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(path: Path) -> bytes:
    reader = Reader(path)
    out = b"".join(iter(lambda: reader.read(1000), b""))
    reader.close()
    return out


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_was_packed_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(PACKERS[suffix](TEXT))
    assert read(path) == TEXT


@pytest.mark.parametrize("suffix", [s for s in PACKERS if s != ".json"])
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_broken_file_gives_a_prefix_and_no_crash(
    suffix: str, damage: str, tmp_path: Path
) -> None:
    import random

    noise = random.Random(0).randbytes(200_000)
    packed = PACKERS[suffix](noise)
    half = packed[: len(packed) // 2]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(half if damage == "cut" else half + b"\x00" * 100 + packed[len(half) + 100 :])
    found = read(path)
    if damage == "cut":
        assert noise.startswith(found)
        assert len(found) < len(noise)
