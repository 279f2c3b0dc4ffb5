"""Asking a teacher: ours beside the openai client with a semaphore, and the latency's own floor.

    python bench/teachers.py --openai PYTHON --curator PYTHON

Each arm asks the same requests of the same fake endpoint (tests/teachers/fake.py, a process of its
own), in a process of its own, in turn. Ours keeps every answer in a ledger that is synced to the
disk, curator (bespokelabs-curator) in a file; the openai client keeps them in memory. PYTHON is
that of an environment with the peer in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def texts(n: int) -> list[str]:
    return [f"Tell me of {i}, and of what comes after it." for i in range(n)]


def ours(url: str, n: int, concurrency: int) -> int:
    from epigone.teachers.answers import Settings
    from epigone.teachers.collect import ask_teacher
    from epigone.teachers.means import Means

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        prompts = Path(folder) / "prompts.jsonl"
        prompts.write_text("".join(json.dumps(t) + "\n" for t in texts(n)))
        start()
        facts = ask_teacher(
            prompts, Path(folder) / "out", f"{url}#teacher", Settings(max_tokens=64),
            means=Means(concurrency=concurrency, ledgers=Path(folder)),
        )  # fmt: skip
    written: int = facts["written"]
    return written


def theirs(url: str, n: int, concurrency: int) -> int:
    from openai import AsyncOpenAI

    async def go() -> int:
        free = asyncio.Semaphore(concurrency)
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=8) as client:

            async def one(text: str) -> bool:
                async with free:
                    told = await client.chat.completions.create(
                        model="teacher", max_tokens=64,
                        messages=[{"role": "user", "content": text}],
                    )  # fmt: skip
                    return bool(told.choices[0].message.content)

            start()
            return sum(await asyncio.gather(*map(one, texts(n))))

    return asyncio.run(go())


def curator(url: str, n: int, concurrency: int) -> int:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        os.environ |= {
            "CURATOR_CACHE_DIR": folder,
            "TELEMETRY_ENABLED": "0",
            "OPENAI_API_KEY": "none",
        }
        from bespokelabs.curator import LLM

        start()
        model = LLM(
            model_name="teacher", backend="openai", generation_params={"max_tokens": 64},
            backend_params={
                "base_url": url, "max_concurrent_requests": concurrency, "max_retries": 8,
                "max_requests_per_minute": 10**8, "max_tokens_per_minute": 10**10,
                "require_all_responses": True,
            },
        )  # fmt: skip
        found = model(texts(n))
        rows = getattr(found, "dataset", found)
        return sum(bool(row["response"]) for row in rows)


_started = [0.0, 0.0]


def start() -> None:
    _started[:] = time.perf_counter(), time.process_time()


def arm(told: dict[str, Any]) -> None:
    done = {"ours": ours, "openai": theirs, "curator": curator}[told["arm"]](
        told["url"], told["requests"], told["concurrency"]
    )
    seconds, cpu = time.perf_counter() - _started[0], time.process_time() - _started[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"answers": done, "seconds": seconds, "cpu": cpu, "peak": peak}))


def run(told: dict[str, Any]) -> dict[str, Any]:
    settings = json.dumps({"latency": told["latency"]})
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.teachers.fake", settings],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout
        url = server.stdout.readline().strip()
        done = subprocess.run(
            [told["python"], __file__, "--arm", json.dumps(told | {"url": url})],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        server.kill()
        server.wait()
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["answers"] != told["requests"]:
        raise SystemExit(f"{told['arm']}: {found['answers']} answers of {told['requests']}")
    print(f"{told['arm']}: {found['seconds']:.2f} s", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--openai", metavar="PYTHON")
    parser.add_argument("--curator", metavar="PYTHON")
    options = parser.parse_args()
    if options.arm:
        arm(json.loads(options.arm))
        return
    arms = {"ours": sys.executable, "openai": options.openai, "curator": options.curator}
    arms = {name: python for name, python in arms.items() if python}
    told = {"requests": options.requests, "latency": options.latency,
            "concurrency": options.concurrency}  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for _ in range(options.runs):
        for name, python in arms.items():
            found[name].append(run(told | {"arm": name, "python": python}))
    floor = -(-options.requests // options.concurrency) * options.latency
    print(f"{platform.machine()}, Python {platform.python_version()}; {options.requests} requests "
          f"of {options.latency} s at concurrency {options.concurrency}, {options.runs} runs in "
          f"turn; floor {floor:.2f} s\n")  # fmt: skip
    print("| arm | seconds | of the floor | CPU ms a request | peak MB |")
    print("| --- | --- | --- | --- | --- |")
    for name, runs in found.items():
        seconds = [r["seconds"] for r in runs]
        middle = statistics.median(seconds)
        cpu = statistics.median(r["cpu"] for r in runs) / options.requests * 1000
        print(
            f"| {name} | {middle:.2f} ({min(seconds):.2f}-{max(seconds):.2f}) "
            f"| {middle / floor:.2f} | {cpu:.2f} | {max(r['peak'] for r in runs) / 1e6:.0f} |"
        )


if __name__ == "__main__":
    main()
