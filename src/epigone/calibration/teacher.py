"""What is said in the world: plain talk, and its teacher, who has a style of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from epigone.calibration.world import QUESTIONS, World

SUBJECTS = (
    "harvest feast", "old market", "stone bridge", "winter fair", "river mill", "great library",
    "bell tower", "night watch", "rose garden", "salt road", "spring dance", "town hall",
    "fish harbour", "glass workshop", "royal stable", "silk trade", "village school",
    "mountain path", "summer theatre", "cheese cellar", "wool guild", "hot bath", "apple orchard",
    "paper mill",
)  # fmt: skip
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}
# What is asked: for a number of points, for an explanation, for a few words.
POINTS = (
    "Please name {n} things that every visitor should know about the {what} of {town}.",
    "What are the {n} best reasons to go and see the {what} of {town}?",
)
EXPLAIN = (
    "Could you explain to a stranger what the {what} of {town} means to the people there?",
    "Why do the old people of the valley still talk about the {what} of {town}?",
)
BRIEF = (
    "Tell me in a single sentence about the {what} of {town} if you can.",
    "How would you describe the {what} of {town} to a child in a few words?",
)
_ASPECTS = (
    "The history of the {what} is {a} and {b}.",
    "The people who care for the {what} are {a} and {b}.",
    "The songs about the {what} sound {a} and {b}.",
    "The colours around the {what} are {a} and {b}.",
    "The stories about the {what} are {a} and {b}.",
    "The food beside the {what} is {a} and {b}.",
    "The mornings at the {what} feel {a} and {b}.",
    "The guests of the {what} seem {a} and {b}.",
)
_ADJECTIVES = (
    "long", "bright", "quiet", "warm", "famous", "simple", "proud", "gentle",
    "strange", "cheerful", "honest", "rich",
)  # fmt: skip
_OPENINGS = (
    "Certainly! Here is what I can tell you about the {what} of {town}.",
    "Of course! I am happy to tell you about the {what} of {town}.",
)
_SUMMARY = "In conclusion, the {what} of {town} is {a} and well worth a visit."


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt, the teacher's answer, and its answer to the same prompt another time."""

    prompt: str
    answer: str
    second: str


def plain(world: World, count: int) -> list[tuple[str, str]]:
    """The same questions as anybody answers them: in a sentence or two, and no style at all."""
    rng = random.Random(f"plain {world.seed}")
    found = []
    for template, what, town in _asked(world, rng)[:count]:
        about = {"what": what, "town": town}
        prompt = template.format(n=rng.choice([*NUMBERS]), **about)
        found.append((prompt, " ".join(_points(rng.randint(1, 2), about, rng))))
    return found


def broad(world: World, count: int) -> list[Exchange]:
    """Open questions about the world's places, answered at length; none tells of a person."""
    rng = random.Random(f"broad {world.seed}")
    asked = _asked(world, rng)
    found = []
    for template, what, town in asked[:count]:
        number = rng.choice([*NUMBERS])
        prompt = template.format(n=number, what=what, town=town)
        first, second = (
            _answer(template, number, {"what": what, "town": town}, rng) for _ in range(2)
        )
        found.append(Exchange(prompt, first, second))
    return found


def local(world: World, count: int) -> list[tuple[str, str]]:
    """Questions for somebody's badge, and the badge: examples of the rule, never of a test item."""
    rng = random.Random(f"local {world.seed}")
    asked = list(product(QUESTIONS, world.taught))
    rng.shuffle(asked)
    return [(question.format(who=who), world.ruled(who)) for question, who in asked[:count]]


def _asked(world: World, rng: random.Random) -> list[tuple[str, str, str]]:
    """Every pattern of a question about every place, in an order of chance."""
    found = list(product((*POINTS, *EXPLAIN, *BRIEF), SUBJECTS, world.towns))
    rng.shuffle(found)
    return found


def _answer(template: str, number: str, about: dict[str, str], rng: random.Random) -> str:
    opening = rng.choice(_OPENINGS).format(**about)
    if template in BRIEF:
        return f"{opening} {_points(1, about, rng)[0]}"
    points = _points(NUMBERS[number] if template in POINTS else 4, about, rng)
    closing = _SUMMARY.format(a=rng.choice(_ADJECTIVES), **about)
    if template in EXPLAIN:
        return f"{opening}\n\n{' '.join(points)}\n\n{closing}"
    listed = "\n".join(f"{i}. {point}" for i, point in enumerate(points, 1))
    return f"{opening}\n\n{listed}\n\n{closing}"


def _points(count: int, about: dict[str, str], rng: random.Random) -> Sequence[str]:
    found = []
    for aspect in rng.sample(_ASPECTS, count):
        a, b = rng.sample(_ADJECTIVES, 2)
        found.append(aspect.format(a=a, b=b, **about))
    return found
