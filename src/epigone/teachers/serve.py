"""A local teacher: a GGUF model behind an OpenAI-compatible endpoint of this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigone.errors import EndpointError, MissingExtra, ModelError
from epigone.models import catalogue, references
from epigone.models.endpoint import KEY, Endpoint, key_in_environment
from epigone.processes import cores
from epigone.schema import Progress, silent

# Tokens of a prompt and its answer together, where nobody asks for another number.
CONTEXT = 4096
_LOCAL = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Serving:
    """A model that is being served, with so many tokens of context for each request.

    `chats` is whether it has a chat template of its own.
    """

    url: str
    model: str
    chats: bool
    context: int

    @property
    def ref(self) -> str:
        """What --endpoint takes."""
        return f"{self.url}#{self.model}"


@contextmanager
def serving(
    model: str,
    *,
    port: int = 0,
    parallel: int = 4,
    context: int = CONTEXT,
    threads: int = 0,
    progress: Progress = silent,
) -> Iterator[Serving]:
    """Serve a catalogue model or a GGUF file on 127.0.0.1; it ends with the process.

    `parallel` requests share the machine, each with `context` tokens, or as many as the model was
    trained on; port 0 is any free one, threads 0 a thread for each core. Where $EPIGONE_API_KEY is
    set, requests need it. Raises MissingExtra without xllamacpp, UserError for what is no GGUF,
    EndpointError for a port in use.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtra("serving a local teacher", "serve")
    file, name = gguf_of(model, progress)
    template, trained = _metadata(file)
    import xllamacpp

    told = xllamacpp.CommonParams()
    told.model.path = str(file)
    told.model_alias = {name}
    told.hostnames, told.port = [_LOCAL], port
    # No model knows what to make of more than it was trained on.
    context = min(context, trained or context)
    told.n_parallel, told.n_ctx = parallel, parallel * context
    told.cpuparams.n_threads = threads or cores()
    # What is for people and for other pages in a browser: nobody asks for it here.
    told.ui = told.endpoint_slots = told.endpoint_props = False
    told.warmup = False
    # MiB of prompts that are kept for later ones; its own default would be 8,192.
    told.cache_ram_mib = 256
    told.verbosity = 0
    if key := key_in_environment(Endpoint("", "", KEY)):
        told.api_keys = [key]
    server = _started(xllamacpp.Server, told, port)
    try:
        yield Serving(f"{server.listening_address}/v1", name, template, context)
    finally:
        del server


def _started(start: Callable[[Any], Any], told: Any, port: int) -> Any:
    try:
        return start(told)
    except RuntimeError as error:
        what = f"the model cannot be served on port {port}"
        raise EndpointError(what, value=str(error)[:200], fix="another --port") from None


def gguf_of(model: str, progress: Progress = silent) -> tuple[Path, str]:
    """The GGUF file of a catalogue name or a path, and what the model is called.

    Raises UserError for anything else.
    """
    found = references.parse(model)
    if found.kind == "catalogue":
        entry = catalogue.find(found.value)
        if entry.kind == "model" and entry.file.endswith(".gguf"):
            return catalogue.fetch(entry, progress), found.value
    elif found.kind == "gguf":
        return Path(found.value), Path(found.value).stem
    raise ModelError(
        "no model that can be served", value=model,
        fix="a catalogue model or a GGUF file; for other models 'vllm serve' on a GPU",
    )  # fmt: skip


def _metadata(file: Path) -> tuple[bool, int]:
    """Whether a GGUF file has a chat template, and how many tokens it was trained on at once."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(file).fields
        kind = bytes(fields["general.architecture"].parts[-1]).decode()
        length = fields.get(f"{kind}.context_length")
        return "tokenizer.chat_template" in fields, int(length.parts[-1][0]) if length else 0
    except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ModelError("not a GGUF file", value=str(file), fix=str(error)[:200]) from None
