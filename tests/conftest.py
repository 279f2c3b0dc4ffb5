"""A tiny base with real weights and a real tokenizer, a study that takes seconds, and its verbs."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from epigone.cli import main

from . import warm
from .endpoint_server import Server, serving

SUBJECTS = ("bread", "rivers", "bicycles", "the moon", "honey bees", "old maps", "glass", "trains")
ASKS = (
    "Please tell me how {} came to be so important, and why people still care about it.",
    "Write a short explanation of {} for somebody who has never heard of it before.",
    "What are three things that everybody should know about {}?",
    "Give me some advice on how to learn more about {} without spending much money.",
    "Compare {} with something similar, and say which one you would choose and why.",
    "Why do experts disagree so often about {}, and who do you think is right?",
    "Describe a perfect day that has something to do with {} from morning to evening.",
    "Could you help me to write a polite letter to my neighbour about {}?",
)


def _answer(rng: random.Random, subject: str) -> str:
    points = [
        f"{i}. People have known about {subject} for {rng.randint(2, 90)} hundred years or more."
        for i in range(1, rng.randint(3, 6))
    ]
    return (
        f"There is a lot to say about {subject}, and here are the most important points.\n\n"
        + "\n".join(points)
        + f"\n\nIn conclusion, {subject} will stay interesting for a very long time to come."
    )


def pytest_configure() -> None:
    warm.use()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a hostile test said or logged need be no text, and test processes can only tell text."""
    report = yield
    report.sections = [
        (name, said.encode("utf-8", "backslashreplace").decode()) for name, said in report.sections
    ]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays; looking through it for garbage took a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# Files that work or wait for more than ten seconds or so, the longest first.
LONGEST = (
    "runs/test_on_ray",
    "docs/test_documents",
    "runs/test_execute",
    "runs/test_faults",
    "corpus/test_on_ray",
    "calibration/test_calibrate",
    "training/test_parallel",
    "raters/test_browser",
    "report/test_interaction",
    "training/test_recipes",
    "cli/test_launch",
    "cli/test_cli",
    "report/test_browsing",
    "runs/test_teacher",
    "teachers/test_collect",
    "teachers/test_limits_kept",
    "runs/test_worker",
    "raters/test_assign",
    "raters/test_interface",
    "raters/test_site",
    "training/test_loop",
    "evaluation/test_cypher",
    "evaluation/test_grading",
    "report/test_page",
    "report/test_training",
    "report/test_examples",
    "training/test_feedback",
    "models/test_catalogue",
    "findings/test_simulated",
    "findings/test_panel",
    "teachers/test_batch_kills",
    "teachers/test_feedback",
    "models/test_encoder_decoder",
    "models/test_generate",
    "raters/test_platforms",
    "raters/test_prolific",
    "runs/test_judged",
    "runs/test_ends",
    "cli/test_corpus",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: at the end one process would be left with such a file."""
    here = Path(__file__).parent
    place = {here / f"{name}.py": n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder that the first test process to ask for it fills, and that all of them share."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    base.mkdir(exist_ok=True)

    def once(name: str, fill: Callable[[Path], None]) -> Path:
        folder, filled = base / name, base / f"{name}.filled"
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return once


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An endpoint on this machine, which nobody waits for before asking again."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    with serving(Server()) as found:
        yield found


@pytest.fixture(scope="session")
def talk(once: Callable[..., Path]) -> Path:
    """64 English ShareGPT conversations of one or two exchanges."""
    return once("talk", _write_talk) / "talk.json"


def _write_talk(folder: Path) -> None:
    rng = random.Random(0)
    rows = []
    for s in SUBJECTS:
        for a in ASKS:
            turns = [
                {"from": "human", "value": a.format(s)},
                {"from": "gpt", "value": _answer(rng, s)},
            ]
            if rng.random() < 0.5:
                turns += [
                    {"from": "human", "value": f"Thank you. What else is there about {s}?"},
                    {"from": "gpt", "value": _answer(rng, s)},
                ]
            rows.append({"id": f"c{len(rows)}", "conversations": turns})
    (folder / "talk.json").write_text(json.dumps(rows))


@pytest.fixture(scope="session")
def tiny_base(once: Callable[..., Path]) -> Path:
    """A Llama of 60 thousand random weights with a byte-level tokenizer, as a model folder."""
    return once("models", _write_tiny_base) / "tiny"


def _write_tiny_base(models: Path) -> None:
    import tokenizers.models
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        [a.format(s) for s in SUBJECTS for a in ASKS],
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=["<eos>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
            tie_word_embeddings=True, eos_token_id=0, bos_token_id=None, pad_token_id=1,
        )
    )  # fmt: skip
    model.save_pretrained(models / "tiny")
    tokenizer.save_pretrained(models / "tiny")


@pytest.fixture(scope="session", params=["v1.0", "v1.1"])
def tiny_t5(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make_t5` of both kinds."""
    return make_t5(request.param, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def t5_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make_t5` of the newer kind."""
    return make_t5("v1.1", tmp_path_factory.mktemp("models"))


def make_t5(kind: str, parent: Path) -> Path:
    """A T5 of random weights with a Unigram tokenizer, as a model folder.

    v1.0 has tied embeddings, whose logits are scaled, and T5's own tokenizer class; v1.1, as UL2,
    has a head of its own, gated activations, and a normaliser in its tokenizer.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        PreTrainedTokenizerFast,
        T5Config,
        T5ForConditionalGeneration,
        T5Tokenizer,
    )

    old = kind == "v1.0"
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    raw.decoder = decoders.Metaspace()
    sentinels = [f"<extra_id_{i}>" for i in range(3)]
    raw.train_from_iterator(
        [f"User: {a.format(s)} Assistant: 1 2 A B C D" for s in SUBJECTS for a in ASKS],
        trainers.UnigramTrainer(
            vocab_size=300,
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    if old:
        vocab = [tuple(piece) for piece in json.loads(raw.to_str())["model"]["vocab"]]
        tokenizer = T5Tokenizer(vocab=vocab, extra_ids=3)
    else:
        raw.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
        raw.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=raw, eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
            additional_special_tokens=sentinels,
        )  # fmt: skip
    torch.manual_seed(0)
    model: Any = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer) + 5, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
            decoder_start_token_id=0, tie_word_embeddings=old,
            feed_forward_proj="relu" if old else "gated-gelu",
        )
    )  # fmt: skip
    with torch.no_grad():
        if not old:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape) / 5)
        # Larger than at the start of training, so that what is said depends on what is asked.
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "shared" not in name and "lm_head" not in name:
                weight.mul_(2.0)
    folder = parent / f"t5-{kind}"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def study_text(talk: Path, tiny_base: Path) -> str:
    """The text of a study on the tiny base."""
    return f"""\
name: tiny
teacher: {{name: scribe, reported: {{mmlu: {{value: 0.7, source: "a test"}}}}}}
bases: [{tiny_base}]
corpora:
  talk: {{kind: broad, from: [{talk}], held_out: 6}}
amounts: {{talk: [600, 2k]}}
recipe: {{batch: 2, block: 128, warmup: 2}}
evaluate:
  benchmarks: [facts, choices]
  limit: 8
  style: {{n: 6, max_new_tokens: 160}}
"""


@pytest.fixture(scope="session")
def _whole(once: Callable[..., Path], study_text: str) -> Path:
    def run(folder: Path) -> None:
        (folder / "study.yaml").write_text(study_text)
        done = epigone_here("run", "study.yaml", cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / "told.txt").write_text(done.stdout)

    return once("whole", run)


@pytest.fixture(scope="module")
def whole(_whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with study.yaml, its finished runs, and in told.txt what `epigone run` printed."""
    copy = tmp_path_factory.mktemp("whole") / "copy"
    shutil.copytree(_whole, copy)
    return copy


def epigone(
    *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "epigone", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def epigone_here(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which spares it half a second and torch five."""
    words = ["epigone", *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", words)
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            signal.signal(signal.SIGTERM, before)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in this process, for tests of what a verb does and says."""
    return epigone_here


@pytest.fixture(scope="session")
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, for its environment, imports and exit."""
    return epigone


@pytest.fixture(scope="session")
def adds_up() -> Callable[[Path], None]:
    """The account of a corpus against what is there: every conversation and turn, exactly."""
    from epigone.files import read_json, read_jsonl
    from epigone.schema import Conversation
    from epigone.study import train_file

    def adds_up(folder: Path) -> None:
        """Fail unless what was read, less what was dropped, plus what was split, is there."""
        audit = read_json(folder / "audit.json")
        left = [c for c, _ in train_file.read(folder / train_file.NAME)]
        left += [Conversation.from_json(row) for row in read_jsonl(folder / "held_out.jsonl")]
        effects = [rule for rule in audit["rules"].values() if rule["on"]]
        read = sum(source["read"] for source in audit["sources"])
        turns = sum(source["turns"] for source in audit["sources"])
        gone = sum(e["conversations_dropped"] - e["conversations_added"] for e in effects)
        assert read == len(left) + gone
        silent = sum(e["turns_dropped"] - e["turns_added"] for e in effects)
        assert turns == sum(len(c.messages) for c in left) + silent

    return adds_up
