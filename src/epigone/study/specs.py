"""What each stage is asked to do: exactly what changes its result, and nothing else.

A spec is part of its step's identity, so device, workers, paths and executor have no place here.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["broad", "local"]


class Spec(BaseModel):
    """Frozen, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SourceSpec(Spec):
    """One file of teacher text: its reference and the sha256 (or revision) of its content."""

    ref: str
    fingerprint: str


# What is done to a conversation and to a corpus, by name and in this order, and whether it is done
# unless a study says otherwise.
RULES: dict[str, bool] = {
    "no_turns": True,
    "too_long": True,
    "site_html": True,
    "site_artefacts": True,
    "site_notices": True,
    "error_replies": True,
    "empty_turns": True,
    "same_role_twice": True,
    "leading_replies": True,
    "trailing_prompts": True,
    "too_short": True,
    "refusals": False,
    "secrets": True,
    "emails": True,
    "language": True,
    "forks": True,
    "same_query": True,
    "near_query": True,
    "contaminated": True,
}
RULES_ON = tuple(name for name, on in RULES.items() if on)


# Formats of data, as readers name them.
FORMATS = ("sharegpt", "openai", "alpaca", "hc3", "discord", "pairs")
# Mixes that are known by name: their formats, with the most conversations of each (0: all).
# sharegpt-mix is that of Gudibande et al. (2023), section 3.
MIXES: dict[str, dict[str, int]] = {"sharegpt-mix": {"sharegpt": 0, "hc3": 0, "discord": 10_000}}


class DataSpec(SourceSpec):
    """A source of a corpus, and what is known of it; without a teacher, the corpus's is meant.

    `format` is a reader's name or empty, to find out; `cap` the most conversations of it (0: all);
    `weight` its share of the teacher's tokens, relative to the other sources' (0 for all: no mix).
    """

    format: str = ""
    teacher: str = ""
    licence: str = ""
    terms: str = ""
    cap: int = Field(default=0, ge=0)
    weight: float = Field(default=0.0, ge=0)


class ItemsSpec(Spec):
    """The items of a benchmark, for what must not be in a corpus.

    `data` is where its original files lie, None for those that come with it or the hub's; `suite`
    is what a task of another name than the presets' comes from: a folder of tasks, or
    without a reference lm-eval, whose version is then the fingerprint.
    """

    task: str
    task_version: int
    data: DataSpec | None = None
    suite: DataSpec | None = None


class OverlapSpec(Spec):
    """Which items of a benchmark a corpus holds: 13 words in a row, or a whole question."""


class MeansSpec(Spec):
    """How fast and for how much an endpoint may be asked; none of it is part of an identity.

    `price` is in US dollars for a million tokens in and out, as "0.15,0.60"; limits are a minute's.
    """

    key_env: str = "EPIGONE_API_KEY"
    price: str | None = None
    requests_per_minute: float = 0
    tokens_per_minute: float = 0
    concurrency: int = 32
    batch: bool = False


class ModelSpec(Spec):
    """A model to run: a base by reference, a student by amount, the teacher, or a judge.

    A student's folder is `inputs["student"] / amount_folder(amount)`. A teacher with a reference is
    asked at its endpoint, as `means` allow, and so is a judge.
    """

    kind: Literal["base", "student", "teacher", "judge"]
    name: str
    ref: str = ""
    fingerprint: str = ""
    amount: int = 0
    means: MeansSpec | None = None


class AskSpec(Spec):
    """What a teacher's endpoint is asked for: answers to prompts, or examples of a task.

    `wording` is the hash of the text that it is asked with, of Epigone's own; `data` are prompts or
    passages, or the folder of a task; `seeds` are pairs to begin with where the task's own are not
    meant. Of several rounds, `size` is what this one asks, and `of` what all of them ask.
    """

    model: ModelSpec
    task: str
    wording: str
    size: int = Field(ge=1)
    of: int = 0
    data: DataSpec | None = None
    seeds: DataSpec | None = None
    system: str = ""
    turns: int = Field(default=0, ge=0)
    shown: int = Field(default=5, ge=1)
    each: int = Field(default=5, ge=1)
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    keep_cut: bool = False
    draw: int = 0
    seed: int | None = None
    languages: tuple[str, ...] = ()
    terms: str = ""


# How the prompts of a round are chosen, and which ways of it ask students.
Select = Literal["random", "loss", "disagreement", "diversity"]
SELECTED: tuple[Select, ...] = get_args(Select)
BY_STUDENTS = ("loss", "disagreement")
# So many times as many prompts as are wanted are looked at: a pool may be a million.
CANDIDATES = 20


class SelectSpec(Spec):
    """Which prompts of a pool a round asks; those of earlier rounds are in `inputs["asked_…"]`.

    `pool` is what the round asks, from all prompts that may be. The students are
    `inputs["student_1"]` and so on, of the whole amount.
    """

    by: Select
    pool: AskSpec


class CorpusSpec(Spec):
    """Sources to a clean corpus, split into train and held-out prompts.

    What the teacher was asked for lies in `inputs["asked_1"]` and so on; there are no sources then.

    `languages` are ISO 639 codes, none for any language; `rules` the names of those that are on;
    `min_chars` and `max_chars` bound the characters of a reply and of any turn; a conversation of
    more than `max_tokens` tokens is split at prompts (0: never).
    """

    kind: Kind
    sources: tuple[DataSpec, ...]
    tokenizer: SourceSpec
    teacher: str
    languages: tuple[str, ...] = ("en",)
    rules: tuple[str, ...] = RULES_ON
    min_chars: int = Field(default=1, ge=0)
    max_chars: int = Field(default=100_000, ge=1)
    max_tokens: int = Field(default=0, ge=0)
    mix: str = ""
    held_out: int = Field(default=128, ge=0)
    max_prompt_tokens: int = Field(default=256, ge=1)
    seed: int = 0


class LoraSpec(Spec):
    """Low-rank adapters (Hu et al. 2021): which matrices get one, its rank, alpha and dropout.

    `targets` are names of modules, as peft takes them; "all-linear" means every one but the head.
    """

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"


class RecipeSpec(Spec):
    """Training settings that the cells share; `preset` has already been filled in.

    `batch` counts blocks, `block` tokens. `warmup` is counted in `warmup_unit`: optimiser steps,
    supervised tokens of the base's own tokenizer, or a fraction of the steps of the largest amount
    that a run is for. After it, the learning rate stays, falls with a cosine to 0, or falls
    linearly to 0 over the last share `decay` of the steps of each amount (wsd). `chunks` says
    whether pieces of conversations are packed apart, or the whole text is cut as one stream.

    `replay` is the share of the loss that is taken on plain text; `kl` weighs the divergence from
    the base, KL(base || student) in nats a supervised token; `decay_to_base` is a weight decay
    whose target is the base instead of 0 (L2-SP, Li et al. 2018). `template` is the text of a chat
    template, empty for the base's own.
    """

    preset: str
    optimizer: Literal["parameter-scaled", "adamw"]
    lr: float = Field(gt=0)
    warmup: float = Field(ge=0)
    warmup_unit: Literal["steps", "tokens", "fraction"]
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    decay: float = Field(default=0.0, ge=0, le=1)
    batch: int = Field(ge=1)
    block: int = Field(ge=16)
    weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0)
    loss: Literal["token-mean", "row-mean"]
    precision: Literal["auto", "bf16", "fp32"]
    chunks: Literal["documents", "contiguous"] = "documents"
    replay: float = Field(default=0.0, ge=0, lt=1)
    kl: float = Field(default=0.0, ge=0)
    decay_to_base: float = Field(default=0.0, ge=0)
    lora: LoraSpec | None = None
    template: str = ""

    @property
    def trunk(self) -> bool:
        """Whether students of several amounts can come from one run: the rate knows no end.

        With wsd they can, as decays that branch off; a cosine ends with its own amount.
        """
        return self.schedule != "cosine"


class TrainSpec(Spec):
    """One trunk: a base trained on nested amounts of one corpus, a student at each amount.

    `replay` is where the recipe's plain text comes from.
    """

    base: ModelSpec
    amounts: tuple[int, ...]
    recipe: RecipeSpec
    seed: int = 0
    replay: tuple[DataSpec, ...] = ()


class FeedbackSpec(Spec):
    """A student (amount 0: a base) trained further on what a teacher said of answers.

    `dpo` learns from pairs of a chosen and a rejected answer (Rafailov et al. 2023), `revise` from
    answers that were written anew after a critique. The new student lies in
    `amount_folder(amount)`, as its predecessor does in `inputs["student"]`.
    """

    method: Literal["dpo", "revise"]
    base: ModelSpec
    amount: int = 0
    sources: tuple[DataSpec, ...]
    lr: float = Field(gt=0)
    beta: float = Field(default=0.1, gt=0)
    epochs: int = Field(default=1, ge=1)
    batch: int = Field(default=8, ge=1)
    block: int = Field(default=1024, ge=16)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    seed: int = 0


class GenerateSpec(Spec):
    """Answers of one model to the corpus's held-out prompts, greedy.

    `n` is how many of the held-out prompts are answered, in their order. A recorded teacher's
    answer ends after `max_new_tokens` tokens of `tokenizer`, as a living teacher's would.
    """

    model: ModelSpec
    n: int = Field(ge=1)
    max_new_tokens: int = Field(default=256, ge=1)
    tokenizer: SourceSpec | None = None


class SecondSpec(GenerateSpec):
    """The teacher's answers to the same prompts once more: what style metrics can reach at best.

    Sent is what the first were asked with, and a `seed`; with `data`, the answers are in a file.
    """

    max_tokens: int = Field(default=512, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    data: DataSpec | None = None


class StyleSpec(Spec):
    """Style metrics of one model's samples against the teacher's samples."""

    model: str
    metrics: tuple[str, ...]


class BenchmarkSpec(ItemsSpec):
    """One benchmark on one model, as `label` in scores.

    `raw` is text that goes on, `chat` the model's own chat template with the examples as turns.
    `limit` takes a subset that `seed` draws; `shots` is the number of examples where the task's
    own is not meant. Programs can be sampled: `samples` a problem at a temperature, else one each
    and greedily.
    """

    model: ModelSpec
    label: str
    format: Literal["raw", "chat"] = "raw"
    shots: int | None = Field(default=None, ge=0)
    limit: int | None = None
    seed: int = 0
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)


class ContinuationsSpec(Spec):
    """Several sampled continuations of each of `n` prompts, by one model."""

    model: ModelSpec
    prompts: DataSpec
    n: int = Field(ge=1)
    samples: int = Field(default=25, ge=1)
    max_new_tokens: int = Field(default=20, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    seed: int = 0


SCORERS = ("proxy", "perspective", "detoxify", "classifier", "moderation")


class ScorerSpec(DataSpec):
    """Who says how toxic a text is: a name of SCORERS, with its weights, URL or label if it has.

    `ref` is empty where there is nothing to name.
    """

    name: str
    label: str = ""


class ToxicitySpec(Spec):
    """How toxic one model's continuations are."""

    model: str
    scorer: ScorerSpec


class JudgeSpec(Spec):
    """What a judge is asked of one model's answers, beside those of another where they compare.

    Without `against`, only protocols that look at one answer are asked. `rubrics` are texts by
    protocol; `n` is how many of the prompts are judged; `references` are right answers by item.
    """

    model: str
    against: str = ""
    judge: ModelSpec
    rubrics: dict[str, str]
    n: int | None = None
    references: DataSpec | None = None
    max_tokens: int = Field(default=512, ge=1)
    tries: int = Field(default=3, ge=1)


def asked_model(spec: Spec) -> ModelSpec | None:
    """The teacher or judge whose endpoint a step asks, if it does."""
    for model in map(vars(spec).get, ("model", "judge")):
        if isinstance(model, ModelSpec) and model.kind in ("teacher", "judge") and model.ref:
            return model
    return None


def amount_folder(amount: int) -> str:
    """Name of the folder that holds the student of an amount."""
    return f"amount-{amount}"
