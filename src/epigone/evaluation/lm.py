"""Our model class below lm-eval: raw text in, shared prefixes computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from epigone.errors import ModelError
from epigone.models.chat import end_id, plain, stop_ids
from epigone.models.encoder_decoder import stated_limit
from epigone.models.generate import context_limit, generate
from epigone.models.kept import Kept
from epigone.models.load import Loaded
from epigone.models.sampling import Sampling
from epigone.models.score import loglikelihoods, overlong
from epigone.schema import Progress, silent

# Longest window of a rolling log-likelihood: its logits at every position are all held at once.
_WINDOW = 1024
# Requests whose texts are turned into ids together.
_TOGETHER = 1024
# Rows that are written side by side: on a CPU more take memory and gain little.
_CPU_ROWS, _GPU_ROWS = 64, 128


class SharedPrefixLM(TemplateLM):  # type: ignore[misc]
    """lm-eval's requests answered with `epigone.models`.

    `shortened` counts the requests that did not fit the model's context and lost their left. Each
    request that was answered with a text is told in `stops` why it ended.
    """

    def __init__(
        self,
        loaded: Loaded,
        progress: Progress = silent,
        *,
        chat: bool = False,
        seed: int = 0,
        kept: Kept | None = None,
    ) -> None:
        """Answer with a loaded model; progress is told of every kind of request apart."""
        super().__init__()
        self._loaded = loaded
        self._progress = progress
        self._seed = seed
        self._kept = kept
        self.shortened = 0
        self._encoded: dict[str, list[int]] = {}
        tokenizer = loaded.tokenizer
        self.tokenizer = tokenizer
        probe = tokenizer("a")["input_ids"]
        self._limit = context_limit(loaded.model)
        if loaded.encoder_decoder:
            self.backend = "seq2seq"
            # As lm-eval: what a T5 was not made for is cut, though it would run.
            self._limit = min(self._limit, stated_limit(loaded.model, tokenizer) or self._limit)
        # In chat a turn's own end may be another token than the text's.
        self._ends = stop_ids(tokenizer) if chat else frozenset({self.eot_token_id})
        self._adds_bos = bool(probe) and probe[0] == tokenizer.bos_token_id

    @property
    def tokenizer_name(self) -> str:
        """Nothing: lm-eval asks for it in chat, to name caches that are not kept here."""
        return ""

    @property
    def eot_token_id(self) -> int:
        """Id of the token that ends a text. Raises ModelError where there is none."""
        return end_id(self.tokenizer)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context."""
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None else self.eot_token_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Token ids, with the tokenizer's own special tokens exactly once."""
        if add_special_tokens is not None:
            ids = self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"]
            return list(ids)
        return self._encoded.get(string) or self._encode([string])[string]

    def _encode(self, strings: Iterable[str]) -> dict[str, list[int]]:
        """Ids of texts that are wanted together: a fast tokenizer then uses all cores."""
        bos = self.tokenizer.bos_token
        twice: dict[bool, list[str]] = {True: [], False: []}
        for string in dict.fromkeys(strings):
            twice[self._adds_bos and bos is not None and string.startswith(bos)].append(string)
        found: dict[str, list[int]] = {}
        for already, members in twice.items():
            if members:
                ids = self.tokenizer(
                    members, add_special_tokens=not already, return_attention_mask=False
                )
                found |= zip(members, ids["input_ids"], strict=True)
        return found

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation; its last turn goes on where no new one is begun."""
        rows = [{**m, "content": plain(self.tokenizer, m["content"])} for m in chat_history]

        def rendered(turns: Sequence[Mapping[str, str]]) -> str:
            text: str = self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
            return text

        try:
            return rendered(rows)
        except TemplateError as error:
            # Some templates know no turn of the system: what it says stands before the question.
            if len(rows) > 1 and rows[0]["role"] == "system":
                first, second, *rest = rows
                both = f"{first['content']}\n\n{second['content']}"
                return rendered([{**second, "content": both}, *rest])
            raise ModelError("the chat template refuses a benchmark", value=str(error)) from error

    def loglikelihood(
        self, requests: Sequence[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is the greedy one."""
        pairs = []
        # Some at a time: of a whole only the continuation's few ids are kept.
        for start in range(0, len(requests), _TOGETHER):
            chunk = [r.args for r in requests[start : start + _TOGETHER]]
            if not self._loaded.encoder_decoder:
                self._encoded = self._encode(
                    text for before, after in chunk for text in (before.rstrip(), before + after)
                )
            pairs += [((before, after), *self._pair(before, after)) for before, after in chunk]
        self._encoded = {}
        return self._loglikelihood_tokens(pairs)

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context:
            ids: tuple[list[int], list[int]] = self._encode_pair(context, continuation)
            return ids
        after = self.tok_encode(continuation, add_special_tokens=False)
        start = self.prefix_token_id
        return ([start], after) if after[:1] != [start] else (after[:1], after[1:])

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        if self._loaded.encoder_decoder:
            self.shortened += sum(len(context) > self._limit for context, _ in pairs)
            pairs = [(context[-self._limit :], continuation) for context, continuation in pairs]
        else:
            self.shortened += overlong(self._loaded.model, pairs)
        return loglikelihoods(self._loaded.model, pairs, kept=self._kept, progress=self._progress)

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihood of whole texts, in windows that share no scored token."""
        limit = min(self._limit, _WINDOW)
        out: list[float] = []
        for done, request in enumerate(requests):
            self._progress(done, len(requests))
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = []
            for start in range(0, len(ids), limit - 1):
                end = min(start + limit - 1, len(ids))
                # The last window reaches back, so that its tokens have a full context.
                left = max(0, end - limit)
                before = ids[left:start] if start else [self.prefix_token_id]
                windows.append((before, ids[start:end]))
            found = loglikelihoods(self._loaded.model, windows, kept=self._kept)
            out.append(sum(value for value, _ in found))
        return out

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to a stop text; requests of equal settings go together."""
        out: list[str] = [""] * len(requests)
        groups: dict[tuple[tuple[str, ...], int, Sampling | None], list[int]] = {}
        for i, request in enumerate(requests):
            wanted = normalize_gen_kwargs(request.args[1])
            stops = tuple(wanted["until"])
            asked = (stops, int(wanted["max_gen_toks"]), self._sampling(wanted))
            groups.setdefault(asked, []).append(i)
        for (stops, longest, sampling), members in groups.items():
            # A decoder's answer needs room in the same context, but no more than half of it.
            room = self._limit
            if not self._loaded.encoder_decoder:
                room = max(room - longest, room // 2)
            encoded = self._encode(requests[i].args[0] for i in members)
            prompts = [encoded[requests[i].args[0]] for i in members]
            self.shortened += sum(len(p) > room for p in prompts)
            answers = generate(
                self._loaded.model,
                [p[-room:] or [self.prefix_token_id] for p in prompts],
                max_new_tokens=longest,
                stop_ids=self._ends,
                stop_texts=stops,
                tokenizer=self.tokenizer,
                batch_rows=_CPU_ROWS if self._loaded.device.type == "cpu" else _GPU_ROWS,
                sampling=sampling,
                kept=self._kept,
                folder=self._loaded.folder,
                progress=self._progress,
            )
            for i, answer in zip(members, answers, strict=True):
                out[i] = answer.text or ""
                # One request is asked several times where several samples are wanted.
                requests[i].stops = [*getattr(requests[i], "stops", ()), answer.stop]
        return out

    def _sampling(self, settings: Mapping[str, Any]) -> Sampling | None:
        temperature = float(settings.get("temperature", 1.0))
        if not settings["do_sample"] or temperature == 0:
            return None
        return Sampling(temperature, float(settings.get("top_p", 1.0)), self._seed)
