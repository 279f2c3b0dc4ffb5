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
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
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


ROWS = b"".join(b'{"row": %d, "text": "%x"}\n' % (i, i * 7919**3) for i in range(4000))
PACKED = [s for s in PACKERS if s != ".json"]


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("name", ["x", "x.json", "x.GZ"])
def test_the_content_and_not_the_name_says_how_it_is_packed(
    suffix: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    packed = PACKERS[suffix](ROWS)
    path.write_bytes(packed + b"\0" * 700 + packed)
    reader = Reader(path)
    assert reader.read(10**9) == ROWS * 2
    assert not reader.fault


@pytest.mark.parametrize("suffix", PACKED)
def test_what_can_be_unpacked_of_a_broken_file_is_read_and_the_rest_told(
    suffix: str, tmp_path: Path
) -> None:
    packed = PACKERS[suffix](ROWS)
    middle = len(packed) // 2
    broken = {
        "cut": packed[:-3],
        "half": packed[:middle],
        "checksum": packed[:-7] + bytes([packed[-7] ^ 1]) + packed[-6:],
        "more": packed + b"garbage",
    }
    for damage, data in broken.items():
        path = tmp_path / f"{damage}{suffix}"
        path.write_bytes(data)
        reader = Reader(path)
        found = reader.read(10**9)
        assert ROWS.startswith(found)
        assert ("cut off" if damage in ("cut", "half") else "damaged") in reader.fault, damage
        if damage == "more" or (suffix == ".gz" and damage != "half"):
            assert found == ROWS
        elif suffix != ".zst":
            # Zstandard unpacks whole blocks of 128 KiB only.
            assert len(found) > len(ROWS) * (0.45 if damage == "half" else 0.9)


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
