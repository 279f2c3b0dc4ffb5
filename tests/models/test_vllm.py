"""Generation by vLLM: a strict stand-in for its engine, and itself where it is installed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.models.test_generate import SIZES, one_by_one, prompts, tiny
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from epigone.errors import ModelError
from epigone.models import vllm
from epigone.models.generate import generate
from epigone.models.kept import Kept
from epigone.models.sampling import Sampling

ENDS = frozenset({7, 19, 30, 44})


class Letters:
    """A tokenizer whose tokens are single characters."""

    def decode(self, ids: Any, **_: Any) -> str:
        return "".join(chr(64 + i) for i in ids)


@dataclass
class Params:
    """What vLLM 0.33 checks of its SamplingParams, of the fields that are used."""

    temperature: float
    top_p: float
    seed: int
    max_tokens: int
    stop: list[str] | None
    stop_token_ids: list[int]
    ignore_eos: bool
    detokenize: bool
    output_kind: str

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_tokens < 1:
            raise ValueError("not a distribution")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError("seed does not fit a long")


class EngineDeadError(Exception):
    """vLLM's own errors are no RuntimeErrors."""


class Engine:
    """Answers by transformers, one prompt a step, the last first; what a stop id ends holds it."""

    def __init__(self, model: Any, room: int, faults: dict[str, Any]) -> None:
        self.model, self.room, self.faults = model, room, faults
        self.waiting: dict[str, tuple[list[int], Params]] = {}
        self.engine_core = SimpleNamespace(shutdown=self._shutdown)
        self.steps, self.up = 0, True

    def _shutdown(self) -> None:
        self.up = False

    def add_request(self, request_id: str, prompt: dict[str, list[int]], params: Params) -> str:
        assert self.up
        assert isinstance(request_id, str)
        assert prompt.keys() == {"prompt_token_ids"}
        assert params.output_kind == "final only"
        ids = prompt["prompt_token_ids"]
        if request_id in self.waiting or not 0 < len(ids) < self.room:
            raise ValueError(f"a prompt of {len(ids)} tokens in {self.room}")
        self.waiting[request_id] = ids, params
        return request_id

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def step(self) -> list[Any]:
        assert self.up
        self.steps += 1
        if self.steps == self.faults.get("dies"):
            raise EngineDeadError("EngineCore encountered an issue.\nSee stack trace.")
        if self.steps == self.faults.get("loses"):
            self.waiting.popitem()
            return []
        if self.steps % 2:
            return [SimpleNamespace(request_id=next(iter(self.waiting)), finished=False)]
        request_id, (ids, params) = self.waiting.popitem()
        tokens, finish, stop = self._written(ids, params)
        if self.steps == self.faults.get("aborts"):
            finish = "abort"
        answer = SimpleNamespace(token_ids=tokens, finish_reason=finish, stop_reason=stop)
        return [SimpleNamespace(request_id=request_id, finished=True, outputs=[answer])]

    def _written(self, ids: list[int], params: Params) -> tuple[tuple[int, ...], str, Any]:
        assert params.ignore_eos
        most = min(params.max_tokens, self.room - len(ids))
        out: list[int] = []
        for token in one_by_one(self.model, ids, most):
            out.append(token)
            if token in params.stop_token_ids:
                return tuple(out), "stop", token
            for text in params.stop or ():
                if text in Letters().decode(out):
                    return tuple(out), "stop", text
        return tuple(out), "length", None


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Engine]]]:
    """Puts the stand-in in vLLM's place for a model; gives the engines that were started."""
    started: list[Engine] = []

    def stand_in(model: Any, **faults: Any) -> list[Engine]:
        def started_engine(**settings: Any) -> Any:
            if "starts" in faults:
                raise faults["starts"]
            assert settings.pop("dtype") == "float32"
            assert settings.pop("enable_prefix_caching") is True
            assert settings.pop("generation_config") == "vllm"
            assert Path(settings.pop("model")) == Path("student")
            started.append(Engine(model, settings.pop("max_model_len"), faults))
            assert not settings
            return SimpleNamespace(llm_engine=started[-1])

        module: Any = ModuleType("vllm")
        module.LLM, module.SamplingParams = started_engine, Params
        kinds = SimpleNamespace(FINAL_ONLY="final only")
        module.sampling_params = SimpleNamespace(RequestOutputKind=kinds)
        archs = SimpleNamespace(get_supported_archs=lambda: {"LlamaForCausalLM"})
        module.ModelRegistry = archs
        monkeypatch.setitem(sys.modules, "vllm", module)
        monkeypatch.setattr(vllm, "release", lambda: "0.33.0")
        monkeypatch.setattr(vllm, "usable", lambda model, prompts, sampling: True)
        return started

    for name in vllm._QUIET:
        monkeypatch.delenv(name, raising=False)
    yield stand_in
    assert not any(engine.up for engine in started)


def test_answers_are_those_of_our_own_loop(engines: Callable[..., list[Engine]]) -> None:
    model = tiny("llama")
    asked = prompts(9, 20)
    settings: dict[str, Any] = {"max_new_tokens": 12, "stop_ids": ENDS, "tokenizer": Letters()}
    free = generate(model, asked, **settings)
    longest = max((a.text or "" for a in free), key=len)
    settings["stop_texts"] = ["no such text", longest[5:7]]
    own = generate(model, asked, **settings)
    assert {"end", "text", "length"} == {a.stop for a in own}
    started = engines(model)
    told: list[tuple[float, float]] = []
    got = generate(
        model, asked, folder=Path("student"), progress=lambda d, t, n="": told.append((d, t)),
        **settings,
    )  # fmt: skip
    assert got == own
    assert len(started) == 1
    assert told == [(i + 1, 9) for i in range(9)]
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert [a.text for a in generate(model, asked, folder=Path("student"), max_new_tokens=0,
                                     stop_ids=ENDS, tokenizer=Letters())] == [""] * 9  # fmt: skip


def test_sampling_takes_each_prompts_own_seed(
    engines: Callable[..., list[Engine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    engines(model)
    seen: list[tuple[tuple[int, ...], int, float, float]] = []
    add = Engine.add_request

    def noted(self: Engine, request_id: str, prompt: Any, params: Params) -> str:
        ids = tuple(prompt["prompt_token_ids"])
        seen.append((ids, params.seed, params.temperature, params.top_p))
        return add(self, request_id, prompt, params)

    monkeypatch.setattr(Engine, "add_request", noted)
    asked = [[5, 6], [5, 6], [8]]
    for own in (asked, asked[::-1]):
        generate(model, own, folder=Path("student"), max_new_tokens=3, stop_ids=ENDS,
                 sampling=Sampling(0.7, 0.9, seed=4))  # fmt: skip
    first, second = seen[:3], seen[3:]
    assert len({seed for _, seed, _, _ in first}) == 3
    assert sorted(first) == sorted(second)
    assert {(t, p) for _, _, t, p in seen} == {(0.7, 0.9)}


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ({"dies": 8}, "EngineCore encountered an issue."),
        ({"loses": 8}, "a prompt was left"),
        ({"aborts": 8}, "ended with 'abort'"),
        ({"starts": ValueError("Free memory on device is less than desired\nmore")}, "Free memory"),
        ({"starts": NotImplementedError()}, "NotImplementedError"),
    ],
)
def test_its_failures_are_one_line_and_lose_nothing(
    engines: Callable[..., list[Engine]], tmp_path: Path, faults: dict[str, Any], told: str
) -> None:
    model = tiny("llama")
    asked = prompts(9, 20)
    settings: dict[str, Any] = {"max_new_tokens": 6, "stop_ids": ENDS, "folder": Path("student")}
    own = generate(model, asked, max_new_tokens=6, stop_ids=ENDS)
    kept = tmp_path / "kept.jsonl"
    engines(model, **faults)
    with pytest.raises(ModelError, match=told) as raised:
        generate(model, asked, kept=Kept(kept), **settings)
    assert "\n" not in str(raised.value)
    came = len(kept.read_text().splitlines()) if kept.is_file() else 0
    assert came == (0 if "starts" in faults else 8 if "loses" in faults else 3)
    engine = engines(model)
    assert generate(model, asked, kept=Kept(kept), **settings) == own
    assert engine[-1].steps == 2 * (9 - came)


def test_another_engine_is_asked_anew(engines: Callable[..., list[Engine]], tmp_path: Path) -> None:
    model = tiny("llama")
    asked = prompts(3, 0)
    kept = tmp_path / "kept.jsonl"
    generate(model, asked, max_new_tokens=3, stop_ids=ENDS, kept=Kept(kept))
    started = engines(model)
    generate(model, asked, max_new_tokens=3, stop_ids=ENDS, kept=Kept(kept), folder=Path("student"))
    assert len(started) == 1
    keys = [json.loads(line)["asked"] for line in kept.read_text().splitlines()]
    assert len(set(keys)) == 6


def test_who_is_answered_by_it(
    engines: Callable[..., list[Engine]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usable = vllm.usable
    engines(None)

    def model(
        device: str = "cuda", dtype: Any = torch.bfloat16, arch: str = "LlamaForCausalLM"
    ) -> Any:
        config = SimpleNamespace(architectures=[arch], is_encoder_decoder=arch.startswith("T5"))
        return SimpleNamespace(device=torch.device(device), dtype=dtype, config=config)

    assert usable(model(), vllm.FEWEST, None)
    assert not usable(model(), vllm.FEWEST - 1, None)
    assert not usable(model(device="cpu"), 500, None)
    assert not usable(model(dtype=torch.float32), 500, None)
    assert not usable(model(arch="OddForCausalLM"), 500, None)
    assert not usable(model(arch="T5ForConditionalGeneration"), 500, None)
    # It takes temperatures up to 2; ours takes any.
    assert usable(model(), 500, Sampling(2.0))
    assert not usable(model(), 500, Sampling(2.1))
    monkeypatch.setattr(vllm, "release", lambda: None)
    assert not usable(model(), 500, None)
    monkeypatch.setattr(vllm, "release", lambda: "0.33.0")
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert not usable(model(), 500, None)


def test_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    folder = tmp_path / "student"
    # Its kernels want heads of 32 and more.
    config = LlamaConfig(**{**SIZES, "vocab_size": 512, "head_dim": 64})
    torch.manual_seed(11)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    characters = {chr(64 + i): i for i in range(512)}
    raw = Tokenizer(WordLevel(characters, unk_token="@"))
    raw.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    tokenizer.save_pretrained(folder)
    asked = prompts(9, 20)
    settings: dict[str, Any] = {"max_new_tokens": 12, "tokenizer": tokenizer}
    free = generate(model, asked, stop_ids=frozenset(), **settings)
    settings["stop_ids"] = frozenset({free[0].ids[4], free[1].ids[7]})
    settings["stop_texts"] = [(free[2].text or "")[3:5]]
    own = generate(model, asked, **settings)
    assert {"end", "text", "length"} == {a.stop for a in own}
    monkeypatch.setattr(vllm, "usable", lambda model, prompts, sampling: True)
    assert generate(model, asked, folder=folder, **settings) == own
    settings["sampling"] = Sampling(1.0, 0.9, seed=3)
    first = generate(model, asked[:1] * 4, folder=folder, **settings)
    assert len({answer.ids for answer in first}) > 1
    assert generate(model, asked[:1] * 4, folder=folder, **settings) == first
