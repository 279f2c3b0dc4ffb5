"""MMLU, NQ-open and HumanEval as lm-eval tasks, from their own files or the hub, one rendering."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.api.task import ConfigurableTask

from epigone.errors import BenchmarkError
from epigone.evaluation.original import (
    SHOTS,
    Row,
    named_mmlu,
    named_nq_open,
    read_humaneval,
    read_mmlu,
    read_nq_open,
)
from epigone.evaluation.tasks.facts.metrics import matches

# Shown before every question of NQ-open: the file of questions holds none for the purpose, and
# drawing others for each question would make a prompt depend on how many were asked before.
NQ_SHOTS = (
    ("who wrote the play romeo and juliet", "William Shakespeare"),
    ("what is the largest ocean in the world", "the Pacific Ocean"),
    ("when did the titanic sink", "15 April 1912"),
)
# What lm-eval 0.4.13 makes of an answer to NQ-open (tasks/nq_open/nq_open.yaml, version 4).
_STOCK_STOPS = ("\n", ".", ",")
_STOCK = {
    "ignore_case": True,
    "ignore_punctuation": True,
    "regexes_to_ignore": [r"\b(?:The |the |An |A |The |a |an )"],
}
# Where code goes on with what nobody asked for (Chen et al. 2021, section 2.1).
CODE_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
CODE_TOKENS = 1024
_CHAT_CODE = (
    "Complete this Python function. Answer with the whole function in one block of code, "
    "and nothing else.\n\n```python\n{{prompt.rstrip()}}\n```"
)


def mmlu(path: Path | None) -> dict[str, ConfigurableTask]:
    """A task for each subject; `path` is the folder of the original files, None the hub's copy."""
    return {
        f"mmlu_{subject}": _task(
            f"mmlu_{subject}",
            splits,
            output_type="multiple_choice",
            description="The following are multiple choice questions (with answers) about "
            f"{subject.replace('_', ' ')}.\n\n",
            doc_to_text="{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\n"
            "C. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
            doc_to_choice=["A", "B", "C", "D"],
            doc_to_target="answer",
            num_fewshot=SHOTS,
            metric_list=[_mean("acc")],
        )
        for subject, splits in (read_mmlu(path) if path else _hub_mmlu()).items()
    }


def nq_open(path: Path | None) -> dict[str, ConfigurableTask]:
    """One task, whose answer is the line that a model writes."""
    rows = read_nq_open(path) if path else named_nq_open(_hub("google-research-datasets/nq_open",
                                                             split="validation"))  # fmt: skip
    shots = [{"id": "", "question": q, "answer": [a]} for q, a in NQ_SHOTS]
    return {
        "nq_open": _task(
            "nq_open",
            {"test": rows, "dev": shots},
            output_type="generate_until",
            description="Answer these questions:\n\n",
            doc_to_text="Q: {{question}}?\nA:",
            doc_to_target="{{answer[0]}}",
            fewshot_delimiter="\n",
            num_fewshot=len(shots),
            generation_kwargs={"until": ["\n"], "max_gen_toks": 48, "do_sample": False},
            process_results=_answered,
            metric_list=[_mean("exact_match"), _mean("exact_match_stock")],
        )
    }


def humaneval(path: Path | None, *, samples: int = 1, sampling: Mapping[str, float] | None = None,
              chat: bool = False) -> dict[str, ConfigurableTask]:  # fmt: skip
    """One task whose answers are programs, to be graded afterwards; see `program`."""
    rows = read_humaneval(path) if path else [
        {"id": r["task_id"], **{k: v for k, v in r.items() if k != "task_id"}}
        for r in _hub("openai/openai_humaneval", split="test")
    ]  # fmt: skip
    settings = {"do_sample": True, **sampling} if sampling else {"do_sample": False}
    until = [] if chat else list(CODE_STOPS)
    return {
        "humaneval": _task(
            "humaneval",
            {"test": rows},
            output_type="generate_until",
            doc_to_text=_CHAT_CODE if chat else "{{prompt}}",
            doc_to_target="{{canonical_solution}}",
            num_fewshot=0,
            repeats=samples,
            generation_kwargs={"until": until, "max_gen_toks": CODE_TOKENS, **settings},
            process_results=lambda doc, results: {},
            filter_list=[{"name": "all", "filter": [{"function": "custom", "filter_fn": _kept}]}],
            metric_list=[_mean("pass@1")],
        )
    }


def program(doc: Row, answer: str, *, chat: bool) -> str:
    """The program of an answer: behind its prompt, or in chat the code that it holds.

    Of several blocks in chat the one that defines the function is taken, else the first. A block
    that does not define it goes on from the prompt.
    """
    if not chat:
        return str(doc["prompt"]) + answer
    blocks = _blocks(answer) or [answer]
    head = f"def {doc['entry_point']}("
    code = next((b for b in blocks if head in b), blocks[0])
    if head not in code:
        return str(doc["prompt"]) + code
    # What the prompt imports and defines is there already for a model that goes on from it.
    return f"{doc['prompt']}    pass\n\n{code}"


def _blocks(text: str) -> list[str]:
    """The contents of fenced blocks; one that is cut off counts too."""
    found: list[str] = []
    current: list[str] | None = None
    for line in text.split("\n"):
        if line.lstrip().startswith("```"):
            if current is not None:
                found.append("\n".join(current) + "\n")
            current = [] if current is None else None
        elif current is not None:
            current.append(line)
    if current:
        found.append("\n".join(current) + "\n")
    return found


def _task(name: str, splits: Mapping[str, Sequence[Row]], **config: Any) -> ConfigurableTask:
    held = {split: Dataset.from_list(list(rows)) for split, rows in splits.items()}
    fewshot = {"fewshot_split": "dev", "fewshot_config": {"sampler": "first_n"}}
    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda **_: held,
            "test_split": "test",
            "target_delimiter": " ",
            "metadata": {"version": 1},
            **(fewshot if "dev" in held else {}),
            **config,
        }
    )


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _kept(answers: Iterable[list[str]], docs: object) -> list[list[str]]:
    return list(answers)


def _answered(doc: Row, results: Sequence[str]) -> dict[str, float]:
    """Exact match of the whole line, and what lm-eval's own task would have made of it."""
    line = results[0].split("\n")[0]
    ends = [at for stop in _STOCK_STOPS if (at := results[0].find(stop)) >= 0]
    stock = results[0][: min(ends, default=len(results[0]))].strip()
    golds = doc["answer"]
    found = exact_match_hf_evaluate(predictions=[stock] * len(golds), references=golds, **_STOCK)
    return {
        "exact_match": float(matches(line, golds)),
        "exact_match_stock": float(found["exact_match"] > 0),
    }


def _hub_mmlu() -> dict[str, dict[str, list[Row]]]:
    found: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for split in ("dev", "test"):
        by_subject: dict[str, list[Row]] = defaultdict(list)
        for row in _hub("cais/mmlu", name="all", split=split):
            by_subject[row["subject"]].append(row)
        for subject in sorted(by_subject):
            found[subject][split] = named_mmlu(subject, by_subject[subject])
    return dict(found)


def _hub(path: str, **which: str) -> list[Row]:
    try:
        return list(load_dataset(path, **which))
    except Exception as error:  # datasets raises nearly every kind
        raise BenchmarkError(
            "a benchmark's data cannot be had from the hub", value=path,
            fix=f"{type(error).__name__}; give a folder of the original files as its data",
        ) from error  # fmt: skip


PRESETS: Mapping[str, Callable[..., dict[str, ConfigurableTask]]] = {
    "mmlu": mmlu,
    "nq_open": nq_open,
    "humaneval": humaneval,
}
