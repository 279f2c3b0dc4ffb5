"""Runs tests: trusted code, apart from the code that it tests, whose functions it calls by wire.

Each line that arrives is a test to run or the answer to a call; each that leaves is a call or the
verdict on a test.
"""

import builtins
import contextlib
from collections.abc import Callable
from typing import Any

from epigone.evaluation.inside.wire import channel, dumps, limit, loads


class Unanswered(BaseException):
    """The tested code gave no plain value; no test may catch this."""


def main() -> None:
    """Run one test after another."""
    lines, out = channel()

    def ask(kind: str, value: object) -> None:
        out.write(dumps({kind: value}) + "\n")
        out.flush()

    def proxy(name: str) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            ask("call", [name, list(positional), named])
            answered = loads(lines.readline())
            if "value" in answered:
                return answered["value"]
            if "raised" in answered:
                raised = answered["raised"]
                kind = getattr(builtins, raised["kind"], None)
                # The end of an iteration would end the test's own loop over what it asks.
                ends = (StopIteration, StopAsyncIteration, GeneratorExit)
                if isinstance(kind, type) and issubclass(kind, Exception) and kind not in ends:
                    raise kind(raised["text"])
                raise Exception(raised["text"])
            raise Unanswered("a value that is no plain data: " + str(answered.get("not_plain")))

        call.__name__ = name
        return call

    # An answer of the tested code may unfold to more memory than the machine has.
    limit(loads(lines.readline()))
    for line in lines:
        setup, names, test, entry = loads(line)
        space: dict[str, Any] = {"__name__": "test"}
        # What a prompt defines beside the function that it asks for.
        with contextlib.suppress(Exception):
            exec(compile(setup, "setup.py", "exec"), space)
        # A tested `abs` must not stand in the assertions: only what is asked for is called.
        asked = (
            [entry] if entry else [n for n in names if n not in space and not hasattr(builtins, n)]
        )
        space.update((name, proxy(name)) for name in asked)
        try:
            exec(compile(test, "test.py", "exec"), space)
        except AssertionError as error:
            ask("verdict", ["failed", str(error)[:200]])
        except Unanswered as error:
            ask("verdict", ["failed", str(error)[:200]])
        except BaseException as error:
            ask("verdict", ["error", (type(error).__name__ + ": " + str(error))[:200]])
        else:
            ask("verdict", ["passed", ""])


if __name__ == "__main__":
    main()
