"""The command line, one file a verb."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import typer

from epigone.cli import (
    benchmark,
    corpus,
    generate,
    new,
    plan,
    report,
    run,
    schema,
    show,
    status,
    style,
    train,
)
from epigone.errors import EpigoneError, UnknownName, UserError

app = typer.Typer(
    name="epigone",
    help="What does a language model really learn when it imitates another one?\n\n"
    "A study names a teacher, base models, imitation data and how much of it. Epigone trains the "
    "students, measures them, and says how much of the style gap closed, how much of the "
    "capability gap, and whether more data or a better base would buy more.\n\n"
    "Start with: epigone new my-study; epigone plan my-study; epigone run my-study",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
for _verb in (new, plan, run, status, report, show, schema, train, generate, benchmark, style):
    _verb.register(app)
corpus.register(app)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if version:
        from epigone import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line: exit code 0 done, 1 a step failed, 2 the user's mistake, 130 stop."""
    # As for ^C, so that a terminated run ends its worker and lets its lease go.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        _end(str(error), 2)
    except EpigoneError as error:
        _end(str(error), 1)
    except KeyboardInterrupt:
        _end("interrupted; run the same command again to continue", 130)
    except BrokenPipeError:
        # The reader of a pipe has gone, `epigone plan | head` say; that is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except typer.Abort:
        _end("interrupted", 130)
    except Exception as error:
        # The parser's own exceptions are recognised by what they can do: their home module has
        # moved between releases of typer.
        if not hasattr(error, "format_message"):
            raise
        _end(_usage(error), 2)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _usage(error: Any) -> str:
    text = str(error.format_message()).strip().splitlines()
    line = text[0] if text else "run 'epigone --help'"
    if line.startswith("No such command"):
        return str(UnknownName("verb", line.split("'")[1], list(_verbs())))
    context = getattr(error, "ctx", None)
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    return line.rstrip(".") + hint


def _verbs() -> list[str]:
    commands = [c.name or "" for c in app.registered_commands]
    return commands + [g.name or "" for g in app.registered_groups]


def _end(message: str, code: int) -> None:
    print(f"epigone: {message}", file=sys.stderr)
    sys.exit(code)
