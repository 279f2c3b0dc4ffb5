"""The examples of a report: prompts and questions with every model's answer, read from steps."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from epigone.files import read_jsonl
from epigone.findings import by_item, cells, counted
from epigone.findings.judged import PEOPLE
from epigone.report.view import Item, Output
from epigone.runs.plan import Planned
from epigone.runs.store import Store
from epigone.schema import Message, Rating, Sample
from epigone.study.specs import BenchmarkSpec

# By model and item: each rater's share of a win over the teacher's answer.
Wins = Mapping[tuple[str, str], Mapping[str, float]]


def judge_ratings(planned: Iterable[Planned], store: Store) -> Iterator[Rating]:
    """What models said as judges."""
    for p in planned:
        if p.step.stage == "judge" and p.record is not None:
            rows = read_jsonl(store.folder(p.step) / "ratings.jsonl")
            yield from map(Rating.from_json, rows)


def items_of(
    planned: Sequence[Planned], store: Store, teacher: str, ratings: Iterable[Rating]
) -> tuple[Item, ...]:
    """The held-out prompts, then the items of each benchmark, with what models answered."""
    wins = _wins(ratings, teacher)
    return (*_held_out(planned, store, teacher, wins), *_of_benchmarks(planned, store, teacher))


def _wins(ratings: Iterable[Rating], teacher: str) -> Wins:
    groups: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for r in counted(ratings):
        if teacher in (r.a, r.b):
            rater = r.rater if r.workforce == "judge" else PEOPLE
            groups[rater, r.b if r.a == teacher else r.a].append(r)
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (rater, model), own in sorted(groups.items()):
        for item, win in by_item(cells(own, model)).items():
            found[model, item][rater] = win
    return found


def _held_out(planned: Sequence[Planned], store: Store, teacher: str, wins: Wins) -> Iterator[Item]:
    samples: dict[str, dict[str, Sample]] = {}
    for p in planned:
        if p.step.stage == "generate" and p.record is not None:
            rows = read_jsonl(store.folder(p.step) / "samples.jsonl")
            samples[p.step.model] = {s.item: s for s in map(Sample.from_json, rows)}
    answers = samples.pop(teacher, {})
    first: dict[str, Sample] = dict(answers)
    for by_name in samples.values():
        first = {**by_name, **first}
    for item, sample in first.items():
        yield Item(
            id=item,
            prompt=sample.prompt,
            answer=answers[item].output if item in answers else None,
            outputs=tuple(
                Output(
                    model,
                    by_name[item].output,
                    by_name[item].stop,
                    preferred=wins.get((model, item), {}),
                )
                for model, by_name in samples.items()
                if item in by_name
            ),
        )


def _of_benchmarks(planned: Sequence[Planned], store: Store, teacher: str) -> Iterator[Item]:
    asked: dict[str, dict[str, Mapping[str, str]]] = defaultdict(dict)
    folders: dict[str, list[tuple[str, str, Path]]] = defaultdict(list)
    for p in planned:
        spec, folder = p.step.spec, store.folder(p.step)
        if p.record is None:
            continue
        if p.step.stage == "items":
            asked[p.step.axes[0]] |= {r["name"]: r for r in read_jsonl(folder / "items.jsonl")}
        elif isinstance(spec, BenchmarkSpec):
            folders[spec.label].append((p.step.model, spec.task, folder))
    for label, made in folders.items():
        # Reading Parquet takes a while to import: a report of held-out prompts need not wait.
        from epigone.evaluation.table import read_table

        rows: dict[str, dict[str, Any]] = {}
        texts: Mapping[str, Mapping[str, str]] = {}
        answers: dict[str, str] = {}
        outputs: dict[str, list[Output]] = defaultdict(list)
        for model, task, folder in made:
            texts = asked[task]
            for row in read_table(folder / "samples.parquet"):
                # One whom a question was refused does not tell how it is answered.
                if not rows.get(row["item"], {}).get("outputs"):
                    rows[row["item"]] = row
                answer = answer_of(row["outputs"], row["stops"])
                if model == teacher:
                    answers[row["item"]] = answer
                    continue
                stop = "length" if "length" in row["stops"] else ""
                outputs[row["item"]].append(Output(model, answer, stop, note_of(row)))
        for item, row in rows.items():
            yield Item(
                id=item,
                prompt=question_of(texts.get(item), row),
                answer=answers.get(item),
                outputs=tuple(outputs[item]),
                source=label,
                reference=reference_of(row),
            )


def answer_of(outputs: Sequence[str], stops: Sequence[str]) -> str:
    """What a model answered: its text, all of several, or the choice that it finds likeliest."""
    likelihoods = _likelihoods(outputs, stops)
    if likelihoods:
        return f"choice {ascii_uppercase[likelihoods.index(max(likelihoods))]}"
    if len(outputs) < 2:
        text = "".join(outputs)
        # The space after the prompt; a program's lines keep theirs.
        return text if "\n" in text else text.strip()
    numbered = enumerate(outputs, start=1)
    return "\n\n".join(f"[{k} of {len(outputs)}]\n{text}" for k, text in numbered)


def question_of(known: Mapping[str, str] | None, row: Mapping[str, Any]) -> tuple[Message, ...]:
    """The question as far as it is kept, with the choices behind it."""
    if known is None:
        return ()
    question, whole = known["question"], known["text"]
    # Of a task that writes its answers, the rest of the text tells the answer.
    rest = whole.removeprefix(question) if _likelihoods(row["outputs"], row["stops"]) else whole
    choices = rest.strip() if rest != whole else ""
    told = f"{question}\n\nChoices, in order: {choices}" if choices else question
    return (Message("user", told),)


def reference_of(row: Mapping[str, Any]) -> str:
    """The right answer; of choices, as `answer_of` names them."""
    target, n = row["target"] or "", len(_likelihoods(row["outputs"], row["stops"]))
    if target.isdecimal() and int(target) < n:
        return f"choice {ascii_uppercase[int(target)]}"
    return str(target)


def note_of(row: Mapping[str, Any]) -> str:
    """What became of an answer, and whether it stood in what the model was trained on."""
    told = list(dict.fromkeys(row["verdicts"]))
    if row["learnt"]:
        told.append("stands in what the model was trained on")
    return "; ".join(told)


def _likelihoods(outputs: Sequence[str], stops: Sequence[str]) -> list[float]:
    """Log-probabilities of choices; empty where answers are texts."""
    if stops or not 2 <= len(outputs) <= len(ascii_uppercase):
        return []
    found = []
    for output in outputs:
        try:
            value = json.loads(output)
        except ValueError:
            return []
        value = value[0] if isinstance(value, list) and len(value) == 2 else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return []
        found.append(float(value))
    return found
