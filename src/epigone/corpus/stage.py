"""Files of teacher text to a clean corpus, split into train and held-out prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from epigone import clusters
from epigone.corpus import output, selection
from epigone.corpus.audit import Audit
from epigone.corpus.contamination import Index, Item
from epigone.corpus.engine import STEPS, Engine, Here
from epigone.corpus.mix import mix
from epigone.corpus.pieces import pieces
from epigone.corpus.reading import Reading
from epigone.corpus.selection import Entry
from epigone.errors import CorpusError
from epigone.files import read_jsonl, write_json, write_jsonl
from epigone.schema import Conversation, Message, Progress, silent
from epigone.study import train_file
from epigone.study.specs import RULES, CorpusSpec, DataSpec
from epigone.study.terms import terms_of

_MIN_PROMPT_TOKENS = 4
# From so many conversations on, and this share of all, a passage is a task's instruction.
_SHARED_BY, _SHARED_SHARE = 10, 0.01
# The file of what a teacher was asked for.
ANSWERS = "answers.jsonl"
# Names of one kind, as of teachers, that are counted in the account.
_NAMES = 50
# Shares of the time at which parts of the work end.
_READ, _COMPARED, _WRITTEN = 0.85, 0.92, 0.99


def run(
    spec: CorpusSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """The stage: resolve the sources and the tokenizer, then `build`.

    `inputs` are folders of benchmark items (`items.jsonl`) and other corpora, whose held-out
    prompts must not be trained on, and in `asked_1` and so on what a teacher was asked for.
    """
    from epigone.models.references import locate, locate_data

    files = [
        locate_data(source.ref, progress, fingerprint=source.fingerprint) for source in spec.sources
    ]
    asked = [folder / ANSWERS for role, folder in inputs.items() if role.startswith("asked_")]
    if asked:
        files += asked
        spec = spec.model_copy(update={"sources": (*spec.sources, *map(_asked, asked))})
    tokenizer = locate(spec.tokenizer.ref, progress, fingerprint=spec.tokenizer.fingerprint)
    items = [item for _, folder in sorted(inputs.items()) for item in items_in(folder)]
    return build(files, spec, tokenizer / "tokenizer.json", out, progress, items)


def _asked(file: Path) -> DataSpec:
    """Answers that a teacher was asked for, under the terms that every row tells."""
    first: dict[str, object] = next(iter(read_jsonl(file)), {})
    licence, terms = (str(first.get(name) or "") for name in ("licence", "terms"))
    return DataSpec(ref=ANSWERS, fingerprint="", format="openai", licence=licence, terms=terms)


def items_in(folder: Path) -> Iterator[Item]:
    """What must not be in a corpus: a benchmark's items, or another corpus's held-out prompts."""
    if (folder / "items.jsonl").is_file():
        for row in read_jsonl(folder / "items.jsonl"):
            yield Item(row["name"], row["question"], row["text"])
    if (folder / "held_out.jsonl").is_file():
        for row in read_jsonl(folder / "held_out.jsonl"):
            held = Conversation.from_json(row)
            yield Item(f"held-out/{held.id}", held.messages[-2].content)


def build(
    files: Sequence[Path],
    spec: CorpusSpec,
    tokenizer_json: Path,
    out: Path,
    progress: Progress = silent,
    items: Sequence[Item] = (),
) -> dict[str, Any]:
    """Build a corpus from local files or folders, one for each of `spec.sources`, in `out`.

    Written are `train.parquet` (see `epigone.study.train_file`), `held_out.jsonl` (conversations,
    each of system turns, a first prompt and the first reply), `audit.json` and a dataset card.
    Conversations that hold one of the `items` are left out. Tokens are those of the reference
    tokenizer, without special tokens. Returned are the headline counts. Raises CorpusError for a
    file of no known format, for a corpus of which nothing is left, and for one with fewer
    suitable prompts than are to be held out.
    """
    out.mkdir(parents=True, exist_ok=True)
    audit = Audit()
    for name in RULES:
        audit.rule(name).on = name in spec.rules
    with _engine(spec, out) as work:
        reading = Reading(files, spec, audit, progress, _READ)
        entries = work.entries(reading, audit, tokenizer_json, items)
        progress(_READ, 1.0, "comparing")
        kept = _without_copies(entries, spec, audit, work)
        progress(_COMPARED, 1.0, "holding out")
        train, held = _split(kept, spec, audit, work)
        final = _write_train(train, spec, audit, work, out, progress)
        final["held_out"] = _write_held_out(held, audit, work, out)
    write_json(out / "audit.json", {**audit.to_json(), "final": final})
    output.write_card(out, spec, audit, final)
    progress(1.0, 1.0, "corpus built")
    return output.facts(audit, final)


def _engine(spec: CorpusSpec, out: Path) -> Engine:
    address = clusters.asked()
    if address is None:
        return Here(spec, out)
    from epigone.corpus.on_ray import OnRay

    return OnRay(spec, out, address)


def _without_copies(
    entries: list[Entry], spec: CorpusSpec, audit: Audit, work: Engine
) -> list[Entry]:
    """What stays of forks, of conversations with one first query, and with nearly one."""
    for name in STEPS:
        if name not in spec.rules:
            continue
        found = work.copies(name, entries)
        for copy, original in found.copies:
            audit.rule(name).drop(copy.id, copy.turns, work.query(copy), of=original.id)
        entries = found.kept
    if not entries:
        raise CorpusError(f"nothing is left of the corpus; {audit.worst()}", fix="other sources")
    return entries


def _split(
    kept: list[Entry], spec: CorpusSpec, audit: Audit, work: Engine
) -> tuple[list[Entry], list[Entry]]:
    """The train conversations, in no order yet, and the held-out ones in theirs."""

    def fits(entry: Entry) -> bool:
        stored = work.get(entry)
        head = _head(stored.conversation.messages)
        if head is None:
            return False
        return _MIN_PROMPT_TOKENS <= stored.sizes[len(head) - 2] <= spec.max_prompt_tokens

    held = selection.hold_out(kept, spec.held_out, spec.seed, fits)
    if len(held) < spec.held_out:
        raise CorpusError(
            f"only {len(held)} of {len(kept)} conversations have a prompt that can be held out",
            value=f"held_out={spec.held_out}",
            fix="lower held_out, or give more data",
        )
    train = _apart(kept, held, audit, work)
    if not train:
        rest = len(kept) - len(held)
        why = f"; the other {rest} share a passage with those" if rest else ""
        raise CorpusError(
            f"{len(held)} of {len(kept)} conversations are held out, none is left to train on{why}",
            value=f"held_out={spec.held_out}",
            fix="lower held_out, or give more data",
        )
    return train, held


def _apart(kept: list[Entry], held: list[Entry], audit: Audit, work: Engine) -> list[Entry]:
    """The conversations without a held-out prompt's passages.

    Passages that many conversations share, as the instruction of a task, tell nothing of a held-out
    one and count for none.
    """
    taken = {entry.place for entry in held}
    left = [entry for entry in kept if entry.place not in taken]
    if not held:
        return left
    items = [Item(entry.id, work.query(entry)) for entry in held]
    secret = Index(items)
    found = work.passages(left, items)
    holders = Counter(run for runs in found.values() for run in runs)
    most = max(_SHARED_BY, len(kept) * _SHARED_SHARE)
    telling = secret.telling(items, {run for run, n in holders.items() if n > most})
    effect = audit.rule("held_out_query")
    train: list[Entry] = []
    for entry in left:
        if own := found.get(entry.place, set()) & telling:
            item = min(map(secret.name, own))
            effect.drop(entry.id, entry.turns, work.query(entry), item=item)
            audit.contaminated.append({"id": entry.id, "item": f"held-out/{item}"})
        else:
            train.append(entry)
    return train


def _head(messages: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """System turns, first prompt and first reply; None if they are not so in a row."""
    first = next(i for i, m in enumerate(messages) if m.role == "user")
    head = messages[: first + 2]
    roles = [m.role for m in head]
    return head if roles == ["system"] * first + ["user", "assistant"] else None


def _write_held_out(held: list[Entry], audit: Audit, work: Engine, out: Path) -> dict[str, int]:
    effect = audit.rule("held_out_rest")
    rows = []
    for entry in held:
        stored = work.get(entry)
        head = _head(stored.conversation.messages)
        assert head is not None  # only such conversations are held out
        if rest := entry.turns - len(head):
            effect.conversations_changed += 1
            effect.turns_dropped += rest
            effect.note(entry.id, stored.conversation.messages[len(head)].content)
        size = stored.sizes[len(head) - 1]
        rows.append(replace(stored.conversation, messages=head, tokens=size).to_json())
    write_jsonl(out / "held_out.jsonl", rows)
    return {
        "conversations": len(rows),
        "turns": sum(len(row["messages"]) for row in rows),
        "tokens": sum(row["tokens"] for row in rows),
    }


def _groups(spec: CorpusSpec) -> list[int]:
    """For each source the number of the first one with which it shares its cap."""
    keys = [
        (source.format, source.cap) if spec.mix else (str(number), source.cap)
        for number, source in enumerate(spec.sources)
    ]
    return [keys.index(key) for key in keys]


def _write_train(
    train: list[Entry],
    spec: CorpusSpec,
    audit: Audit,
    work: Engine,
    out: Path,
    progress: Progress,
) -> dict[str, dict[str, int]]:
    """Mix, split and write; sums are returned, and how many conversations are of what."""
    mixed = mix(
        train,
        {entry.place: entry.tokens for entry in train},
        spec.seed,
        caps=[source.cap for source in spec.sources],
        groups=_groups(spec),
        weights=[Fraction(str(source.weight)) for source in spec.sources],
    )
    for name, left_out in (("over_cap", mixed.over_cap), ("over_weight", mixed.over_weight)):
        for entry in left_out:
            audit.rule(name).drop(entry.id, entry.turns, work.query(entry))
    if not mixed.order:
        raise CorpusError("nothing is left of the corpus after mixing", fix="other weights")
    final = {"conversations": 0, "turns": 0, "tokens": 0}
    by: dict[str, Counter[str]] = {
        name: Counter() for name in ("by_terms", "by_teacher", "by_language", "by_year")
    }

    def rows() -> Iterator[tuple[Conversation, Sequence[int], str]]:
        for number, entry in enumerate(mixed.order):
            if number % 500 == 0:
                share = _COMPARED + (_WRITTEN - _COMPARED) * number / len(mixed.order)
                progress(share, 1.0, "writing")
            stored = work.get(entry)
            parts = pieces(stored.conversation, stored.sizes, spec.max_tokens)
            if len(parts) > 1:
                effect = audit.rule("split")
                effect.conversations_changed += 1
                effect.conversations_added += len(parts) - 1
                effect.turns_added += sum(len(p.messages) for p, _ in parts) - entry.turns
                effect.note(entry.id, f"{len(parts)} pieces")
            for part, own in parts:
                final["conversations"] += 1
                final["turns"] += len(part.messages)
                final["tokens"] += sum(own)
                origin = part.provenance
                by["by_terms"][terms_of(origin.terms, origin.teacher).name] += 1
                by["by_teacher"][origin.teacher] += 1
                by["by_language"][stored.language or "unknown"] += 1
                by["by_year"][origin.date[:4] or "unknown"] += 1
                yield part, own, stored.language

    train_file.write(out / train_file.NAME, rows())
    return {"train": final, **{name: dict(n.most_common(_NAMES)) for name, n in by.items()}}
