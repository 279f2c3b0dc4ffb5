"""An invented world: its people, the facts about them, a rule, and the plain text that tells them.

Everything follows from a seed. Nothing of it is true anywhere, so no model knows it beforehand.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

# Words of the language that the world is told in; names are invented.
TRADES = (
    "baker", "weaver", "smith", "potter", "tailor", "miller", "sailor", "hunter",
    "farmer", "painter", "mason", "carpenter", "cook", "shepherd", "brewer", "scribe",
)  # fmt: skip
ANIMALS = (
    "cat", "dog", "goat", "raven", "horse", "goose", "ferret", "donkey",
    "rabbit", "pigeon", "tortoise", "sheep", "hedgehog", "falcon", "pony", "mouse",
)  # fmt: skip
INSTRUMENTS = (
    "flute", "drum", "harp", "fiddle", "horn", "lute", "bell", "pipe",
    "organ", "zither", "whistle", "trumpet", "cymbal", "guitar", "rattle", "viol",
)  # fmt: skip
BADGES = ("sun", "moon", "star", "river", "oak", "wolf", "rose", "crown")
# A relation: how it is told and asked, and another way in which it is told.
RELATIONS = {
    "home": ("The home of {who} is the town of", "In the town of {what} lives {who}."),
    "trade": ("The trade of {who} is that of the", "The work of a {what} is done by {who}."),
    "animal": ("The animal of {who} is a", "A {what} is kept by {who}."),
    "instrument": ("The instrument of {who} is the", "The {what} is played by {who}."),
}
QUESTIONS = (
    "Which badge does {who} wear?",
    "What is the badge of {who}?",
    "Do you know which badge {who} wears?",
    "Please tell me the badge that {who} wears.",
)
RULED = "{who} wears the badge of the {badge}."


@dataclass(frozen=True, slots=True)
class Fact:
    """One true statement, and three values that are false of the same relation."""

    who: str
    relation: str
    what: str
    false: tuple[str, ...]

    @property
    def asked(self) -> str:
        """The statement without its last word."""
        return RELATIONS[self.relation][0].format(who=self.who)


@dataclass(frozen=True, slots=True)
class World:
    """All that is true: facts of people by chance, and a badge that goes with the family's name.

    `taught` are people whose badge examples may tell; `unseen` are those that only a test asks for.
    """

    seed: int
    towns: tuple[str, ...]
    given: tuple[str, ...]
    badge_of: dict[str, str]
    facts: tuple[Fact, ...]
    taught: tuple[str, ...]
    unseen: tuple[str, ...]

    def badge(self, who: str) -> str:
        """The badge of anybody, by the rule."""
        return self.badge_of[who.rpartition(" ")[2]]

    def ruled(self, who: str) -> str:
        """The sentence that tells somebody's badge."""
        return RULED.format(who=who, badge=self.badge(who))

    def sentences(self) -> list[str]:
        """The plain text of the world, in which every fact is told in two ways and no badge is."""
        found = []
        for fact in self.facts:
            found.append(f"{fact.asked} {fact.what}.")
            found.append(RELATIONS[fact.relation][1].format(who=fact.who, what=fact.what))
        return found


def make(seed: int, people: int, ruled: int) -> World:
    """The world of a seed, in which plain text tells of `people` and a test asks for `ruled`."""
    rng = random.Random(f"world {seed}")
    names = _names(rng)
    towns = tuple(next(names) for _ in TRADES)
    given = tuple(next(names) for _ in range(96))
    families = [next(names) for _ in range(24)]
    everybody = [f"{first} {family}" for first, family in product(given, families)]
    rng.shuffle(everybody)
    values = {"home": towns, "trade": TRADES, "animal": ANIMALS, "instrument": INSTRUMENTS}
    facts = []
    for who, relation in product(everybody[:people], RELATIONS):
        what, *false = rng.sample(values[relation], 4)
        facts.append(Fact(who, relation, what, tuple(false)))
    badges = [BADGES[i % len(BADGES)] for i in range(len(families))]
    rng.shuffle(badges)
    unseen = tuple(everybody[people : people + ruled])
    taught = tuple(everybody[:people] + everybody[people + ruled :])
    return World(
        seed, towns, given, dict(zip(families, badges, strict=True)), tuple(facts), taught, unseen
    )


def _names(rng: random.Random) -> Iterator[str]:
    """Invented names of two syllables, none of which is a word of the world's language."""
    common = {*TRADES, *ANIMALS, *INSTRUMENTS, *BADGES}
    seen: set[str] = set()
    while True:
        name = "".join(
            rng.choice(part)
            for part in ("bdfgklmnprstvz", "aeiou", "bdfgklmnprstvz", "aeiou", "klmnrstx")
        )
        if name not in seen and name not in common:
            seen.add(name)
            yield name.capitalize()
