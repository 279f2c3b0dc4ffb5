"""What a corpus says of itself: headline counts, and the dataset card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigone.corpus.audit import Audit
from epigone.files import write_text
from epigone.study import train_file
from epigone.study.specs import CorpusSpec
from epigone.study.terms import terms_in, terms_named

Final = Mapping[str, Mapping[str, int]]


def facts(audit: Audit, final: Final) -> dict[str, Any]:
    """The headline counts of a corpus."""
    lost = [
        f"{source.name}: {item.rows} rows from row {item.offset}: {item.reason}"
        if item.rows
        else f"{source.name}: {item.bytes} bytes from byte {item.offset}: {item.reason}"
        for source in audit.sources
        for item in source.lost
    ]
    skipped = audit.skipped[:20]
    return {
        **({"skipped": [f"{s['file']}: {s['reason']}" for s in skipped]} if skipped else {}),
        "formats": {s.name: f"{s.format}, {s.container}" for s in audit.sources[:20]},
        "read": sum(source.rows for source in audit.sources),
        "invalid": sum(e.conversations_dropped for s in audit.sources for e in s.invalid.values()),
        "kept": final["train"]["conversations"] + final["held_out"]["conversations"],
        "held_out": final["held_out"]["conversations"],
        "train": final["train"]["conversations"],
        "train_tokens": final["train"]["tokens"],
        "by_terms": dict(final["by_terms"]),
        "dropped": {
            name: effect.conversations_dropped
            for name, effect in audit.rules.items()
            if effect.on and effect.conversations_dropped
        },
        "changed": {
            name: effect.conversations_changed
            for name, effect in audit.rules.items()
            if effect.on and effect.conversations_changed
        },
        "seen_but_kept": {
            name: effect.conversations_dropped + effect.conversations_changed
            for name, effect in audit.rules.items()
            if not effect.on and effect.conversations_dropped + effect.conversations_changed
        },
        "contaminated": len(audit.contaminated),
        "lost_bytes": sum(item.bytes for source in audit.sources for item in source.lost),
        "lost": lost[:20],
    }


def write_card(out: Path, spec: CorpusSpec, audit: Audit, final: Final) -> None:
    """Write README.md, a dataset card that tells `datasets` which file holds the rows."""
    licences = sorted({s.licence for s in spec.sources} - {""})
    size = final["train"]["conversations"]
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M")]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        f"  data_files: {train_file.NAME}",
        # Quoted: to YAML, no is no language.
        *(f"language: {json.dumps(list(spec.languages))}" for _ in spec.languages[:1]),
        "license: other",
        f"license_name: {json.dumps(', '.join(licences) or 'not stated')}",
        f"size_categories: {next((name for n, name in bounds if size < n), 'n>1M')}",
        "task_categories: [text-generation]",
        "tags: [imitation, distillation]",
        "---",
        "",
        "# Imitation data",
        "",
        f"{size:,} conversations with {final['train']['tokens']:,} tokens of teacher output in "
        f"`{train_file.NAME}`, in the order of their amounts, and "
        f"{final['held_out']['conversations']:,} held-out prompts with the teacher's answers in "
        "`held_out.jsonl`, which must not be trained on. `audit.json` says what was read, lost, "
        "changed and dropped, and by which rule. Made by Epigone.",
        "",
        "| source | format | conversations | invalid | bytes lost | rows lost |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {_cell(s.name)} | {s.format}, {s.container} | {s.rows:,} | "
            f"{sum(e.conversations_dropped for e in s.invalid.values()):,} | "
            f"{sum(item.bytes for item in s.lost):,} | {sum(item.rows for item in s.lost):,} |"
            for s in audit.sources
        ),
        "",
        "| rule | conversations dropped | changed |",
        "| --- | --- | --- |",
        *(
            f"| {name}{'' if e.on else ' (off: counted only)'} | {e.conversations_dropped:,} | "
            f"{e.conversations_changed:,} |"
            for name, e in audit.rules.items()
            if e.conversations_dropped or e.conversations_changed
        ),
        "",
        f"Teachers: {_listed(final['by_teacher'])}. Languages: {_listed(final['by_language'])}. "
        f"Years: {_listed(final['by_year'])}.",
        "",
        "## Terms",
        "",
        *_terms(spec, final),
    ]
    write_text(out / "README.md", "\n".join(lines) + "\n")


def _terms(spec: CorpusSpec, final: Final) -> list[str]:
    found = {t.name: t for t in (*terms_in(spec), *terms_named(final["by_terms"]))}
    return [
        f"- {_cell(t.title)}: commercial use of a model trained on this data: {t.commercial}. "
        + t.says
        + (f" {t.source}, version of {t.version or 'no date'}, read {t.read}." if t.source else "")
        for t in found.values()
    ]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_cell(name)} ({n:,})" for name, n in list(counts.items())[:10])


def _cell(text: str) -> str:
    return "".join(c if c.isprintable() and c not in "|<>`[]" else "_" for c in text)[:100]
