"""Runs code that a model wrote, and answers calls of its functions with plain data.

The first line that arrives is the program, each later one a call. What is printed goes nowhere.
Where nothing of Epigone is: only wire.py goes along.
"""

import builtins

from epigone.evaluation.inside.wire import NotPlain, channel, dumps, limit, loads


def told(error: BaseException) -> dict[str, str]:
    """The name of an error's class that a test may expect, and the error in one short line."""
    kinds = [k.__name__ for k in type(error).__mro__ if getattr(builtins, k.__name__, None) is k]
    try:
        text = str(error)[:200]
    except Exception:
        text = ""
    return {"kind": kinds[0] if kinds else "Exception", "name": type(error).__name__[:60],
            "text": text.split("\n")[0]}  # fmt: skip


def main() -> None:
    """Answer until the calls end."""
    calls, answers = channel()
    settings, program = loads(calls.readline())
    limit(settings)

    def answer(packed: str) -> None:
        answers.write(packed + "\n")
        answers.flush()

    space: dict[str, object] = {"__name__": "solution"}
    try:
        exec(compile(program, "solution.py", "exec"), space)
    except BaseException as error:
        answer(dumps({"raised": told(error)}))
        return
    names = sorted(n for n, v in space.items() if callable(v) and isinstance(n, str))
    answer(dumps({"ready": names}))
    for line in calls:
        name, positional, named = loads(line)
        try:
            called = space[name]
            packed = dumps({"value": called(*positional, **named)})  # type: ignore[operator]
        except NotPlain as error:
            packed = dumps({"not_plain": str(error)[:60]})
        except BaseException as error:
            packed = dumps({"raised": told(error)})
        answer(packed)


if __name__ == "__main__":
    main()
