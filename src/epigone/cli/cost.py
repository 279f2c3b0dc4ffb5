"""How a plan tells what a study would cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from epigone.cli.common import table
from epigone.runs.estimate import Estimate, Run, gpus_needed
from epigone.study import cost
from epigone.study.cost import MACHINES
from epigone.study.values import amount_label

_ASSUMED = (
    f"training reaches {cost.MFU:.0%} of a GPU's peak, writing {cost.BANDWIDTH_SHARE:.0%} of its "
    f"memory bandwidth; packing fills {cost.PACKING:.0%} of a block; every base's tokens are as "
    "many as the reference tokenizer's; downloads and the building of corpora are not counted"
)


def tell(found: Estimate) -> None:
    """Print what is to do in GPU-hours and money, what it needs, and what to think about."""
    if found.runs:
        print("\nTo train, before anything is spent (docs/cost.md has the formulas):")
        heads = ("base", "corpus", "amounts", "steps", "with prompts", "GPU-hours", "apart")
        table("", heads, list(_rows(found)))
        print(
            "'with prompts' are tokens to process; GPU-hours are those of "
            f"{' / '.join(m.name for m in MACHINES)}."
        )
        # Seeds, corpora and amounts change nothing of it.
        alike = {(r.spec.base, r.spec.recipe.model_dump_json()): r for r in reversed(found.runs)}
        for line in dict.fromkeys(
            f"{r.spec.base.name} takes {_memory(r)}" for r in reversed(alike.values())
        ):
            print(line)
        for line in sorted({_trunk(run) for run in found.runs}):
            print(line)
        for line in _shares(found):
            print(line)
    print()
    columns = ("machine", "training", "feedback", "measuring", "GPU-hours", "hours", "USD", "price")
    table("", columns, list(_bills(found)))
    for why in found.not_counted:
        print(f"not counted: {why}")
    print(f"Assumed: {_ASSUMED}.")
    for path in found.not_here:
        print(f"not here yet: {path}")
    for line in found.warnings:
        print(f"warning: {line}")


def _trunk(run: Run) -> str:
    recipe = run.spec.recipe
    if not recipe.trunk:
        return f"schedule {recipe.schedule}: each amount has to run by itself."
    decay = f", with a decay of {recipe.decay:.0%} of its steps for each" * (
        recipe.schedule == "wsd"
    )
    return (
        f"schedule {recipe.schedule}: one run gives the students of all amounts{decay}; "
        "'apart' is what a run for each would take."
    )


def _shares(found: Estimate) -> Iterator[str]:
    told: dict[str, None] = {}
    for run in found.runs:
        told[
            f"{run.corpus}: {run.share.value:.0%} of the tokens are the teacher's "
            f"({run.share.known})."
        ] = None
    yield from told


def _rows(found: Estimate) -> Iterator[list[str]]:
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in found.runs:
        corpus = ", ".join(part for part in (run.corpus, run.variant) if part)
        groups[(run.spec.base.name, corpus)].append(run)
    for (base, corpus), runs in groups.items():
        reached = {r.amount: r.steps for run in runs for r in run.training.reaches}
        known = all(run.shape is not None for run in runs)
        flops = [sum(run.training.flops for run in runs), sum(run.training.apart for run in runs)]
        yield [
            base,
            corpus,
            " ".join(amount_label(a) for a in sorted(reached)),
            " ".join(f"{reached[a]:,}" for a in sorted(reached)),
            _large(sum(run.training.tokens for run in runs)),
            *(_on_machines(f) if known else "not known" for f in flops),
        ]


def _on_machines(flops: float) -> str:
    return " / ".join(_hours(cost.flop_seconds(flops, m.gpu) / 3600) for m in MACHINES)


def _memory(run: Run) -> str:
    if run.shape is None:
        return "memory that is not known without a download"
    told = []
    for machine in MACHINES:
        asked, count = gpus_needed(run.shape, run.spec, machine)
        short = "" if count == machine.count else f": too much, {count} GPUs would hold it"
        if count is None:
            short = ": too much for any number of GPUs, the block is too long"
        told.append(
            f"{asked / 1e9:.0f} of {machine.gpu.memory / 1e9:.0f} GB a GPU on {machine.name}{short}"
        )
    return "; ".join(told)


def _bills(found: Estimate) -> Iterator[list[str]]:
    for bill in found.bills:
        machine = bill.machine
        own = bill.usd_per_gpu_hour == machine.usd
        where = f"{machine.source}, {machine.read}" if own else "as given"
        yield [
            machine.name,
            *(
                _hours(h) if h else "-"
                for h in (bill.training, bill.feedback, bill.measuring, bill.gpu_hours)
            ),
            _hours(bill.wall_hours),
            f"{bill.usd:,.2f}" if bill.usd < 100 else f"{bill.usd:,.0f}",
            f"${bill.usd_per_gpu_hour:g} ({where})",
        ]


def _hours(hours: float) -> str:
    if hours >= 100:
        return f"{hours:,.0f}"
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}" if hours >= 0.01 else "under 0.01"


def _large(tokens: float) -> str:
    for size, suffix in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{suffix}"
    return f"{tokens:.0f}"


def to_json(found: Estimate) -> dict[str, Any]:
    """The estimate as JSON: runs, machines, what is not counted, warnings, missing files."""
    return {
        "cost": {
            "runs": [_run_json(run) for run in found.runs],
            "machines": [
                {
                    "machine": bill.machine.name,
                    "gpus": bill.machine.count,
                    "gpu_hours": {
                        "train": bill.training,
                        "feedback": bill.feedback,
                        "measure": bill.measuring,
                        "all": bill.gpu_hours,
                    },
                    "hours": bill.wall_hours,
                    "usd_per_gpu_hour": bill.usd_per_gpu_hour,
                    "usd": bill.usd,
                    "price": {
                        "list_usd_per_gpu_hour": bill.machine.usd,
                        "source": bill.machine.source,
                        "read": bill.machine.read,
                    },
                }
                for bill in found.bills
            ],
            "not_counted": list(found.not_counted),
            "assumptions": {
                "mfu": cost.MFU,
                "bandwidth_share": cost.BANDWIDTH_SHARE,
                "packing": cost.PACKING,
                "launch_seconds_a_layer": cost.LAUNCH_SECONDS,
                "load_bytes_a_second": cost.LOAD_RATE,
                "prompt_tokens": cost.PROMPT_TOKENS,
            },
        },
        "warnings": list(found.warnings),
        "not_here_yet": list(found.not_here),
    }


def _run_json(run: Run) -> dict[str, Any]:
    shape, recipe = run.shape, run.spec.recipe
    needs = {m.name: gpus_needed(shape, run.spec, m) for m in MACHINES} if shape else {}
    return {
        "step": run.step.name,
        "base": run.spec.base.name,
        "corpus": run.corpus,
        "variant": run.variant,
        "seed": run.spec.seed,
        "parameters": shape.parameters if shape else None,
        "trunk": recipe.trunk,
        "students": [
            {
                "amount": r.amount,
                "tokens": round(r.tokens),
                "steps": r.steps,
                "warmup_steps": r.warmup,
                "peak_lr": r.rate(recipe),
            }
            for r in run.training.reaches
        ],
        "steps": run.training.steps,
        "tokens": round(run.training.tokens),
        "supervised_share": {"value": run.share.value, "known": run.share.known},
        "flops": run.training.flops if shape else None,
        "flops_apart": run.training.apart if shape else None,
        "memory": {
            name: {"bytes_a_gpu": round(asked), "gpus_needed": count}
            for name, (asked, count) in needs.items()
        },
    }
