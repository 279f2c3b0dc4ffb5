"""Generation by vLLM, where it is installed: same prompts, same ends, same kind of answer."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from epigone.errors import ModelError
from epigone.models.encoder_decoder import is_encoder_decoder
from epigone.models.sampling import Sampling
from epigone.models.stops import Generated, Hooks, Stops

# Its start takes about a minute, in which this many prompts are answered without it.
FEWEST = 64
# Set before the first import. It would tell its makers of each use, and write to the standard
# output, which belongs to what a command prints.
_QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
_HOTTEST = 2.0
# How much of the free memory it may take.
_SHARE = 0.9


def release() -> str | None:
    """The installed version, in which digits may differ."""
    try:
        return version("vllm")
    except PackageNotFoundError:
        return None


def usable(model: Any, prompts: int, sampling: Sampling | None) -> bool:
    """Whether vLLM answers so many prompts: a decoder that it knows, in bf16 on a GPU.

    In fp32 our weights are rounded after they are loaded, which vLLM would not see.
    """
    if prompts < FEWEST or model.device.type != "cuda" or model.dtype != torch.bfloat16:
        return False
    if release() is None or is_encoder_decoder(model):
        return False
    if sampling is not None and sampling.temperature > _HOTTEST:
        return False
    try:
        known = _imported().ModelRegistry.get_supported_archs()
    except (ImportError, OSError):
        # It was built for another machine.
        return False
    return any(name in known for name in model.config.architectures or ())


def generate_rows(
    folder: Path,
    prompts: Sequence[Sequence[int]],
    stops: Stops,
    hooks: Hooks,
    *,
    dtype: torch.dtype,
    sampling: Sampling | None,
    seeds: Sequence[int],
) -> list[Generated]:
    """What the model of a folder writes after each prompt; `hooks` are told as answers come.

    Where a model's positions end, an answer is a token shorter than our own loop's. Digits, and so
    in a near tie a token, may depend on which prompts are answered together.

    Raises ModelError where vLLM cannot start or ends before all is answered.
    """
    if stops.max_new < 1:
        return [stops.result([], "length") for _ in prompts]
    room = min(stops.limit, max(map(len, prompts)) + stops.max_new)
    done: dict[int, Generated] = {}
    tokens = 0
    with _engine(folder, room, dtype) as engine:
        with _told():
            for i, prompt in enumerate(prompts):
                params = _params(stops, sampling, seeds[i])
                engine.add_request(str(i), {"prompt_token_ids": list(prompt)}, params)
        while len(done) < len(prompts):
            with _told():
                new = _finished(engine, stops)
            if new:
                done |= new
                tokens += sum(len(answer.ids) for answer in new.values())
                hooks.finished(new)
                hooks.progress(len(done), len(prompts), f"{tokens} tokens")
    return [done[i] for i in range(len(prompts))]


def _finished(engine: Any, stops: Stops) -> dict[int, Generated]:
    """What one step of the engine finished."""
    if not engine.has_unfinished_requests():
        raise RuntimeError("a prompt was left without an answer")
    return {
        int(output.request_id): _answer(output.outputs[0], stops)
        for output in engine.step()
        if output.finished
    }


def _params(stops: Stops, sampling: Sampling | None, seed: int) -> Any:
    vllm = _imported()
    return vllm.SamplingParams(
        temperature=sampling.temperature if sampling else 0.0,
        top_p=sampling.top_p if sampling else 1.0,
        # It takes 63 bits.
        seed=seed % 2**63,
        max_tokens=stops.max_new,
        stop=list(stops.texts) or None,
        stop_token_ids=sorted(stops.ids),
        # Of a model's own end tokens, those count that were asked for.
        ignore_eos=True,
        detokenize=bool(stops.texts),
        output_kind=vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
    )


def _answer(output: Any, stops: Stops) -> Generated:
    ids = list(output.token_ids)
    if output.finish_reason == "length":
        return stops.result(ids, "length")
    if output.finish_reason != "stop":
        raise RuntimeError(f"an answer ended with {output.finish_reason!r}")
    if ids and ids[-1] in stops.ids:
        return stops.result(ids[:-1], "end")
    return stops.result(ids, "text")


@contextmanager
def _engine(folder: Path, room: int, dtype: torch.dtype) -> Iterator[Any]:
    settings: dict[str, Any] = {}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info()
        settings["gpu_memory_utilization"] = _SHARE * free / total
    with _told():
        llm = _imported().LLM(
            model=str(folder),
            dtype=str(dtype).removeprefix("torch."),
            max_model_len=room,
            enable_prefix_caching=True,
            generation_config="vllm",
            **settings,
        )
    engine = llm.llm_engine
    try:
        yield engine
    finally:
        # Its process holds the GPU's memory until it ends.
        engine.engine_core.shutdown()
        del engine, llm
        gc.collect()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Its own errors have no common class.
        raise ModelError(
            "vLLM could not answer",
            value=(str(error).splitlines() or [type(error).__name__])[0][:300],
            fix="its messages are above; where vLLM is not installed, Epigone writes by itself",
        ) from error


@contextmanager
def aside(model: Any) -> Iterator[None]:
    """Keep a model's weights off the GPU meanwhile: vLLM loads its own."""
    device = model.device
    if device.type == "cpu":
        yield
        return
    model.to("cpu")
    try:
        yield
    finally:
        model.to(device)


def _imported() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import vllm

    return vllm
