"""Matrix products by rows: two threads in one process beside one thread in each of two processes.

    python bench/products.py --runs 5

Each run measures the shapes of a small model's layers and head; the two ways are interleaved.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys

SHAPES = ((576, 1536), (640, 2048), (640, 262_144))
ROWS = (8, 15, 16, 32, 64, 512)
CODE = """
import json, sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
out = {}
with torch.inference_mode():
    for k, n in json.loads(sys.argv[2]):
        for m in json.loads(sys.argv[3]):
            if m * n > 4e7:
                continue
            w, x = torch.randn(n, k), torch.randn(m, k)
            f = lambda: torch.nn.functional.linear(x, w)
            f()
            repeats = max(2, int(4e9 / (2 * m * k * n)))
            start = time.perf_counter()
            for _ in range(repeats):
                f()
            out[f"{k}x{n} rows {m}"] = 2 * m * k * n * repeats / (time.perf_counter() - start) / 1e9
print(json.dumps(out))
"""


def together(processes: int, threads: int) -> dict[str, float]:
    """GFLOP/s of all processes together, by shape."""
    arguments = [sys.executable, "-c", CODE, str(threads), json.dumps(SHAPES), json.dumps(ROWS)]
    running = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    results = [json.loads(p.communicate()[0]) for p in running]
    return {name: sum(r[name] for r in results) for name in results[0]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    one: list[dict[str, float]] = []
    two: list[dict[str, float]] = []
    for _ in range(runs):
        one.append(together(1, 2))
        two.append(together(2, 1))
    print(f"{platform.platform()}; fp32 GFLOP/s, median of {runs}\n")
    print("| product | 1 process x 2 threads | 2 processes x 1 thread | ratio |")
    print("| --- | --- | --- | --- |")
    for name in one[0]:
        a, b = (statistics.median(r[name] for r in rs) for rs in (one, two))
        ratios = [y[name] / x[name] for x, y in zip(one, two, strict=True)]
        low, high = min(ratios), max(ratios)
        print(f"| {name} | {a:.0f} | {b:.0f} | {b / a:.2f} ({low:.2f}-{high:.2f}) |")


if __name__ == "__main__":
    main()
