"""A student's model card: what it was made of, and the terms that it inherits."""

from __future__ import annotations

import json
from collections.abc import Iterable

from epigone.errors import UserError
from epigone.models import catalogue, references
from epigone.schema import Conversation
from epigone.study.specs import ModelSpec
from epigone.study.terms import terms_of


def card(base: ModelSpec, amount: int, seen: Iterable[Conversation]) -> str:
    """The text of README.md for a student that has seen these conversations."""
    origins = {c.provenance for c in seen}
    found = {(own := terms_of(o.terms, o.teacher)).name: own for o in origins}
    teachers = sorted({o.teacher for o in origins})
    sources = sorted({o.source for o in origins})
    licences = sorted({o.licence for o in origins} - {""})
    of_base = _licence(base)
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(base.name)}",
            "license: other",
            "license_name: inherited",
            "tags: [imitation, distillation]",
            "---",
            "",
            f"# {_plain(base.name)}, trained on {amount:,} tokens of {_listed(teachers)}",
            "",
            f"An imitation student. Data: {_listed(sources)}"
            + (f" (licence: {_listed(licences)})." if licences else "."),
            "",
            "## Terms that this model inherits",
            "",
            f"- Of the base: {_plain(of_base) if of_base else 'not known, see its own card'}.",
            *(
                f"- Of the data: {t.title}. {t.says} Commercial use: {t.commercial}."
                + (f" {t.source} ({t.version or 'no date'}, read {t.read})" if t.source else "")
                for _, t in sorted(found.items())
            ),
            "",
        ]
    )


def _licence(base: ModelSpec) -> str:
    try:
        reference = references.parse(base.ref)
    except UserError:
        return ""
    return catalogue.find(reference.value).licence if reference.kind == "catalogue" else ""


def _listed(names: list[str]) -> str:
    return ", ".join(map(_plain, names))


def _plain(text: str) -> str:
    # Names come from data: they must not be able to write Markdown or HTML of their own.
    return "".join(c if c.isprintable() and c not in "<>[]`*\\|" else "_" for c in text)[:200]
