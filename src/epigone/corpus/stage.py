"""Files of teacher text to a clean corpus, split into train and held-out prompts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from epigone.corpus import selection
from epigone.corpus.audit import Audit, Source
from epigone.corpus.language import language, prose
from epigone.corpus.readers import Invalid, Row, read
from epigone.corpus.rules import RULES, Turns
from epigone.corpus.selection import Entry
from epigone.corpus.values import Lost
from epigone.errors import CorpusError
from epigone.files import read_json, read_jsonl, write_json, write_jsonl
from epigone.schema import Conversation, Message, Progress, Provenance, silent
from epigone.study.specs import CorpusSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MIN_PROMPT_TOKENS = 4
# Conversations that are counted at once; enough to keep the tokenizer's threads busy.
_BATCH = 256
_READING, _COUNTING = 0.4, 0.6


def run(
    spec: CorpusSpec, inputs: Mapping[str, Path], out: Path, progress: Progress
) -> dict[str, Any]:
    """The stage: resolve the sources and the tokenizer, then `build`. `inputs` is empty."""
    from epigone.models.references import locate

    *files, tokenizer = (
        locate(source.ref, progress, fingerprint=source.fingerprint)
        for source in (*spec.sources, spec.tokenizer)
    )
    return build(files, spec, tokenizer / "tokenizer.json", out, progress)


def build(
    files: Sequence[Path],
    spec: CorpusSpec,
    tokenizer_json: Path,
    out: Path,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Build a corpus from local files, one for each of `spec.sources`, in the folder `out`.

    Written are `train.jsonl` and `held_out.jsonl` (conversations, in an order that the seed
    makes), `train_tokens.jsonl` (for each train conversation the tokens of each assistant turn)
    and `audit.json`. A held-out row is the system turns, the first prompt and the first reply.
    Tokens are those of the reference tokenizer, without special tokens. Returned are the
    headline counts. Raises CorpusError for a file of no known format, for a corpus of which
    nothing is left, and for one with fewer suitable prompts than are to be held out.
    """
    out.mkdir(parents=True, exist_ok=True)
    audit = Audit()
    # The cleaned text waits on the disk, so that only hashes of it are in memory.
    with tempfile.TemporaryFile(dir=out) as spool:
        store = _Spool(spool, _counter(tokenizer_json))
        entries = _clean(files, spec, audit, store, progress)
        train, held = _split(entries, spec, audit, store)
        held_out = _write_held_out(held, audit, store, out)
        final = {"train": _write_train(train, store, out, progress), "held_out": held_out}
    write_json(out / "audit.json", {**audit.to_json(), "final": final})
    return _facts(audit, final)


def stats(folder: Path) -> dict[str, Any]:
    """Headline numbers of a built corpus: counts, tokens and how they spread, what was dropped.

    Raises CorpusError for a folder in which no corpus was built.
    """
    if not (folder / "audit.json").is_file():
        raise CorpusError(
            "no corpus in this folder", value=str(folder), fix="epigone corpus build FILE -o DIR"
        )
    audit = read_json(folder / "audit.json")
    sizes = sorted(sum(row) for row in read_jsonl(folder / "train_tokens.jsonl"))
    return {
        "sources": [
            {key: source[key] for key in ("source", "read", "turns", "lost_bytes")}
            for source in audit["sources"]
        ],
        "dropped": {
            name: rule["conversations_dropped"]
            for name, rule in audit["rules"].items()
            if rule["conversations_dropped"]
        },
        "languages_dropped": audit["languages_dropped"],
        **audit["final"],
        "tokens_per_conversation": {
            "mean": sum(sizes) / len(sizes),
            **{f"p{p}": sizes[(len(sizes) - 1) * p // 100] for p in (0, 10, 50, 90, 100)},
        },
    }


class _Spool:
    """Cleaned conversations on the disk, found again by their place, and their token counts."""

    def __init__(self, file: IO[bytes], tokenizer: Tokenizer) -> None:
        self._file = file
        self._tokenizer = tokenizer

    def add(self, conversation: Conversation) -> int:
        """Write a conversation; its place is returned."""
        place = self._file.tell()
        self._file.write(json.dumps(conversation.to_json()).encode() + b"\n")
        return place

    def row(self, entry: Entry) -> dict[str, Any]:
        """Read a conversation as a JSON object; nothing may be added any more."""
        self._file.seek(entry.place)
        row: dict[str, Any] = json.loads(self._file.readline())
        return row

    def get(self, entry: Entry) -> Conversation:
        """Read a conversation."""
        return Conversation.from_json(self.row(entry))

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in found]


def _counter(tokenizer_json: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_json))
    except Exception as error:  # the library raises bare Exception
        raise CorpusError(
            "no tokenizer can be read", value=str(tokenizer_json), fix=str(error)[:200]
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _clean(
    files: Sequence[Path], spec: CorpusSpec, audit: Audit, store: _Spool, progress: Progress
) -> list[Entry]:
    """Read, clean and tell the language; what passes is in the store."""
    for name in (*(rule.__name__ for rule in RULES), "language", "same_first_query"):
        audit.rule(name)
    sizes = [file.stat().st_size for file in files]
    entries: list[Entry] = []
    for number, (file, ref) in enumerate(zip(files, spec.sources, strict=True)):
        # A path is nobody's business and no part of the result; a catalogue's name is.
        name = file.name if Path(ref.ref).expanduser().exists() else ref.ref
        source = Source(name, sizes[number])
        audit.sources.append(source)
        for count, item in enumerate(read(file)):
            if isinstance(item, Lost):
                source.lost.append(item)
                continue
            source.last_whole_end = item.end
            if isinstance(item, Invalid):
                source.refuse(item, count)
                continue
            source.rows += 1
            source.turns += len(item.turns)
            if turns := _cleaned(item, spec, audit):
                entries.append(_keep(item, turns, spec, store, name, number))
            if count % 500 == 0:
                done = (sum(sizes[:number]) + item.end) / max(sum(sizes), 1)
                progress(done * _READING, 1.0, f"reading {name}")
    return entries


def _cleaned(row: Row, spec: CorpusSpec, audit: Audit) -> Turns:
    turns = row.turns
    for rule in RULES:
        turns = audit.apply(rule, row.id, turns)
        if not turns:
            return ()
    text = prose(turns)
    heard = language(text, spec.language)
    if heard not in ("", spec.language):
        audit.languages[heard] += 1
        audit.rule("language").drop(row.id, len(turns), text)
        return ()
    return turns


def _keep(row: Row, turns: Turns, spec: CorpusSpec, store: _Spool, name: str, number: int) -> Entry:
    origin = Provenance(name, row.teacher or spec.teacher, licence=spec.licence, terms=spec.terms)
    place = store.add(Conversation(row.id, turns, origin))
    # Rows without an id, too, show by a leading reply that they go on from another one.
    part = row.part or next(m.role for m in row.turns if m.role != "system") != "user"
    return selection.entry(row.id, turns, part=part, source=number, place=place)


def _split(
    entries: list[Entry], spec: CorpusSpec, audit: Audit, store: _Spool
) -> tuple[list[Entry], list[Entry]]:
    """The train conversations and the held-out ones, both in their order."""
    kept, copies = selection.distinct(entries)
    for copy in copies:
        audit.rule("same_first_query").drop(copy.id, copy.turns, _query(store.get(copy)))
    if not kept:
        raise CorpusError(f"nothing is left of the corpus; {audit.worst()}", fix="other sources")

    def fits(entry: Entry) -> bool:
        head = _head(store.get(entry).messages)
        if head is None:
            return False
        return _MIN_PROMPT_TOKENS <= store.tokens([head[-2].content])[0] <= spec.max_prompt_tokens

    held = selection.hold_out(kept, spec.held_out, spec.seed, fits)
    if len(held) < spec.held_out:
        raise CorpusError(
            f"only {len(held)} of {len(kept)} conversations have a prompt that can be held out",
            value=f"held_out={spec.held_out}",
            fix="lower held_out, or give more data",
        )
    taken = {entry.id for entry in held}
    secret = {entry.queries[0] for entry in held}
    effect = audit.rule("held_out_query")
    train = []
    for entry in selection.in_order(kept, spec.seed):
        if entry.id in taken:
            continue
        if secret.isdisjoint(entry.queries):
            train.append(entry)
        else:
            effect.drop(entry.id, entry.turns, _query(store.get(entry)))
    if not train:
        raise CorpusError(
            f"all {len(kept)} conversations are held out, none is left to train on",
            value=f"held_out={spec.held_out}",
            fix="lower held_out, or give more data",
        )
    return train, held


def _query(conversation: Conversation) -> str:
    return next(m.content for m in conversation.messages if m.role == "user")


def _head(messages: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """System turns, first prompt and first reply; None if they are not so in a row."""
    first = next(i for i, m in enumerate(messages) if m.role == "user")
    head = messages[: first + 2]
    roles = [m.role for m in head]
    return head if roles == ["system"] * first + ["user", "assistant"] else None


def _write_held_out(held: list[Entry], audit: Audit, store: _Spool, out: Path) -> dict[str, int]:
    effect = audit.rule("held_out_rest")
    rows = []
    for entry in held:
        whole = store.get(entry)
        head = _head(whole.messages)
        assert head is not None  # only such conversations are held out
        if rest := entry.turns - len(head):
            effect.conversations_changed += 1
            effect.turns_dropped += rest
        rows.append(
            replace(whole, messages=head, tokens=store.tokens([head[-1].content])[0]).to_json()
        )
    write_jsonl(out / "held_out.jsonl", rows)
    return {
        "conversations": len(rows),
        "turns": sum(len(row["messages"]) for row in rows),
        "tokens": sum(row["tokens"] for row in rows),
    }


def _write_train(
    train: list[Entry], store: _Spool, out: Path, progress: Progress
) -> dict[str, int]:
    """Write the train files; the number of conversations, turns and tokens is returned."""
    counts: list[list[int]] = []

    def rows() -> Iterator[dict[str, Any]]:
        for start in range(0, len(train), _BATCH):
            batch = [store.row(entry) for entry in train[start : start + _BATCH]]
            replies = [
                [m["content"] for m in row["messages"] if m["role"] == "assistant"] for row in batch
            ]
            found = iter(store.tokens([text for texts in replies for text in texts]))
            for row, texts in zip(batch, replies, strict=True):
                each = list(islice(found, len(texts)))
                counts.append(each)
                yield {**row, "tokens": sum(each)}
            progress(_READING + _COUNTING * start / len(train), 1.0, "counting tokens")

    write_jsonl(out / "train.jsonl", rows())
    write_jsonl(out / "train_tokens.jsonl", counts)
    progress(1.0, 1.0, "corpus built")
    return {
        "conversations": len(train),
        "turns": sum(entry.turns for entry in train),
        "tokens": sum(map(sum, counts)),
    }


def _facts(audit: Audit, final: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    lost = [
        f"{source.name}: {item.bytes} bytes from byte {item.offset}: {item.reason}"
        for source in audit.sources
        for item in source.lost
    ]
    return {
        "read": sum(source.rows for source in audit.sources),
        "invalid": sum(e.conversations_dropped for s in audit.sources for e in s.invalid.values()),
        "kept": final["train"]["conversations"] + final["held_out"]["conversations"],
        "held_out": final["held_out"]["conversations"],
        "train": final["train"]["conversations"],
        "train_tokens": final["train"]["tokens"],
        "dropped": {
            name: effect.conversations_dropped
            for name, effect in audit.rules.items()
            if effect.conversations_dropped
        },
        "lost_bytes": sum(item.bytes for source in audit.sources for item in source.lost),
        "lost": lost[:20],
    }
