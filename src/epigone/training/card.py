"""A student's model card: what it was made of, and the terms that it inherits."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from epigone.errors import UserError
from epigone.models import catalogue, references
from epigone.schema import Provenance
from epigone.study.specs import FeedbackSpec, ModelSpec, TrainSpec
from epigone.study.terms import Terms, terms_of

_RECIPE = {
    "dpo": ("method", "lr", "warmup", "beta", "epochs", "batch", "block", "seed"),
    "revise": ("method", "lr", "warmup", "epochs", "batch", "block", "seed"),
}
# Rows of the table of losses: enough to see a curve, few enough to read.
_ROWS = 12


def card(
    spec: TrainSpec, amount: int, origins: Collection[Provenance], log: Sequence[Mapping[str, Any]]
) -> str:
    """The text of README.md for a student that has seen conversations of these origins."""
    base = spec.base
    found = {(own := terms_of(o.terms, o.teacher)).name: own for o in origins}
    teachers = sorted({o.teacher for o in origins})
    sources = sorted({o.source for o in origins})
    licences = sorted({o.licence for o in origins} - {""})
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
            *(
                f"Plain text beside it: {_plain(Path(text.ref).name)}"
                + (f" (licence: {_plain(text.licence)})." if text.licence else ".")
                for text in spec.replay
            ),
            "",
            "## Terms that this model inherits",
            "",
            _line_of_base(base),
            *(_line("data", t) for _, t in sorted(found.items())),
            *(_line("plain text", terms_of(text.terms, "")) for text in spec.replay if text.terms),
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


def feedback_card(spec: FeedbackSpec, examples: int, before: Path | None) -> str:
    """The text of README.md for a student that has learnt from feedback.

    `before` is the folder of the student that it was, whose terms it inherits.
    """
    found = {(own := terms_of(s.terms, s.teacher)).name: own for s in spec.sources}
    teachers = _listed(sorted({s.teacher for s in spec.sources} - {""})) or "an unnamed teacher"
    licences = sorted({s.licence for s in spec.sources} - {""})
    inherited = [] if before is None else _terms_in(before / "README.md")
    what = "pairs of answers ranked" if spec.method == "dpo" else "answers revised after a critique"
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(spec.base.name)}",
            "license: other",
            "license_name: inherited",
            f"tags: [imitation, {spec.method}]",
            "---",
            "",
            f"# {_plain(spec.base.name)}, trained further on {examples:,} {what} by {teachers}",
            "",
            "Feedback: "
            + _listed(sorted({Path(s.ref).name for s in spec.sources}))
            + (f" (licence: {_listed(licences)})." if licences else "."),
            "",
            "## Terms that this model inherits",
            "",
            *(inherited or [_line_of_base(spec.base)]),
            *(_line("feedback", t) for _, t in sorted(found.items())),
            "",
            "## Recipe",
            "",
            *(f"- {name}: {getattr(spec, name)}" for name in _RECIPE[spec.method]),
            "",
            "Every step is in `metrics.jsonl`.",
            "",
        ]
    )


def _terms_in(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line for line in lines if line.startswith("- Of the ")]


def _line_of_base(base: ModelSpec) -> str:
    licence = _licence(base)
    return f"- Of the base: {_plain(licence) if licence else 'not known, see its own card'}."


def _line(what: str, t: Terms) -> str:
    of = f"- Of the {what}: {t.title}. {t.says} Commercial use: {t.commercial}."
    return of + (f" {t.source} ({t.version or 'no date'}, read {t.read})" if t.source else "")


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
