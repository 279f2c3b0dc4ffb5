from __future__ import annotations

import gzip
import json
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epigone.corpus import build, run, stats
from epigone.corpus.contamination import Item
from epigone.errors import CorpusError
from epigone.files import read_json, read_jsonl
from epigone.schema import Conversation, silent
from epigone.study import train_file
from epigone.study.specs import RULES, CorpusSpec, DataSpec

Make = Callable[..., CorpusSpec]
TEXT = "the weather in the mountains will be sunny and warm with some wind from the west"
WORDS = TEXT.split()


def row(*texts: str, **more: Any) -> dict[str, Any]:
    """A ShareGPT row in which the user begins."""
    turns = [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(texts)]
    return {**more, "conversations": turns}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def dialogue(rng: random.Random, exchanges: int) -> list[str]:
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 12))) for _ in range(2 * exchanges)]


WEST = "some wind from the west will be warm and sunny in the mountains"
LONG = "the wind in the west will be sunny and warm with the weather in the mountains from"
ITEMS = [Item("facts/7", "what is written in the old book of winds?"), Item("choices/3", LONG)]


def dirty(n: int = 120, seed: int = 0) -> list[Any]:
    """Rows in which every rule finds something."""
    rng = random.Random(seed)
    rows: list[Any] = [
        row(*dialogue(rng, rng.randint(1, 4)), id=f"abcd{i:03}_{rng.choice([0, 0, 3])}")
        for i in range(n)
    ]
    rows += [{**rng.choice(rows[:n]), "id": f"copy{i}"} for i in range(9)]
    first = [r["conversations"][0]["value"] for r in rows[:n]]
    rows += [row(f"hello there my friend {i}", "hi", first[i], "again") for i in range(0, n, 7)]
    rows += [row(text, " ".join(dialogue(rng, 2))) for text in first[1:6]]
    rows += [
        {"id": "none", "conversations": []},
        row("Wie wird das Wetter morgen in den Bergen?", "Es wird sonnig und warm werden."),
        row("tell me about it2 / 2", "Too many requests in 1 hour. Try again later."),
        row("tell me about the weather now", "\u200b"),
        {"conversations": [{"from": "gpt", "value": "so it goes"}]},
        {"conversations": [{"from": "human", "value": "is anybody there?"}]},
        {
            "conversations": [
                {"from": "gpt", "value": "so"},
                *row(*dialogue(rng, 2))["conversations"],
            ]
        },
        {"conversations": [{"from": "system", "value": "This conversation is shared from X"}]},
        {
            "conversations": [
                {"from": "system", "value": "Be a good forecaster."},
                *row(*dialogue(rng, 3))["conversations"],
            ]
        },
        row("show me the weather page", "<p>sunny and <strong>warm</strong></p>"),
        {
            "conversations": [
                *row("go", "one", "on")["conversations"],
                *row("", "x")["conversations"],
            ]
        },
        row("a", "", "what is the weather like", "sunny", "u", id="mixed"),
        row("tell me more about the storm", "west " * 200),
        row("how is it there now", "-"),
        row("how will it be tomorrow", "As an AI language model, I cannot know the weather."),
        row("is this the right key?", "yes, sk-abcdefghijklmnopqrstuv42 is the right key"),
        row("is this the right address?", "yes, jane.doe@weather-office.net is right"),
        row("what is written in the old book of winds", "much about the west"),
        row("please say it", f"well, {LONG} tomorrow"),
        row(WEST + " so it will stay for the week I think", "fine then"),
        row(WEST + " so it will stay for the week I hope", "fine"),
        *forked(rng),
        {"nothing": 1},
        3,
        row("with a \x00 in it", "yes"),
    ]
    rng.shuffle(rows)
    return rows


def forked(rng: random.Random) -> list[Any]:
    """A dialogue, an earlier stage of it under another first prompt, and a part of it."""
    whole = dialogue(rng, 6)
    return [
        row(*whole, id="forkabc_0"),
        row("what was it again, please tell", "this", *whole[:10], id="forkdef_0"),
        row(*whole[4:10], id="forkabc_1"),
    ]


def load(path: Path) -> list[Conversation]:
    if path.suffix == ".parquet":
        return [c for c, _ in train_file.read(path)]
    return [Conversation.from_json(r) for r in read_jsonl(path)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cut", [0, 700])
def test_the_account_adds_up(
    tmp_path: Path,
    tokenizer: Path,
    spec: Make,
    adds_up: Callable[[Path], None],
    seed: int,
    cut: int,
) -> None:
    rows = dirty(seed=seed)
    every = (spec().rules, tuple(RULES), (), tuple(RULES)[::2])[seed]
    path = write(tmp_path / "rows.json", rows)
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])
        whole = sum(1 for _ in _prefix(path))
    else:
        whole = len(rows)
    asked = spec(held_out=8, rules=every, max_tokens=60 if seed > 1 else 0)
    facts = build([path], asked, tokenizer, tmp_path / "out", silent, ITEMS)
    audit = read_json(tmp_path / "out" / "audit.json")
    (source,) = audit["sources"]
    invalid = sum(r["rows"] for r in source["invalid"].values())
    assert source["read"] + invalid == whole
    assert (source["lost_bytes"] > 0) == (cut > 0)

    train, held = load(tmp_path / "out/train.parquet"), load(tmp_path / "out/held_out.jsonl")
    assert source["values"] == whole
    adds_up(tmp_path / "out")
    assert audit["final"]["train"] == {
        "conversations": len(train),
        "turns": sum(len(c.messages) for c in train),
        "tokens": sum(c.tokens for c in train),
    }
    assert (facts["read"], facts["kept"]) == (source["read"], len(train) + len(held))
    assert facts["held_out"] == len(held) == 8
    assert facts["train_tokens"] == sum(c.tokens for c in train)
    assert facts["invalid"] == invalid


def _prefix(path: Path) -> Any:
    """Values of a JSON array that was cut off, by the standard library alone."""
    text = path.read_text()
    decoder, pos = json.JSONDecoder(), 1
    while True:
        try:
            value, pos = decoder.raw_decode(text, pos + len(text[pos:]) - len(text[pos:].lstrip()))
        except json.JSONDecodeError:
            return
        yield value
        pos = text.index(",", pos) + 1 if "," in text[pos:] else len(text)


def test_every_rule_shows_in_the_audit(tmp_path: Path, tokenizer: Path, spec: Make) -> None:
    files = [
        write(tmp_path / "f", dirty()),
        write(tmp_path / "g", [row(*dialogue(random.Random(i), 1)) for i in range(50, 58)]),
    ]
    asked = spec(2, held_out=30, max_tokens=60, max_chars=400, min_chars=2)
    capped = asked.sources[1].model_copy(update={"cap": 1})
    asked = asked.model_copy(update={"sources": (asked.sources[0], capped)})
    build(files, asked, tokenizer, tmp_path / "out", silent, ITEMS)
    rules = read_json(tmp_path / "out" / "audit.json")["rules"]
    assert list(rules) == [*RULES, "held_out_query", "over_cap", "split", "held_out_rest"]
    assert [name for name, effect in rules.items() if not effect["on"]] == ["refusals"]
    for name, effect in rules.items():
        touched = effect["conversations_dropped"] + effect["conversations_changed"]
        assert touched > 0, name
        assert len(effect["examples"]) <= 20
        assert all(len(e["text"]) <= 200 for e in effect["examples"])
    account = (tmp_path / "out" / "audit.json").read_text()
    assert "sk-abc" not in account
    assert "jane.doe" not in account


def test_the_order_of_rows_and_files_changes_nothing(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    rows = dirty()
    one = write(tmp_path / "one", rows)
    build([one], spec(held_out=8), tokenizer, tmp_path / "a")
    random.Random(5).shuffle(rows)
    other = write(tmp_path / "other", rows)
    build([other], spec(held_out=8), tokenizer, tmp_path / "b")
    for name in ("train.parquet", "held_out.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_same_build_gives_the_same_bytes_over_leftovers(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    path = write(tmp_path / "f", dirty())
    build([path], spec(held_out=8), tokenizer, tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "train.parquet").write_text("left over")
    build([path], spec(held_out=8), tokenizer, tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert set(files_of(tmp_path / "a")) == {
        "README.md",
        "audit.json",
        "held_out.jsonl",
        "train.parquet",
    }


def test_several_processes_make_the_same_bytes(
    tmp_path: Path, tokenizer: Path, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "f", dirty(300))
    for workers in ("1", "2"):
        monkeypatch.setenv("RAYON_NUM_THREADS", workers)
        build([path], spec(held_out=8), tokenizer, tmp_path / workers, silent, ITEMS)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


def test_no_held_out_prompt_is_trained_on(tmp_path: Path, tokenizer: Path, spec: Make) -> None:
    build([write(tmp_path / "f", dirty())], spec(held_out=30), tokenizer, tmp_path / "out")
    train, held = load(tmp_path / "out/train.parquet"), load(tmp_path / "out/held_out.jsonl")

    def plain(text: str) -> str:
        return " ".join(text.lower().split())

    secret = {plain(m.content) for c in held for m in c.messages if m.role == "user"}
    asked = [plain(m.content) for c in train for m in c.messages if m.role == "user"]
    assert len(secret) == 30
    assert secret.isdisjoint(asked)
    assert len({c.id for c in train + held}) == len(train + held)
    audit = read_json(tmp_path / "out" / "audit.json")
    assert audit["rules"]["held_out_query"]["conversations_dropped"] > 0


def test_a_held_out_row_is_one_exchange_of_a_prompt_of_fitting_length(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    rows = [
        row(" ".join(["word"] * n) + f" {n}", "It is so indeed", "b", "c") for n in range(1, 30)
    ]
    rows.append(
        {"conversations": [{"from": "system", "value": "Be kind."}, *rows[5]["conversations"]]}
    )
    del rows[5]
    build(
        [write(tmp_path / "f", rows)],
        spec(held_out=8, max_prompt_tokens=11),
        tokenizer,
        tmp_path / "out",
    )
    held = load(tmp_path / "out/held_out.jsonl")
    lengths = sorted(len(c.messages[-2].content.split()) for c in held)
    assert lengths == [4, 5, 6, 7, 8, 9, 10, 11]
    for c in held:
        roles = [m.role for m in c.messages]
        expected = ["system", "user", "assistant"] if len(roles) == 3 else ["user", "assistant"]
        assert roles == expected
        assert c.tokens == len(c.messages[-1].content.split()) == 4
    assert sum(len(c.messages) == 3 for c in held) == 1


def test_tokens_are_those_of_each_assistant_turn(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    build([write(tmp_path / "f", dirty())], spec(held_out=3), tokenizer, tmp_path / "out")
    found = list(train_file.read(tmp_path / "out" / "train.parquet"))
    assert len(found) > 50
    for c, each in found:
        assert each == [len(m.content.split()) for m in c.messages if m.role == "assistant"]
        assert c.tokens == sum(each)


def test_provenance_is_on_every_row(tmp_path: Path, tokenizer: Path, spec: Make) -> None:
    rows = [row("what is the weather", "sunny"), {**row("and the wind", "west"), "model": "gpt-4"}]
    files = [write(tmp_path / "a.json", rows[:1]), write(tmp_path / "b.json", rows[1:])]
    known = {"licence": "CC0", "terms": "openai-2023"}
    sources = tuple(source.model_copy(update=known) for source in spec(2).sources)
    asked = spec(2, sources=sources)
    build(files, asked, tokenizer, tmp_path / "out")
    found = {c.messages[0].content: c.provenance for c in load(tmp_path / "out/train.parquet")}
    first, second = found["what is the weather"], found["and the wind"]
    assert (first.source, first.teacher, first.licence) == ("source-0", "teacher-x", "CC0")
    assert (second.source, second.teacher, second.terms) == ("source-1", "gpt-4", "openai-2023")


def test_a_corpus_of_which_nothing_is_left_names_the_rule(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    rows = [{"conversations": []}] + [row(f"prompt {i}", "Load failed") for i in range(3)]
    with pytest.raises(CorpusError, match=r"nothing is left.*trailing_prompts dropped most \(3\)"):
        build([write(tmp_path / "f", rows)], spec(), tokenizer, tmp_path / "out")
    assert not (tmp_path / "out" / "train.parquet").exists()


def test_too_few_prompts_are_an_error_with_both_numbers(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    rows = [row(f"what is the weather on day {i}", "sunny and warm") for i in range(5)]
    path = write(tmp_path / "f", rows)
    with pytest.raises(CorpusError, match=r"only 5 of 5 conversations .*held_out=6"):
        build([path], spec(held_out=6), tokenizer, tmp_path / "out")
    with pytest.raises(CorpusError, match="5 of 5 conversations are held out, none is left"):
        build([path], spec(held_out=5), tokenizer, tmp_path / "out")
    assert build([path], spec(held_out=4), tokenizer, tmp_path / "out")["train"] == 1


def test_a_broken_tokenizer_is_the_user_s_mistake(tmp_path: Path, spec: Make) -> None:
    path = write(tmp_path / "f", dirty(5))
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(CorpusError, match="no tokenizer"):
        build([path], spec(), tmp_path / "t.json", tmp_path / "out")


def test_stats_of_a_corpus(tmp_path: Path, tokenizer: Path, spec: Make) -> None:
    rows = [row(f"what is the weather on day {i}", "sunny " * (i + 1)) for i in range(11)]
    build([write(tmp_path / "f", rows)], spec(), tokenizer, tmp_path / "out")
    found = stats(tmp_path / "out")
    assert found["train"] == {"conversations": 11, "turns": 22, "tokens": 66}
    assert found["tokens_per_conversation"] == {
        "mean": 6.0, "p0": 1, "p10": 2, "p50": 6, "p90": 10, "p100": 11,
    }  # fmt: skip
    assert found["lengths"]["teacher tokens"] == {"1": 1, "2": 2, "4": 4, "8": 4}
    assert found["openings"] == {"what is": 11}
    assert found["by_terms"] == {"unknown": 11}
    counted = stats(tmp_path / "out", tokenizer)
    assert counted["roles"]["assistant"]["tokens"] == 66
    assert counted["roles"]["user"]["tokens"] == 11 * 7
    with pytest.raises(CorpusError, match="no corpus in this folder"):
        stats(tmp_path)


def test_the_stage_resolves_its_references(
    tmp_path: Path, tokenizer: Path, spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "f", dirty())
    places = {"source-0": path, "words": tokenizer.parent}
    fake: Any = types.ModuleType("epigone.models.references")
    fake.locate = fake.locate_data = lambda ref, progress, *, fingerprint: places[ref]
    monkeypatch.setitem(sys.modules, "epigone.models.references", fake)
    (tmp_path / "a").mkdir()
    seen: list[tuple[float, float]] = []
    facts = run(spec(), {}, tmp_path / "a", lambda done, total, note="": seen.append((done, total)))
    assert facts == build([path], spec(), tokenizer, tmp_path / "b", silent)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert seen[-1] == (1.0, 1.0)
    json.dumps(facts)


def test_the_instruction_of_a_task_does_not_empty_its_corpus(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    task = "answer the following question about the weather in the mountains with a short answer"
    rng = random.Random(0)
    rows = [row(f"{task}: {' '.join(rng.choices(WORDS, k=9))} {i}", "sunny") for i in range(300)]
    special = "the wind in the west was never as warm as on that day in the mountains"
    # One held-out prompt and one other share a passage of their own.
    rows += [row(f"{special} {i} {i}", f"it was {i}") for i in (1, 2)]
    build([write(tmp_path / "f", rows)], spec(held_out=16), tokenizer, tmp_path / "out")
    train, held = load(tmp_path / "out/train.parquet"), load(tmp_path / "out/held_out.jsonl")
    assert len(train) + len(held) >= 301
    both = [c for c in (*train, *held) if special in c.messages[0].content]
    assert len(both) == (1 if any(special in c.messages[0].content for c in held) else 2)


def test_the_order_of_the_sources_changes_no_row_and_stricter_terms_count(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    rows = [row(f"what is the weather on day {i} there", "sunny and warm") for i in range(20)]
    files = {name: write(tmp_path / name, rows) for name in ("a", "b")}
    teachers = {"a": "gpt-4", "b": "mixtral"}
    found = []
    for order in (("a", "b"), ("b", "a")):
        sources = tuple(
            DataSpec(ref=f"logs-{name}", fingerprint=name, teacher=teachers[name]) for name in order
        )
        out = tmp_path / "-".join(order)
        facts = build([files[n] for n in order], spec(sources=sources), tokenizer, out)
        assert facts["by_terms"] == {"openai": 20}
        found.append((out / "train.parquet").read_bytes())
    assert found[0] == found[1]


def test_in_a_folder_what_is_no_data_is_left_out_and_told(
    tmp_path: Path, tokenizer: Path, spec: Make, adds_up: Callable[[Path], None]
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("a", "b"):
        (logs / name).mkdir()
        write(logs / name / "data.json", [row(f"what is the weather in {name} now", "sunny")])
    (logs / "package.json").write_text('{"name": "x", "version": 1}')
    (logs / "empty.jsonl").touch()
    (logs / "notes.txt").write_text("no data")
    facts = build([logs], spec(), tokenizer, tmp_path / "out")
    adds_up(tmp_path / "out")
    assert facts["read"] == 2
    assert list(facts["formats"]) == ["source-0/data.json", "source-0/data.json (2)"]
    assert {line.split(":")[0] for line in facts["skipped"]} == {
        "package.json", "empty.jsonl", "notes.txt",
    }  # fmt: skip
    with pytest.raises(CorpusError, match="no known format"):
        build([logs / "package.json"], spec(), tokenizer, tmp_path / "two")
    for folder in ("a", "b"):
        (logs / folder / "data.json").unlink()
    with pytest.raises(CorpusError, match="no file is of a known format, as"):
        build([logs], spec(), tokenizer, tmp_path / "three")


def test_a_packed_file_that_is_cut_off_is_read_as_far_as_it_goes(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    rows = [json.dumps(row(f"what is the weather on day {i}", f"sunny {i}")) for i in range(900)]
    packed = gzip.compress("\n".join(rows).encode())
    path = tmp_path / "logs"
    path.write_bytes(packed[: len(packed) * 2 // 3])
    facts = build([path], spec(), tokenizer, tmp_path / "out")
    assert 500 < facts["read"] < 700
    assert any("the packed file is cut off at its byte" in line for line in facts["lost"])


def test_the_account_shows_no_address_and_no_endless_list(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    good = {**row("what is the weather now", "sunny"), "id": "jane@firm-real.com"}
    broken = '{"conversations": [ jane@firm-real.com sk-abcdefghijklmnopqrstuv42 }'
    lines = [json.dumps(good), *[broken, json.dumps(row("and then what", "wind"))] * 150]
    (tmp_path / "f.jsonl").write_text("\n".join(lines))
    build([tmp_path / "f.jsonl"], spec(), tokenizer, tmp_path / "out")
    account = (tmp_path / "out" / "audit.json").read_text()
    (source,) = json.loads(account)["sources"]
    assert source["lost_stretches"] == 150
    assert len(source["lost"]) == 100
    assert "jane@" not in account
    assert "sk-abc" not in account
    assert all("jane" not in c.id for c in load(tmp_path / "out/train.parquet"))


def test_a_corpus_that_nobody_can_read_says_as_what_it_was_read(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    path = write(tmp_path / "f", [row("what is the weather", "sunny")] * 5)
    asked = spec()
    named = asked.sources[0].model_copy(update={"format": "alpaca"})
    asked = asked.model_copy(update={"sources": (named,)})
    with pytest.raises(CorpusError, match=r"5 values could not be read: .* as alpaca"):
        build([path], asked, tokenizer, tmp_path / "out")


def test_a_mix_bounds_all_sources_of_a_format_together(
    tmp_path: Path, tokenizer: Path, spec: Make
) -> None:
    files = [
        write(tmp_path / name, [row(f"what is {name} on day {i}", "sunny") for i in range(30)])
        for name in ("a", "b", "c")
    ]
    formats = (("sharegpt", 12), ("sharegpt", 12), ("openai", 0))
    sources = tuple(
        DataSpec(ref=str(i), fingerprint=str(i), format=format if cap else "", cap=cap)
        for i, (format, cap) in enumerate(formats)
    )
    for mix, kept in (("sharegpt-mix", 12 + 30), ("", 12 + 12 + 30)):
        asked = spec(sources=sources, mix=mix)
        assert build(files, asked, tokenizer, tmp_path / f"out{mix}")["train"] == kept
