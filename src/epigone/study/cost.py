"""What training, answering and measuring take: operations, bytes, seconds; pure arithmetic.

docs/cost.md gives the formulas with their symbols, the sources and a worked example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from epigone.study.specs import FeedbackSpec, Kind, RecipeSpec

# Share of a GPU's peak that training and prompts reach, and share of its memory bandwidth that
# writing answers reaches. Assumptions, until somebody measures them on the machine at hand.
MFU = 0.40
BANDWIDTH_SHARE = 0.60
# Share of a block that packing fills.
PACKING = 0.95
# Share of a conversation's tokens that the teacher wrote, while the corpus is not built.
SUPERVISED: Mapping[Kind, float] = {"broad": 0.80, "local": 0.25}
# Tokens of one answer of the teacher, likewise. An encoder-decoder learns each in a row of its own.
ANSWER: Mapping[Kind, float] = {"broad": 250.0, "local": 20.0}
# Bytes of activations a token, layer and unit of width, in bf16 without recomputation, and without
# attention's square: Korthikanti et al. (2022), equation 1.
ACTIVATION_BYTES = 34
# An eager loop starts its kernels one by one, which bounds a step of writing from below.
LAUNCH_SECONDS = 0.5e-3
# Reading weights from the disk to the GPU, bytes a second.
LOAD_RATE = 2e9
# Rows that are answered side by side, and tokens of a held-out prompt with its template.
ROWS = 64
PROMPT_TOKENS = 128
# Bytes of a token where no tokenizer is at hand.
BYTES_A_TOKEN = 4
# Of the beginnings of sentences that RealToxicityPrompts has (Gehman et al. 2020, table 1).
START_TOKENS = 12


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides its cost.

    `parameters` are all weights, tied ones once, `embeddings` those of them in token and position
    tables and in the head; `attention` is heads x head size, `kv` the same of the keys' heads;
    `encoder` counts the layers of an encoder, `layers` those of the decoder.
    """

    parameters: int
    embeddings: int
    layers: int
    width: int
    vocabulary: int
    attention: int
    kv: int
    encoder: int = 0

    @property
    def body(self) -> int:
        """Weights that every token is multiplied with."""
        return self.parameters - self.embeddings

    @property
    def head(self) -> int:
        """Weights that a token is multiplied with where the next one is predicted."""
        return self.vocabulary * self.width


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: dense bf16 operations a second, bytes, bytes a second (the maker's data sheets)."""

    name: str
    peak: float
    memory: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs that are rented together, and the price of one for an hour: where from, and when."""

    name: str
    gpu: Gpu
    count: int
    usd: float
    source: str
    read: str


A100 = Gpu("A100 80GB", 312e12, 80e9, 2.039e12)
H200 = Gpu("H200", 989e12, 141e9, 4.8e12)
MACHINES = (
    Machine("8 x A100 80GB", A100, 8, 2.79, "Lambda, 8x A100 SXM on demand", "2026-09-20"),
    Machine("1 x H200", H200, 1, 4.59, "RunPod, H200 pod on demand", "2026-10-07"),
)


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark: items, tokens of one item with its shots, tokens of an answer (0: scored)."""

    items: int
    prompt: int
    answer: int


# Of SmolLM2's tokens; a test counts them again.
TASKS: Mapping[str, Task] = {
    "facts": Task(201, 65, 16),
    "choices": Task(168, 231, 0),
    # Of the original files; MMLU's first shots are as long for every subject as on average.
    "mmlu": Task(14_042, 703, 1),
    "nq_open": Task(3_610, 84, 8),
    "humaneval": Task(164, 150, 200),
}


@dataclass(frozen=True, slots=True)
class Reach:
    """What a student of an amount has behind it: tokens with prompts, optimiser steps, warm-up."""

    amount: int
    tokens: float
    steps: int
    warmup: int

    def rate(self, recipe: RecipeSpec) -> float:
        """The highest learning rate that the student has seen."""
        if not self.warmup:
            return recipe.lr
        if recipe.schedule != "wsd":
            return recipe.lr * min(1.0, (self.steps - 1) / self.warmup)
        # The decay branches off at its own step, which may lie inside the warm-up.
        falling = decay_steps(recipe, self.steps)
        begin = self.steps - falling
        return recipe.lr * max(
            min(1.0, (begin + k) / self.warmup) * (falling - k) / falling for k in range(falling)
        )


@dataclass(frozen=True, slots=True)
class Training:
    """The runs of one base on the amounts of a corpus, and what runs of their own would take."""

    reaches: tuple[Reach, ...]
    steps: int
    tokens: float
    flops: float
    apart: float


def tokens_of(text: str) -> int:
    """About how many tokens a text has, by its bytes."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN)


def decay_steps(recipe: RecipeSpec, steps: int) -> int:
    """The last steps of an amount's `steps`, over which wsd falls."""
    return min(steps, max(1, round(recipe.decay * steps)))


def training(
    shape: Shape | None,
    recipe: RecipeSpec,
    amounts: Sequence[int],
    share: float,
    answer: float = ANSWER["broad"],
) -> Training:
    """Steps, tokens and operations of training on nested amounts; `share` of the tokens is taught.

    `amounts` rise; `answer` is how many tokens the teacher's answers have on average. Where the
    recipe has trunks they come from one run. Operations are 0 for a model whose shape is not known.
    """
    row = answer if shape is not None and shape.encoder else recipe.block * PACKING * share
    alone = [_reaches(recipe, [amount], share, row)[0] for amount in amounts]
    reaches, passes = alone, [(r.tokens, r.steps) for r in alone]
    if recipe.trunk:
        reaches = _reaches(recipe, amounts, share, row)
        passes = [(reaches[-1].tokens, reaches[-1].steps)]
    if recipe.schedule == "wsd":
        # The trunk goes on at its rate, while each smaller student decays on a branch of its own.
        passes += [(r.tokens * recipe.decay, decay_steps(recipe, r.steps)) for r in reaches[:-1]]
    return Training(
        tuple(reaches),
        sum(steps for _, steps in passes),
        sum(_processed(recipe, tokens, steps) for tokens, steps in passes),
        sum(_flops(shape, recipe, tokens, steps, share) for tokens, steps in passes),
        sum(_flops(shape, recipe, r.tokens, r.steps, share) for r in alone),
    )


def _reaches(recipe: RecipeSpec, amounts: Sequence[int], share: float, row: float) -> list[Reach]:
    """Each amount's part ends a step of its own, as in training; a row teaches `row` tokens."""
    tokens, steps, found = 0.0, 0, []
    for before, amount in pairwise((0, *amounts)):
        tokens += (amount - before) / share
        steps += math.ceil(math.ceil((amount - before) / row) / recipe.batch)
        found.append((amount, tokens, steps))
    warmup = warmup_steps(recipe, steps, recipe.batch * row)
    return [Reach(amount, tokens, steps, warmup) for amount, tokens, steps in found]


def warmup_steps(recipe: RecipeSpec, steps: int, taught: float) -> int:
    """Steps of warm-up in a run of `steps`, each with `taught` supervised tokens."""
    if recipe.warmup_unit == "fraction":
        return math.ceil(recipe.warmup * steps)
    if recipe.warmup_unit == "tokens":
        return math.ceil(recipe.warmup / taught)
    return int(recipe.warmup)


def _plain(recipe: RecipeSpec, steps: int) -> int:
    """Tokens of plain text that the replay adds to a run."""
    blocks = math.ceil(recipe.batch * recipe.replay / (1 - recipe.replay))
    return steps * blocks * recipe.block


def _processed(recipe: RecipeSpec, tokens: float, steps: int) -> float:
    return tokens + _plain(recipe, steps)


def _flops(
    shape: Shape | None, recipe: RecipeSpec, tokens: float, steps: int, share: float
) -> float:
    if shape is None:
        return 0.0
    # Padding is computed as well.
    row = tokens / PACKING
    plain = _plain(recipe, steps)
    seen, taught = row + plain, tokens * share + plain
    flops = train_flops(shape, seen, taught, recipe.block, lora=recipe.lora is not None)
    if recipe.kl:
        flops += forward_flops(shape, row, tokens * share, recipe.block)
    return flops


def train_flops(
    shape: Shape, tokens: float, supervised: float, context: float, *, lora: bool = False
) -> float:
    """Operations of forward and backward on `tokens` in rows of `context`.

    6 N T + 6 V d S + 12 L a s T; all pairs of positions are counted, the causal half as well. With
    LoRA no gradient of the frozen weights is made, so 4 in place of 6; the adapters' own are
    left out.
    """
    products, pairs = _forward(shape, tokens, supervised, context)
    return (2 if lora else 3) * products + 3 * pairs


def forward_flops(shape: Shape, tokens: float, supervised: float, context: float) -> float:
    """Operations of a forward pass; logits are made at the `supervised` positions only."""
    return sum(_forward(shape, tokens, supervised, context))


def _forward(shape: Shape, tokens: float, supervised: float, context: float) -> tuple[float, float]:
    """Operations of the products with weights, and of those between positions."""
    s, d, a, layers = supervised, shape.width, shape.attention, shape.layers
    if not shape.encoder:
        products = 2 * shape.body * tokens + 2 * shape.head * s
        return products, 4 * layers * a * context * tokens
    # The prompt goes through the encoder, the answer through the decoder, whose layers have a
    # second attention; its keys and values are made of the prompt.
    source = tokens - s
    mlp = (shape.body - 4 * d * a * shape.encoder - 8 * d * a * layers) / (shape.encoder + layers)
    products = 2 * source * (shape.encoder * (4 * d * a + mlp) + layers * 2 * d * a)
    products += 2 * s * (layers * (6 * d * a + mlp) + shape.head)
    half = context / 2
    return products, 4 * a * half * (shape.encoder * source + 2 * layers * s)


def state_bytes(recipe: RecipeSpec) -> int:
    """Bytes a parameter of what training keeps all the time.

    fp32 weights, gradients and second moments, and momentum (bf16 for parameter-scaled, else fp32);
    the copies of the base that a KL (in the products' precision) or a decay to the base (in fp32,
    unless it was published in bf16) needs. With LoRA the base alone; adapters are left out.
    """
    if recipe.lora:
        return 4
    copies = (4 if recipe.precision == "fp32" else 2) * bool(recipe.kl)
    return (16 if recipe.optimizer == "adamw" else 14) + copies + 4 * bool(recipe.decay_to_base)


# Feedback: AdamW, and the bf16 copy that products take.
FEEDBACK_BYTES = 18


def train_memory(
    shape: Shape, recipe: RecipeSpec, gpus: int = 1, *, recomputed: bool = False
) -> float:
    """Bytes that training holds on each of `gpus`, among which the weights' state is shared.

    The state, what bf16 products need beside it, and the activations of one block: kept, or
    computed again layer by layer in the backward pass.
    """
    n, layers = shape.parameters, shape.layers + shape.encoder
    cast = 0 if recipe.precision == "fp32" else 2
    largest = max(shape.head, shape.body / layers)
    row = recipe.block * shape.width
    kept = ACTIVATION_BYTES * row * layers
    activations = (2 * layers + ACTIVATION_BYTES) * row if recomputed else kept
    if recipe.lora and gpus == 1:
        # Below adapters lies the base in the products' precision.
        return (cast or 4) * n + activations
    # One GPU keeps the whole bf16 copy; several gather one layer at a time, with its gradient.
    gathered = cast * n if gpus == 1 else (cast + 4) * largest
    return state_bytes(recipe) * n / gpus + gathered + activations


def run_memory(shape: Shape, rows: int = ROWS, context: int = 512) -> float:
    """Bytes that answering holds: bf16 weights, and keys and values of `rows` of `context`."""
    return 2 * shape.parameters + _cache(shape) * rows * context


def _cache(shape: Shape) -> int:
    """Bytes of the keys and values of one position, in bf16."""
    return 2 * 2 * shape.layers * shape.kv


def answer_seconds(shape: Shape, gpu: Gpu, n: int, prompt: int, new: int) -> float:
    """Seconds of one GPU for loading a model and `n` answers of `new` tokens, all full length.

    A step of writing reads the weights and the cache once for all rows; it takes what the slowest
    of memory, arithmetic and starting kernels takes.
    """
    seconds = 2 * shape.parameters / LOAD_RATE
    seconds += forward_flops(shape, n * prompt, n, prompt) / (gpu.peak * MFU)
    rows = min(n, ROWS)
    read = 2 * (shape.body + shape.head) + _cache(shape) * rows * (prompt + new / 2)
    step = max(
        read / (gpu.bandwidth * BANDWIDTH_SHARE),
        forward_flops(shape, rows, rows, prompt + new / 2) / (gpu.peak * MFU),
        LAUNCH_SECONDS * shape.layers,
    )
    return seconds + (math.ceil(n / ROWS) * new * step if new else 0.0)


def answer_flops(shape: Shape, n: int, prompt: int, new: int) -> float:
    """Operations of `n` answers of `new` tokens to prompts of `prompt`."""
    asked = forward_flops(shape, n * prompt, n, prompt)
    return asked + forward_flops(shape, n * new, n * new, prompt + new / 2)


def feedback_flops(shape: Shape, spec: FeedbackSpec, rows: int, size: int) -> float:
    """Operations of learning from `rows` of a file of `size` bytes, four of which make a token.

    DPO runs a row as two sequences, and asks the model before training once for each.
    """
    sequences = 2 if spec.method == "dpo" else 1
    tokens = sequences * min(size / 4, rows * spec.block)
    context = tokens / (sequences * max(rows, 1))
    flops = spec.epochs * train_flops(shape, tokens, tokens / 2, context)
    if spec.method == "dpo":
        flops += forward_flops(shape, tokens, tokens / 2, context)
    return flops


def flop_seconds(flops: float, gpu: Gpu) -> float:
    """Seconds of one GPU for training operations."""
    return flops / (gpu.peak * MFU)
