from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigone.runs.needs import Needs
from epigone.runs.schedule import Schedule, ways
from epigone.study.specs import ItemsSpec
from epigone.study.step import Step

BOX = Needs(4, 2, 8.0)


def chain(*inputs: Step, name: str, stage: str = "style") -> Step:
    spec = ItemsSpec(task=name, task_version=1)
    return Step(stage, (name,), spec, {str(at): i for at, i in enumerate(inputs)})


@st.composite
def studies(draw: st.DrawFn) -> tuple[list[Step], dict[str, float], dict[str, Needs]]:
    """Steps with inputs among those before them, how long they take, and what they need."""
    steps: list[Step] = []
    for at in range(draw(st.integers(1, 9))):
        inputs = (
            draw(st.lists(st.sampled_from(steps), max_size=2, unique_by=lambda s: s.name))
            if steps
            else []
        )
        steps.append(chain(*inputs, name=f"s{at}"))
    seconds = {s.name: float(draw(st.integers(1, 9))) for s in steps}
    needs = {
        s.name: Needs(draw(st.integers(0, 4)), draw(st.integers(0, 2)), draw(st.integers(0, 8)))
        for s in steps
    }
    return steps, seconds, needs


def simulate(
    steps: Sequence[Step],
    seconds: dict[str, float],
    needs: dict[str, Needs],
    boxes: Sequence[Needs],
    claims: dict[str, str] | None = None,
) -> dict[str, tuple[float, float]]:
    """Begin and end of each step where the schedule decides; asserts that nothing is overfull."""
    schedule = Schedule(
        steps,
        done=(),
        asked=[s.name for s in steps],
        seconds=lambda s: seconds[s.name],
        needs=lambda s: needs[s.name],
        claims=lambda s: (claims or {}).get(s.name, ""),
    )
    now, times = 0.0, {}
    running: list[tuple[float, Step, list[int]]] = []
    while schedule.left or running:
        while True:
            free = [*boxes]
            for _, step, places in running:
                for at in places:
                    assert needs[step.name].part().within(free[at])
                    free[at] = free[at].less(needs[step.name].part())
            placed = schedule.place(free, [s for _, s, _ in running])
            if placed is None:
                break
            step, places = placed
            assert all(times[i.name][1] <= now for i in step.inputs.values())
            schedule.begin(step)
            times[step.name] = (now, now + seconds[step.name])
            running.append((times[step.name][1], step, places))
        assert running, "nothing runs, and something is left"
        now = min(end for end, _, _ in running)
        for _, step, _ in [r for r in running if r[0] == now]:
            schedule.finish(step)
        running = [r for r in running if r[0] > now]
    return times


@given(studies())
def test_all_is_done_once_after_its_inputs_and_nothing_is_overfull(
    study: tuple[list[Step], dict[str, float], dict[str, Needs]],
) -> None:
    steps, seconds, needs = study
    times = simulate(steps, seconds, needs, [BOX, BOX])
    assert times.keys() == {s.name for s in steps}


@given(studies())
def test_the_longest_way_is_the_longest_of_all_chains(
    study: tuple[list[Step], dict[str, float], dict[str, Needs]],
) -> None:
    steps, seconds, _ = study

    def brute(step: Step) -> float:
        heirs = [s for s in steps if step.name in {i.name for i in s.inputs.values()}]
        return seconds[step.name] + max(map(brute, heirs), default=0.0)

    assert ways(steps, lambda s: seconds[s.name]) == {s.name: brute(s) for s in steps}


@settings(max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 3))
def test_independent_steps_end_within_four_thirds_of_the_best_order(
    lengths: list[int], gpus: int
) -> None:
    steps = [chain(name=f"s{at}") for at in range(len(lengths))]
    seconds = {s.name: float(n) for s, n in zip(steps, lengths, strict=True)}
    needs = {s.name: Needs(0, 1, 0.0) for s in steps}
    times = simulate(steps, seconds, needs, [Needs(4, gpus, 8.0)])

    def of(order: tuple[int, ...]) -> int:
        busy = [0] * gpus
        for length in order:
            busy[busy.index(min(busy))] += length
        return max(busy)

    best = min(map(of, permutations(lengths)))
    # Graham (1969): longest first is never worse than 4/3 - 1/(3m) of the optimum.
    assert max(end for _, end in times.values()) <= (4 / 3 - 1 / (3 * gpus)) * best + 1e-9


def test_a_trunk_stands_before_leaves_that_take_longer_than_it() -> None:
    trunk = chain(name="trunk", stage="benchmark")
    leaf = chain(trunk, name="leaf")
    alone = chain(name="alone")
    seconds = {trunk.name: 2.0, leaf.name: 3.0, alone.name: 4.0}
    needs = dict.fromkeys(seconds, Needs(1, 1, 0.0))
    times = simulate([alone, trunk, leaf], seconds, needs, [Needs(4, 1, 1.0)])
    assert [n for n, _ in sorted(times.items(), key=lambda t: t[1])] == [
        trunk.name,
        alone.name,
        leaf.name,
    ]


def test_data_comes_before_all_else() -> None:
    corpus = chain(name="c", stage="corpus")
    alone = chain(name="alone")
    seconds = {corpus.name: 1.0, alone.name: 90.0}
    times = simulate([alone, corpus], seconds, dict.fromkeys(seconds, BOX), [BOX])
    assert times[corpus.name][0] == 0.0


def test_nothing_begins_before_data_that_can_be_made_now() -> None:
    items = chain(name="i", stage="items")
    corpus = chain(items, name="c", stage="corpus")
    alone = chain(name="alone")
    asking = chain(name="ask", stage="ask")
    later = chain(asking, name="later", stage="corpus")
    steps = [alone, items, corpus, asking, later]
    seconds = dict.fromkeys([s.name for s in steps], 1.0) | {asking.name: 90.0}
    times = simulate(steps, seconds, dict.fromkeys(seconds, Needs(1, 0, 0.0)), [BOX])
    assert times[alone.name][0] == 2.0  # after the corpus, and not after the teacher's answers
    assert times[asking.name][0] == 0.0


def test_small_steps_do_not_keep_a_large_one_waiting_for_ever() -> None:
    large = chain(name="large", stage="benchmark")
    small = [chain(name=f"small{n}") for n in range(8)]
    seconds = {large.name: 50.0} | {s.name: 10.0 + n for n, s in enumerate(small)}
    needs = {large.name: Needs(4, 0, 1.0)} | {s.name: Needs(1, 0, 1.0) for s in small}
    first = chain(name="first", stage="items")
    seconds[first.name], needs[first.name] = 1.0, Needs(1, 0, 1.0)
    times = simulate([first, *small, large], seconds, needs, [BOX])
    assert times[large.name][0] == 1.0


def test_what_needs_no_gpu_goes_on_beside_one_that_waits_for_a_gpu() -> None:
    training = [chain(name=f"t{n}", stage="benchmark") for n in range(2)]
    scoring = chain(name="scoring")
    seconds = {t.name: 100.0 for t in training} | {scoring.name: 1.0}
    needs = {t.name: Needs(1, 2, 1.0) for t in training} | {scoring.name: Needs(1, 0, 1.0)}
    times = simulate([*training, scoring], seconds, needs, [BOX])
    assert times[scoring.name] == (0.0, 1.0)


def test_one_endpoint_is_asked_by_one_step_at_a_time() -> None:
    asking = [chain(name=f"ask{n}", stage="ask") for n in range(3)]
    seconds = dict.fromkeys([a.name for a in asking], 5.0)
    needs = dict.fromkeys(seconds, Needs(0, 0, 1.0))
    claims = {asking[0].name: "one", asking[1].name: "one", asking[2].name: "two"}
    times = simulate(asking, seconds, needs, [BOX], claims)
    assert sorted(begin for begin, _ in times.values()) == [0.0, 0.0, 5.0]
    assert times[asking[2].name][0] == 0.0


def test_parts_of_a_step_lie_on_several_machines_or_on_one() -> None:
    wide = chain(name="wide", stage="benchmark")
    schedule = Schedule(
        [wide],
        done=(),
        asked=[wide.name],
        seconds=lambda s: 1.0,
        needs=lambda s: Needs(4, 4, 8.0, parts=4),
    )
    assert schedule.place([BOX, BOX]) == (wide, [0, 0, 1, 1])
    assert schedule.place([BOX, Needs(4, 1, 8.0)]) is None
    assert schedule.place([Needs(9, 9, 99.0)]) == (wide, [0, 0, 0, 0])
    assert schedule.place([]) is None


@pytest.mark.parametrize("fails", ["root", "middle"])
def test_a_failure_takes_its_descendants_and_nothing_else(fails: str) -> None:
    root = chain(name="root")
    middle = chain(root, name="middle")
    leaf = chain(middle, name="leaf")
    apart = chain(name="apart")
    steps = [root, middle, leaf, apart]
    schedule = Schedule(
        steps,
        done=[] if fails == "root" else [root.name],
        asked=[s.name for s in steps],
        seconds=lambda s: 1.0,
        needs=lambda s: Needs(1, 0, 0.0),
    )
    step = root if fails == "root" else middle
    schedule.begin(step)
    dropped = schedule.drop(step)
    assert dropped == [middle, leaf][0 if fails == "root" else 1 :]
    assert schedule.left == [apart]


def test_room_is_kept_for_a_large_step_where_it_can_work() -> None:
    large = chain(name="large")
    small = [chain(name=f"s{at}") for at in range(40)]
    seconds = {"large": 100.0}
    boxes = [Needs(16, 0, 40.0), Needs(8, 0, 256.0)]
    steps = [large, *small]
    schedule = Schedule(
        steps,
        done=(),
        asked=[s.name for s in steps],
        seconds=lambda s: seconds.get(s.axes[0], 1.0),
        needs=lambda s: Needs(8, 0, 200.0) if s is large else Needs(1, 0, 2.0),
    )
    busy = [boxes[0], boxes[1].less(Needs(1, 0, 2.0))]  # by what began before
    placed = schedule.place(busy, [], (), boxes)
    assert placed is not None and placed[1] == [0] and placed[0] in small


def test_what_asks_an_endpoint_begins_though_no_core_is_free() -> None:
    ask, train = chain(name="ask"), chain(name="train")
    schedule = Schedule(
        [ask, train],
        done=(),
        asked=[ask.name, train.name],
        seconds=lambda s: 1.0 if s is ask else 99.0,
        needs=lambda s: Needs(0, 0, 1.0) if s is ask else Needs(1, 0, 1.0),
        claims=lambda s: "endpoint" if s is ask else "",
    )
    assert schedule.place([Needs(0, 0, 8.0)]) == (ask, [0])
    schedule.begin(ask)
    assert schedule.place([Needs(0, 0, 8.0)], [ask]) is None
    assert schedule.ready == [train]
