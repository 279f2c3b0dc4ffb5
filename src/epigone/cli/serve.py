"""epigone teacher serve: a local model as a teacher."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack
from typing import Annotated

import typer

from epigone.cli.common import Json, Teller, say_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve")(serve)


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Catalogue name or GGUF file.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 8080,
    parallel: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 4,
    context: Annotated[int, typer.Option(min=64, help="Tokens of a prompt and its answer.")] = 4096,
    threads: Annotated[int, typer.Option(min=0, help="0 for one a core.")] = 0,
    json: Json = False,
) -> None:
    """Serve a model on 127.0.0.1 as an OpenAI-compatible endpoint, until ^C.

    Example: epigone teacher serve smollm2-135m-instruct --port 8080
    """
    from epigone.teachers.serve import serving

    with ExitStack() as stack:
        with Teller() as teller:
            served = stack.enter_context(
                serving(
                    model, port=port, parallel=parallel, context=context, threads=threads,
                    progress=teller,
                )
            )  # fmt: skip
        if json:
            say_json(
                {"endpoint": served.ref, "url": served.url, "model": served.model,
                 "context": served.context}
            )  # fmt: skip
        else:
            how = "" if served.chats else " --completions, for it has no chat template"
            print(
                f"serving {served.model} until ^C, {served.context:,} tokens a request; "
                f"ask it with --endpoint {served.ref}{how}"
            )
        sys.stdout.flush()
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        signal.signal(signal.SIGINT, lambda *_: ended.set())
        # In slices, because a wait without an end would hear no signal.
        while not ended.wait(0.5):
            pass
    sys.stdout.flush()
    # The server's threads wait for connections that nobody will make.
    os._exit(0)
