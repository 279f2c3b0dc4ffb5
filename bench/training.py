"""Training: our loop beside TRL 1.16.0's, from the same weights and the same rows.

    pip install --no-deps trl==1.16.0
    python bench/training.py
    python bench/training.py --only steady --model smollm2-135m-instruct

Three parts. `steady`: identical rows of tokens, four a step, one step of each arm in turn.
`packed`: from the same conversations to a finished student, all preparation counted. `study`: five
nested amounts, one run of ours against a tuned run of TRL's for each. Every arm is a process of its
own with the same number of threads. No speed is printed before the arms have been shown to compute
the same: counts exact, first loss and gradient norm within 1e-5, the whole curve within 1e-4, in
fp32.

TRL's tuned arm has no gradient checkpointing, no logging, and the split of a batch that ran fastest
here; its default arm is what SFTConfig gives, matched in optimiser, schedule, precision and batch.
TRL computes entropy and accuracy in every step; no setting switches that off. All of it is expected
to take two to three hours on two quiet cores; --only and --model choose a part.

Where there is a GPU, the models are random ones in published shapes, the products run in bf16, and
the share of the peak (MFU) is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import training_data as data
import transformers
from transformers import AutoTokenizer

from epigone.models import references
from epigone.models.load import best_device, native_bf16
from epigone.study import cost
from epigone.study.values import amount_label, parse_amount

WARM = 3
FIRST, CURVE, SAME = 1e-5, 1e-4, 0.01
MODELS = ("smollm2-135m-instruct", "gemma-3-270m")
ARMS = {"ours": "epigone", "tuned": "TRL tuned", "default": "TRL default"}
Row = dict[str, Any]


class Arm:
    """A process of training_arms.py."""

    def __init__(self, told: Row, log: Path) -> None:
        self.told, self.log = told, log
        self._begun = time.perf_counter()
        Path(told["out"]).parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("training_arms.py")),
                 json.dumps(told)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(threads()),
                    "HF_HUB_OFFLINE": "1",
                    # Nothing that an earlier run has prepared may help.
                    "HF_DATASETS_CACHE": str(Path(told["out"]).with_suffix(".datasets")),
                },
            )  # fmt: skip

    def hear(self) -> Row:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            tail = "\n".join(self.log.read_text().splitlines()[-15:])
            raise SystemExit(f"{self.told['arm']} failed:\n{tail}")
        found: Row = json.loads(line)
        return found

    def step(self) -> Row:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self.hear()

    def end(self) -> Row:
        """What the arm says last, and the seconds from its start to its end."""
        found = self.hear()
        if self._process.wait():
            raise SystemExit(f"{self.told['arm']} failed; see {self.log}")
        return found | {"wall": time.perf_counter() - self._begun}


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or len(os.sched_getaffinity(0))


def run_steps(told: dict[str, Row], work: Path, steps: int, fit: bool) -> dict[str, Row]:
    """Each arm's preparation, steps and peak; step by step in turn, or whole runs in turn."""

    def start(name: str) -> Arm:
        own = {"arm": name, "steps": steps, "out": str(work / name)}
        return Arm(own | told[name], work / f"{name}.log")

    found: dict[str, Row] = {}
    groups = [list(told)] if fit else [[name] for name in told]
    for names in groups:
        arms = {name: start(name) for name in names}
        for name in names:
            found[name] = arms[name].hear() | {"rows": []}
        for i in range(steps):
            # Every arm comes first as often as the others.
            for name in names[i % len(names) :] + names[: i % len(names)]:
                found[name]["rows"].append(arms[name].step())
            if len(groups) == 1 and i in (0, WARM):
                spent = sum(r["rows"][-1]["seconds"] for r in found.values())
                tell(f"step {i + 1}: {spent:.0f} s, {spent * (steps - i - 1) / 60:.0f} min to go")
        for name in names:
            found[name] |= arms[name].end()
    shutil.rmtree(work)
    return found


def gate(found: dict[str, Row]) -> None:
    """Print how far apart the arms are; raise SystemExit where that is too far."""
    ours = found["ours"]["rows"]
    good = True
    for name in [n for n in found if n != "ours"]:
        theirs = found[name]["rows"]
        exact = all(a[k] == b[k] for a, b in zip(ours, theirs, strict=True)
                    for k in ("supervised", "tokens"))  # fmt: skip
        loss, norm = (apart(ours[0][k], theirs[0][k]) for k in ("loss", "gradient_norm"))
        curve = max(apart(a["loss"], b["loss"]) for a, b in zip(ours, theirs, strict=True))
        good &= exact and loss <= FIRST and norm <= FIRST and curve <= CURVE
        print(
            f"equal to {ARMS[name]}: counts {'exact' if exact else 'DIFFER'}, first loss "
            f"{loss:.1e}, first gradient norm {norm:.1e}, {len(ours)} losses {curve:.1e}",
            flush=True,
        )
    if not good:
        raise SystemExit("the arms do not compute the same: no speed is told")


def apart(a: float, b: float) -> float:
    return abs(a - b) / abs(b)


def fastest_split(told: Row, work: Path, steps: int, fit: bool) -> int:
    """In how many micro-batches TRL takes a step's rows in the least time."""
    splits = [n for n in (1, 2, 4) if n <= data.ROWS]
    tried = {f"split {n}": told | {"arm": "tuned", "split": n} for n in splits}
    found = run_steps(tried, work, steps, fit)
    seconds = [sum(r["seconds"] for r in found[f"split {n}"]["rows"][1:]) for n in splits]
    tell("TRL tuned: " + ", ".join(f"{data.ROWS // n} rows at a time {s / (steps - 1):.2f} s a step"
                                   for n, s in zip(splits, seconds, strict=True)))  # fmt: skip
    return splits[seconds.index(min(seconds))]


def steady(name: str, options: argparse.Namespace, work: Path) -> None:
    random = name in data.RANDOM
    folder = data.random_model(name, None, work / "model") if random else references.locate(name)
    count = options.steps
    if random:
        rows = data.random_rows(data.RANDOM[name][0], count)
    else:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = data.steady_rows(data.corpus(options.corpus), tokenizer, count)
    told = {"part": "steady", "folder": str(folder), "block": data.LONGEST,
            "precision": options.precision,
            "rows": str(data.write_rows(rows, work / "rows.json"))}  # fmt: skip
    fit = fits(folder, 3)
    print(f"\n### steady: {name}, {options.precision}, {count} steps of {data.ROWS} rows\n")
    if options.precision != "fp32":
        small = data.random_model(name, 2, work / "small") if random else folder
        exact = told | {"precision": "fp32", "folder": str(small)}
        gate(run_steps(dict.fromkeys(ARMS, exact), work / "gate", count, fits(small, 3)))
    split = options.split or fastest_split(told, work / "split", min(3, count), fit)
    print(f"TRL tuned takes {data.ROWS // split} rows at a time")
    if count < WARM + 5:
        print(f"TOO FEW STEPS: {WARM} are warm-up and at least 5 more are needed")
    arms = {"ours": told, "tuned": told | {"split": split}, "default": told}
    # In turn step by step wherever there is room: all of them, or ours with one at a time.
    side = fit or fits(folder, 2)
    for peers in [["tuned", "default"]] if fit or not side else [["tuned"], ["default"]]:
        own = {name: arms[name] for name in ("ours", *peers)}
        rounds = [run_steps(own, work / f"{i}", count, side) for i in range(1 if side else 3)]
        if options.precision == "fp32":
            gate(rounds[0])
        steady_table(folder, rounds)
        print(f"\n{'steps' if side else 'whole runs'} in turn", flush=True)


def steady_table(folder: Path, rounds: list[dict[str, Row]]) -> None:
    print("\n| arm | prepared s | first step s | step s | step CPU s "
          "| supervised tokens/s | tokens/s | peak MB | ours in comparison | MFU |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    # Without enough steps there is no warm-up to leave out.
    warm = min(WARM, len(rounds[0]["ours"]["rows"]) - 1)
    ours = [r for found in rounds for r in found["ours"]["rows"][warm:]]
    for name in rounds[0]:
        own = [r for found in rounds for r in found[name]["rows"][warm:]]
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, own, strict=True)]
        total = sum(r["seconds"] for r in own)
        print(
            f"| {ARMS[name]} | {middle(f[name]['prepared'] for f in rounds):.1f} "
            f"| {middle(f[name]['rows'][0]['seconds'] for f in rounds):.2f} "
            f"| {middle(r['seconds'] for r in own):.2f} | {middle(r['cpu'] for r in own):.2f} "
            f"| {sum(r['supervised'] for r in own) / total:.0f} "
            f"| {sum(r['tokens'] for r in own) / total:.0f} "
            f"| {max(f[name]['peak'] for f in rounds) / 1e6:.0f} "
            f"| {spread(ratios)} | {mfu(folder, own)} |",
            flush=True,
        )


def middle(values: Any) -> float:
    return statistics.median(values)


def spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def mfu(folder: Path, rows: Sequence[Row]) -> str:
    """Share of the GPU's peak, by the formula of epigone.study.cost."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    gpu = next((g for g in (cost.A100, cost.H200) if g.name.split()[0] in device), None)
    shape = references.shape(str(folder))
    if gpu is None or shape is None:
        return ""
    # A row attends to itself alone; four of them make a step.
    flops = sum(cost.train_flops(shape, r["tokens"], r["supervised"], r["tokens"] / data.ROWS)
                for r in rows)  # fmt: skip
    return f"{flops / sum(r['seconds'] for r in rows) / gpu.peak:.1%}"


def fits(folder: Path, arms: int) -> bool:
    """Whether so many arms find room side by side: weights, gradients, two moments, and 3 GB."""
    shape = references.shape(str(folder))
    need = arms * (16 * shape.parameters + 3e9) if shape is not None else float("inf")
    if torch.cuda.is_available():
        return need < torch.cuda.mem_get_info()[0]
    lines = Path("/proc/meminfo").read_text().splitlines()
    return need < 1024 * next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))


def whole(told: Row, arm: str, work: Path) -> Row:
    """One student from conversations, in a process of its own."""
    done = Arm(told | {"arm": arm, "part": "whole", "out": str(work / arm)}, work / f"{arm}.log")
    found = done.end()
    shutil.rmtree(work)
    tell(f"{arm}: {found['wall']:.0f} s")
    return found


def refuse_unequal(ours: Row, theirs: Row) -> None:
    """Raise SystemExit where students have not seen the same; a token at a border may differ."""
    if apart(theirs["supervised"], ours["supervised"]) > SAME:
        raise SystemExit(f"supervised: {ours['supervised']:,} and {theirs['supervised']:,} tokens")


def prepared_corpus(name: str, options: argparse.Namespace, work: Path) -> Row:
    folder = references.locate(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    most = options.amounts[-1]
    fitting = data.fitting(
        data.corpus(options.corpus), tokenizer, options.block, most, work / "corpus"
    )
    return {"name": name, "folder": str(folder), "corpus": str(fitting), "block": options.block,
            "batch": options.batch, "precision": options.precision, "amounts": options.amounts,
            "template": data.marked(tokenizer)}  # fmt: skip


def packed(name: str, options: argparse.Namespace, work: Path) -> None:
    told = prepared_corpus(name, options, work) | {"amounts": options.amounts[-1:]}
    told["messages"] = str(data.prefix(Path(told["corpus"]), told["amounts"][0], work / "m.jsonl"))
    print(f"\n### packed: {name}, {options.precision}, {amount_label(told['amounts'][0])} tokens "
          f"of the teacher, {options.batch} blocks of {options.block} a step, "
          f"{options.runs} runs\n", flush=True)  # fmt: skip
    found: dict[str, list[Row]] = {arm: [] for arm in ARMS}
    for run in range(options.runs):
        for arm in ARMS:
            split = options.batch if arm == "tuned" else 1
            found[arm].append(whole(told | {"split": split}, arm, work / f"run{run}"))
    print("| arm | supervised | tokens | steps | prepared s | trained and saved s | all s "
          "| peak MB | ours in comparison |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for arm, rows in found.items():
        refuse_unequal(found["ours"][0], rows[0])
        pairs = [b["wall"] / a["wall"] for a, b in zip(found["ours"], rows, strict=True)]
        print(
            f"| {ARMS[arm]} | {rows[0]['supervised']:,} | {rows[0]['tokens']:,} "
            f"| {rows[0]['steps']} | {middle(r['prepared'] for r in rows):.1f} "
            f"| {middle(r['trained'] - r['prepared'] for r in rows):.1f} "
            f"| {middle(r['wall'] for r in rows):.1f} "
            f"| {max(r['peak'] for r in rows) / 1e6:.0f} | {spread(pairs)} |",
            flush=True,
        )


def study(name: str, options: argparse.Namespace, work: Path) -> None:
    told = prepared_corpus(name, options, work)
    labels = ", ".join(map(amount_label, options.amounts))
    print(f"\n### study: {name}, {options.precision}, amounts {labels}\n", flush=True)
    ours = whole(told, "ours", work / "trunk")
    theirs = []
    for amount in options.amounts:
        rows = data.prefix(Path(told["corpus"]), amount, work / f"{amount}.jsonl")
        own = told | {"messages": str(rows), "split": options.batch}
        theirs.append(whole(own, "tuned", work / str(amount)))
    refuse_unequal(ours, theirs[-1])
    print("| | runs | supervised | all s |\n| --- | --- | --- | --- |")
    print(f"| epigone | 1 | {ours['supervised']:,} | {ours['wall']:.1f} |")
    for amount, row in zip(options.amounts, theirs, strict=True):
        print(f"| TRL tuned, {amount_label(amount)} | 1 | {row['supervised']:,} "
              f"| {row['wall']:.1f} |")  # fmt: skip
    seconds, seen = (sum(r[k] for r in theirs) for k in ("wall", "supervised"))
    print(f"| TRL tuned, all | {len(theirs)} | {seen:,} | {seconds:.1f} |")
    print(f"\nours takes {seconds / ours['wall']:.2f} times less time for all; nested amounts "
          f"alone save {seen / ours['supervised']:.2f} times the tokens", flush=True)  # fmt: skip


PARTS: dict[str, Callable[[str, argparse.Namespace, Path], None]] = {
    "steady": steady, "packed": packed, "study": study,
}  # fmt: skip


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--model", action="append", help=", ".join((*MODELS, *data.RANDOM)))
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("--steps", type=int, default=20, help="of the steady part")
    parser.add_argument(
        "--split", type=int, choices=(1, 2, 4), help="of a step in TRL's tuned arm; else tried"
    )
    parser.add_argument("--runs", type=int, default=3, help="of the packed part")
    parser.add_argument("--block", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=2, help="blocks a step, packed and study")
    parser.add_argument("--amounts", type=parse_amount, nargs="+",
                        default=[500, 1000, 2000, 4000, 8000])  # fmt: skip
    parser.add_argument(
        "--corpus", type=Path, default=Path(tempfile.gettempdir()) / "epigone-bench-corpus"
    )
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps: at least 2")
    options.precision = options.precision or ("bf16" if native_bf16(best_device()) else "fp32")
    options.model = options.model or list(data.RANDOM if torch.cuda.is_available() else MODELS)
    return options


def main() -> None:
    options = arguments()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    print(f"{device}, {threads()} threads, torch {torch.__version__}, "
          f"transformers {transformers.__version__}")  # fmt: skip
    for name in options.model:
        for part, measure in PARTS.items():
            if options.only not in (None, part) or (part != "steady" and name in data.RANDOM):
                continue
            begun = time.monotonic()
            with data.scratch() as work:
                measure(name, options, Path(work))
            tell(f"{part} of {name}: {(time.monotonic() - begun) / 60:.1f} min")


if __name__ == "__main__":
    main()
