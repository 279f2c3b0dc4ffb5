"""What the steps that are left of a study would cost on rented GPUs, and what they need."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from epigone.models import references
from epigone.runs.store import Damaged, Listing, Store
from epigone.schema import Cell
from epigone.study import cost, train_file
from epigone.study.amounts import WHOLE
from epigone.study.confounds import confounds
from epigone.study.cost import MACHINES, Machine, Shape, Task, Training
from epigone.study.judge import COMPARING
from epigone.study.specs import (
    AskSpec,
    BenchmarkSpec,
    ContinuationsSpec,
    CorpusSpec,
    DataSpec,
    FeedbackSpec,
    GenerateSpec,
    JudgeSpec,
    ModelSpec,
    RecipeSpec,
    SecondSpec,
    TrainSpec,
)
from epigone.study.step import Step
from epigone.study.steps import Expansion

# How large a model is, by its reference; None where that is not known without a download.
ShapeOf = Callable[[str], Shape | None]
Answering = GenerateSpec | BenchmarkSpec | ContinuationsSpec
# A benchmark of which nothing is known.
_ASSUMED_TASK = Task(1_000, 250, 0)
# Conversations of a corpus on which the share of the teacher's text is measured.
_SAMPLE = 500
# A JSON file up to this size is read to count its rows.
_COUNTABLE = 64 << 20
_MOST_GPUS = 1024


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a corpus's tokens that the teacher wrote, and how it is known.

    `answer` is how many tokens an answer of the teacher's has on average.
    """

    value: float
    known: str
    answer: float


@dataclass(frozen=True, slots=True)
class Run:
    """A training step: what it takes, and the students that come out of it."""

    step: Step
    spec: TrainSpec
    cells: tuple[Cell, ...]
    shape: Shape | None
    share: Share
    training: Training

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return self.step.inputs["corpus"].slug

    @property
    def variant(self) -> str:
        """What of the recipe is swept, empty for none."""
        return str(getattr(self.cells[0], "variant", "")) if self.cells else ""


@dataclass(frozen=True, slots=True)
class Bill:
    """GPU-hours of what is to do on one kind of machine, and what they cost."""

    machine: Machine
    training: float
    feedback: float
    measuring: float
    usd_per_gpu_hour: float

    @property
    def gpu_hours(self) -> float:
        """All of them."""
        return self.training + self.feedback + self.measuring

    @property
    def wall_hours(self) -> float:
        """Hours on the clock; feedback keeps one GPU busy, all else every one."""
        return (self.training + self.measuring) / self.machine.count + self.feedback

    @property
    def usd(self) -> float:
        """What the GPU-hours cost."""
        return self.gpu_hours * self.usd_per_gpu_hour


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is to do, what it would cost, and what a reader has to know about it."""

    runs: tuple[Run, ...]
    bills: tuple[Bill, ...]
    not_counted: tuple[str, ...]
    warnings: tuple[str, ...]
    not_here: tuple[str, ...]


def estimate(
    expansion: Expansion, store: Store, todo: Sequence[Step], usd: float | None = None
) -> Estimate:
    """The cost of the steps `todo`; `usd` is the price of a GPU for an hour, on any machine."""
    shape_of = cache(references.shape)
    shares = _Shares(expansion, Listing(store))
    runs = _runs(expansion, todo, shares, shape_of)
    unknown: dict[str, None] = {}
    bills = []
    for machine in MACHINES:
        hours: dict[str, float] = defaultdict(float)
        for run in runs:
            hours["train"] += cost.flop_seconds(run.training.flops, machine.gpu) / 3600
            if run.shape is None:
                unknown[f"the size of {run.spec.base.ref} is not known without a download"] = None
        for step in todo:
            seconds, why = _gpu_seconds(step, machine, shape_of)
            hours[step.stage] += seconds / 3600
            if why:
                unknown[why] = None
        measuring = hours["generate"] + hours["benchmark"] + hours["continuations"]
        price = machine.usd if usd is None else usd
        bills.append(Bill(machine, hours["train"], hours["feedback"], measuring, price))
    return Estimate(
        tuple(runs),
        tuple(bills),
        tuple(unknown),
        (*_unfit(todo, shape_of), *_warnings(runs)),
        tuple(_absent(todo)),
    )


def gpus_needed(shape: Shape, spec: TrainSpec, machine: Machine) -> tuple[float, int | None]:
    """Bytes a GPU of the machine has to hold for training, and how many GPUs it would take.

    Where activations cannot be kept they are computed again. No number of GPUs, for a block whose
    activations alone are too large.
    """
    asked = cost.train_memory(shape, spec.recipe, machine.count)
    if asked > machine.gpu.memory:
        asked = cost.train_memory(shape, spec.recipe, machine.count, recomputed=True)
    fits = (
        n
        for n in range(machine.count, _MOST_GPUS + 1)
        if cost.train_memory(shape, spec.recipe, n, recomputed=True) <= machine.gpu.memory
    )
    return asked, next(fits, None)


def _runs(
    expansion: Expansion, todo: Sequence[Step], shares: _Shares, shape_of: ShapeOf
) -> list[Run]:
    made: dict[str, list[Cell]] = defaultdict(list)
    for subject in expansion.subjects:
        if subject.cell is not None:
            # What is trained further on feedback is a student of its own, not one of the run's.
            step = subject.made_by
            if step is not None and step.stage == "train":
                made[step.hash].append(subject.cell)
    found = []
    for step in todo:
        if isinstance(spec := step.spec, TrainSpec):
            share = shares.of(step.inputs["corpus"])
            shape = shape_of(spec.base.ref)
            amounts = amounts_of(step)
            training = cost.training(shape, spec.recipe, amounts, share.value, share.answer)
            found.append(Run(step, spec, tuple(made[step.hash]), shape, share, training))
    return found


def amounts_of(step: Step) -> tuple[int, ...]:
    """The amounts of a training step; of a whole corpus that is asked for, what it may come to."""
    spec = step.spec
    assert isinstance(spec, TrainSpec)
    if spec.amounts != (WHOLE,):
        return spec.amounts
    corpus = step.inputs["corpus"]
    kind = corpus.spec.kind if isinstance(corpus.spec, CorpusSpec) else "broad"
    asked = sum(s.spec.size for s in corpus.inputs.values() if isinstance(s.spec, AskSpec))
    return (max(1, round(asked * cost.ANSWER[kind])),)


def _gpu_seconds(step: Step, machine: Machine, shape_of: ShapeOf) -> tuple[float, str]:
    """Seconds of one GPU for a step other than training, or why they are not known."""
    spec = step.spec
    if isinstance(spec, FeedbackSpec):
        shape, counted = shape_of(spec.base.ref), rows_of(spec.sources)
        if shape is None or counted is None:
            why = "its size" if shape is None else "how many rows its files have"
            return 0.0, f"feedback {step.slug}: {why} is not known yet"
        return cost.flop_seconds(cost.feedback_flops(shape, spec, *counted), machine.gpu), ""
    if not isinstance(spec, Answering) or spec.model.kind == "teacher":
        return 0.0, ""
    base = base_of(step, spec.model)
    shape = shape_of(base.ref)
    if shape is None:
        return 0.0, f"the size of {base.ref} is not known without a download"
    if isinstance(spec, BenchmarkSpec) and spec.task not in cost.TASKS:
        return 0.0, f"the size of benchmark {spec.task} is not known"
    return cost.answer_seconds(shape, machine.gpu, *answers_of(spec)), ""


def answers_of(spec: Answering) -> tuple[int, int, int]:
    """How many answers a model gives, and the tokens of each prompt and of the longest answer."""
    if isinstance(spec, SecondSpec):
        return spec.n, cost.PROMPT_TOKENS, spec.max_tokens
    if isinstance(spec, GenerateSpec):
        return spec.n, cost.PROMPT_TOKENS, spec.max_new_tokens
    if isinstance(spec, ContinuationsSpec):
        return spec.n * spec.samples, cost.START_TOKENS, spec.max_new_tokens
    task = cost.TASKS.get(spec.task, _ASSUMED_TASK)
    return min(task.items, spec.limit or task.items) * spec.samples, task.prompt, task.answer


def questions_of(step: Step, spec: JudgeSpec) -> dict[str, int]:
    """How often a judge is asked by each protocol, once each; its answers are not there yet."""
    said = step.inputs["model"].spec
    assert isinstance(said, GenerateSpec)
    items = min(said.n, spec.n or said.n)
    return {name: items * (2 if name in COMPARING else 1) for name in spec.rubrics}


def base_of(step: Step, model: ModelSpec) -> ModelSpec:
    """The base that a measured model is, or was made from."""
    if model.kind == "student":
        spec = step.inputs["student"].spec
        if isinstance(spec, TrainSpec | FeedbackSpec):
            return spec.base
    return model


def rows_of(sources: Sequence[DataSpec]) -> tuple[int, int] | None:
    """Rows and bytes of local files of judged answers, or None where they cannot be counted."""
    rows = size = 0
    for source in sources:
        try:
            path = Path(source.ref)
            size += path.stat().st_size
            if path.suffix in (".jsonl", ".ndjson"):
                with open(path, "rb") as f:
                    rows += sum(1 for line in f if line.strip())
            elif path.suffix == ".json" and path.stat().st_size < _COUNTABLE:
                found = json.loads(path.read_bytes())
                rows += len(found) if isinstance(found, list) else 1
            else:
                return None
        except (OSError, ValueError, RecursionError):
            return None
    return rows, size


def _unfit(todo: Sequence[Step], shape_of: ShapeOf) -> Iterator[str]:
    """Steps that cannot be done with an encoder-decoder, which will fail and leave the others."""
    for step in todo:
        spec = step.spec
        if not isinstance(spec, TrainSpec | FeedbackSpec):
            continue
        shape = shape_of(spec.base.ref)
        if shape is None or not shape.encoder:
            continue
        if isinstance(spec, FeedbackSpec):
            yield f"feedback {step.slug} will fail: {spec.base.name} has an encoder"
        elif spec.recipe.chunks == "contiguous":
            yield f"train {step.slug} will fail: chunks: contiguous, and an encoder"


def _warnings(runs: Sequence[Run]) -> Iterator[str]:
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        # Students that only select are compared with nobody.
        if run.cells:
            groups[run.variant].append(run)
    told: dict[str, list[str]] = defaultdict(list)
    for variant, group in groups.items():
        amounts: dict[str, set[int]] = defaultdict(set)
        like: dict[str, Run] = {}
        for run in group:
            # Every decoder and seed takes the same steps, as long as a token is a token.
            double = run.shape is not None and run.shape.encoder
            name = f"{run.corpus} in {run.spec.base.name}" if double else run.corpus
            amounts[name].update(run.spec.amounts)
            like[name] = run
        corpora = {name: sorted(own) for name, own in amounts.items()}

        def reached(
            recipe: RecipeSpec, name: str, amounts: Sequence[int], like: dict[str, Run] = like
        ) -> Sequence[cost.Reach]:
            run = like[name]
            share = run.share
            found = cost.training(run.shape, recipe, amounts, share.value, share.answer)
            return found.reaches

        for line in confounds(group[0].spec.recipe, corpora, reached):
            told[line].append(variant)
    for line, variants in told.items():
        everywhere = len(variants) == len(groups)
        yield line if everywhere else f"{'; '.join(variants)}: {line}"


def _absent(todo: Sequence[Step]) -> Iterator[str]:
    seen = set()
    for step in todo:
        spec = step.spec
        data: tuple[DataSpec, ...] = ()
        if isinstance(spec, CorpusSpec | FeedbackSpec):
            data = spec.sources
        elif isinstance(spec, AskSpec):
            data = tuple(d for d in (spec.data, spec.seeds) if d is not None)
        elif isinstance(spec, TrainSpec):
            data = spec.replay
        elif isinstance(spec, SecondSpec) and spec.data is not None:
            data = (spec.data,)
        for source in data:
            path = references.absent(source.ref)
            if path is not None and path not in seen:
                seen.add(path)
                yield str(path)


class _Shares:
    """What share of a corpus's tokens the teacher wrote: measured where it can be."""

    def __init__(self, expansion: Expansion, listing: Listing) -> None:
        self._listing = listing
        self._trained: dict[str, float] = {}
        self._found: dict[str, Share] = {}
        for step in expansion.steps:
            facts = self._facts(step) if step.stage == "train" else {}
            share = facts.get("supervised_share")
            # Rows of an encoder-decoder repeat the conversation before each answer.
            if isinstance(share, float) and 0 < share <= 1 and facts.get("packed"):
                self._trained.setdefault(step.inputs["corpus"].hash, share)

    def of(self, corpus: Step) -> Share:
        """The share of a corpus."""
        if corpus.hash not in self._found:
            self._found[corpus.hash] = self._look(corpus)
        return self._found[corpus.hash]

    def _look(self, corpus: Step) -> Share:
        kind = corpus.spec.kind if isinstance(corpus.spec, CorpusSpec) else "broad"
        share = answer = 0.0
        if self._facts(corpus):
            share, answer = _sampled(self._listing.store.folder(corpus) / train_file.NAME)
        answer = answer or cost.ANSWER[kind]
        if corpus.hash in self._trained:
            return Share(self._trained[corpus.hash], "measured in training", answer)
        if share:
            return Share(share, "measured on the corpus's characters", answer)
        return Share(cost.SUPERVISED[kind], f"assumed for {kind} data", answer)

    def _facts(self, step: Step) -> Mapping[str, object]:
        try:
            record = self._listing.record(step)
        except Damaged:
            return {}
        return record.facts if record else {}


def _sampled(file: Path) -> tuple[float, float]:
    """Share of a corpus's characters that the teacher wrote, and tokens of an answer; or zeros."""
    taught = every = tokens = answers = 0
    try:
        for conversation, counts in islice(train_file.read(file), _SAMPLE):
            tokens, answers = tokens + sum(counts), answers + len(counts)
            for message in conversation.messages:
                every += len(message.content)
                taught += len(message.content) if message.role == "assistant" else 0
    except (OSError, ValueError):
        return 0.0, 0.0
    return (taught / every if every else 0.0), (tokens / answers if answers else 0.0)
