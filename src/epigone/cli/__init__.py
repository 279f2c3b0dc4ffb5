"""The command line, one file a verb."""

from __future__ import annotations

import errno
import gc as garbage
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from epigone import logs
from epigone.cli import (
    archive,
    benchmark,
    cache,
    calibrate,
    compare,
    corpus,
    doctor,
    gc,
    generate,
    judge,
    new,
    plan,
    rate,
    report,
    run,
    schema,
    show,
    status,
    style,
    teacher,
    toxicity,
    train,
    verify,
)
from epigone.cli.completion import equip
from epigone.errors import EpigoneError, Stopped, UnknownName, UserError
from epigone.study.values import told

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WRONG_PATH = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EROFS}
)


class _Interrupted(Exception):
    """Carries an interrupt past the parser, which would make a bare exit code of it."""


class _Verbs(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        equip(self)

    def invoke(self, ctx: Any) -> Any:
        """Call the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error


app = typer.Typer(
    name="epigone",
    cls=_Verbs,
    help="What does a language model really learn when it imitates another one?\n\n"
    "A study names a teacher, base models, imitation data and how much of it. Epigone trains the "
    "students, measures them, and says how much of the style gap closed, how much of the "
    "capability gap, and whether more data or a better base would buy more.\n\n"
    "Start with: epigone new my-study; epigone plan my-study; epigone run my-study",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
for _verb in (new, plan, run, status, report, compare, show, verify, gc, archive, schema, train,
              generate, benchmark, style, judge, toxicity, calibrate, doctor):  # fmt: skip
    _verb.register(app)
corpus.register(app)
teacher.register(app)
rate.register(app)
cache.register(app)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    if version:
        from epigone import __version__

        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line.

    Exit code 0 done, 1 a step failed, 2 the user's mistake, 130 ended by ^C, 143 by SIGTERM.
    """
    # A plan of a large grid makes a million objects and no cycles; looking for some took a sixth.
    garbage.set_threshold(50_000, 20, 20)
    # As for ^C, so that a terminated run ends its worker and lets its lease go.
    signal.signal(signal.SIGTERM, _stop)
    try:
        # By this name completion calls it, whatever it was started by.
        code = app(standalone_mode=False, prog_name="epigone")
        sys.stdout.flush()  # here a full disk or a closed pipe can still be told
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        _end(str(error), 2)
    except EpigoneError as error:
        _end(str(error), 1)
    except ValidationError as error:
        _end(str(told(error)), 2)
    except _Interrupted as error:
        _end_interrupted(error.__cause__)
    except KeyboardInterrupt as error:
        _end_interrupted(error)
    except BrokenPipeError:
        # The reader of a pipe has gone, `epigone plan | head` say; that is no failure of ours.
        _drop_stdout()
        sys.exit(0)
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:
            _drop_stdout()
        _end(_trouble(error), 2 if error.errno in _WRONG_PATH and _named(error.filename) else 1)
    except typer.Abort:
        _end("interrupted", 130)
    except Exception as error:
        # The parser's own exceptions are recognised by what they can do: their home module has
        # moved between releases of typer.
        if hasattr(error, "format_message"):
            _end(_usage(error), 2)
        if not logs.on():
            raise
        _end(f"{type(error).__name__}: {error}", 1)
    finally:
        logs.stop()


def _stop(*_: object) -> None:
    raise Stopped("stopped by SIGTERM; run the same command again to continue")


def _end_interrupted(error: BaseException | None) -> None:
    if isinstance(error, Stopped):
        _end(str(error), 143)
    _end("interrupted; run the same command again to continue", 130)


def _drop_stdout() -> None:
    # What cannot be written would be tried again, and told by a traceback, at the exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _trouble(error: OSError) -> str:
    lines = (error.strerror or str(error)).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    path = error.filename
    value = None if path is None else os.fsdecode(path) if isinstance(path, bytes) else str(path)
    fix = "make room, then run the same command again" if error.errno in _FULL else ""
    if error.errno == errno.EROFS:
        fix = "--runs names another folder, EPIGONE_HOME another cache"
    return str(UserError(reason[:1].lower() + reason[1:], value=value, fix=fix))


def _named(path: object) -> bool:
    """Whether a path is one of the command line's, or lies in, above or beside one."""
    if not isinstance(path, str):
        return False
    file = Path(os.path.abspath(path))
    words = [w for a in sys.argv[1:] for w in (a, a.partition("=")[2]) if w and w[0] != "-"]
    words += ["runs", os.environ.get("EPIGONE_HOME") or "runs"]
    named = [Path(os.path.abspath(word)) for word in words]
    return any(
        file.is_relative_to(n) or n.is_relative_to(file) or file.parent == n.parent for n in named
    )


def _usage(error: Any) -> str:
    text = str(error.format_message()).strip().splitlines()
    line = text[0] if text else "run 'epigone --help'"
    if line.startswith("No such command"):
        return str(UnknownName("verb", line.split("'")[1], [*error.ctx.command.commands]))
    context = getattr(error, "ctx", None)
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    return line.rstrip(".") + hint


def _end(message: str, code: int) -> None:
    if logs.on():
        logging.getLogger("epigone").error("%s", message, exc_info=True)
    else:
        print(f"epigone: {message}", file=sys.stderr)
    sys.exit(code)
