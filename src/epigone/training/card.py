"""A student's model card: what it was made of, and the terms that it inherits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from epigone.errors import UserError
from epigone.models import catalogue, references
from epigone.schema import Conversation
from epigone.study.specs import ModelSpec, TrainSpec
from epigone.study.terms import terms_of

# Rows of the table of losses: enough to see a curve, few enough to read.
_ROWS = 12


def card(
    spec: TrainSpec, amount: int, seen: Iterable[Conversation], log: Sequence[Mapping[str, Any]]
) -> str:
    """The text of README.md for a student that has seen these conversations."""
    base = spec.base
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
            "## Recipe",
            "",
            *(
                f"- {name}: {_plain(str(value))}"
                for name, value in spec.recipe.model_dump().items()
                if value not in (None, "", 0.0) and name != "template"
            ),
            f"- seed: {spec.seed}",
            "",
            "## Training",
            "",
            "| step | supervised tokens so far | learning rate | gradient norm | loss |",
            "| --: | --: | --: | --: | --: |",
            *_curve(log),
            "",
            "Every step is in `metrics.jsonl`.",
            "",
        ]
    )


def _curve(log: Sequence[Mapping[str, Any]]) -> list[str]:
    rows, so_far = [], 0
    stride = max(1, -(-len(log) // _ROWS))
    for i, row in enumerate(log):
        so_far += row["supervised"]
        if i % stride == 0 or i == len(log) - 1:
            rows.append(
                f"| {row['step']} | {so_far:,} | {row['lr']:.3g} | {row['gradient_norm']:.3g} "
                f"| {row['loss']:.4f} |"
            )
    return rows


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
