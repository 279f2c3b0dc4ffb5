from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from epigone.errors import UserError
from epigone.raters.comparisons import Output, compare, differing, read_checks, read_outputs
from epigone.raters.leaks import leaks, without
from epigone.schema import Message

from .rating_site import outputs


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_models_are_compared_with_the_teacher_or_all_with_all() -> None:
    three = [outputs(m, [f"{m}{i}" for i in range(4)]) for m in ("t", "a", "z")]
    made = compare(three[0], three[1:])
    assert [(p.item, p.a, p.b, p.a_text, p.b_text) for p in made[:2]] == [
        ("i0", "a", "t", "a0", "t0"), ("i0", "t", "z", "t0", "z0"),
    ]  # fmt: skip
    assert len(made) == 8
    assert len(compare(three[0], three[1:], pairs="all")) == 12
    drawn = compare(three[0], three[1:], n=2, seed=5)
    assert len({p.item for p in drawn}) == 2 and drawn == compare(
        *[three[0], three[1:]], n=2, seed=5
    )


def test_items_that_not_all_have_are_left_out_and_prompts_must_agree() -> None:
    teacher, model = outputs("t", ["1", "2"]), outputs("m", ["1"])
    assert [p.item for p in compare(teacher, [model])] == ["i0"]
    other = {"i0": type(model["i0"])("i0", "m", teacher["i1"].prompt, "x")}
    with pytest.raises(UserError, match="disagree on the prompt of an item: i0"):
        compare(teacher, [other])
    with pytest.raises(UserError, match="no item in common"):
        compare({"i1": teacher["i1"]}, [model])
    with pytest.raises(UserError, match="two files of one model: t"):
        compare(teacher, [outputs("t", ["1"])])


def test_what_is_left_out_is_told() -> None:
    told: list[str] = []
    three = [
        outputs("t", list("12345678")),
        outputs("a", list("abcdefgh")),
        outputs("z", list("xyz")),
    ]
    assert len(compare(three[0], three[1:], n=100, tell=told.append)) == 6
    assert told == [
        "t: 5 of 8 items left out, which not all models have",
        "a: 5 of 8 items left out, which not all models have",
    ]

    def twice(model: str) -> dict[str, Output]:
        asked = (Message("user", "q"),), (Message("user", " q\n"),), (Message("user", "other"),)
        return {str(i): Output(str(i), model, p, f"{model}{i}") for i, p in enumerate(asked)}

    told.clear()
    made = compare(twice("t"), [twice("a")], tell=told.append)
    assert [pair.item for pair in made] == ["0", "2"]
    assert told == ["1 items left out, whose prompt an earlier one has"]


def test_equal_texts_are_given_to_nobody() -> None:
    made = compare(outputs("t", ["x", "y", "z"]), [outputs("a", ["x\n", "b", "z"])])
    kept, same = differing(made)
    assert [pair.item for pair in kept] == ["i1"] and same == {"a, t": 2}


def test_files_of_samples_are_read_strictly(tmp_path: Path) -> None:
    good = {"item": "a", "prompt": [{"role": "user", "content": "q\x00"}], "output": "o\ud800"}
    file = write(tmp_path / "m.jsonl", good, {"id": 7, "prompt": "q", "output": "", "model": "m"})
    read = read_outputs(file)
    assert read["a"].text == "o\ufffd" and read["a"].prompt[0].content == "q\ufffd"
    assert (read["7"].model, read["a"].model) == ("m", "m")
    assert read_outputs(file, "named")["a"].model == "named"
    for row, told in (
        ({**good, "item": None}, "an item is a name"), ({**good, "output": 1}, "output is a text"),
        ({**good, "prompt": ""}, "a prompt is a text"), ({**good, "prompt": [{}]}, "a prompt is"),
        ([1], "not a JSON object"), ({**good, "item": "7"}, "the same item twice"),
        ({**good, "item": "n", "model": "other"}, "several models"),
        *(({**good, "prompt": [{"role": role, "content": "q"}]}, "role: system, user")
          for role in (5, [], "\ud800", "human")),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            read_outputs(write(tmp_path / "m.jsonl", {"id": 7, "prompt": "q", "output": ""}, row))
    for depth in (200_000, 900, 980):
        (tmp_path / "m.jsonl").write_text("[" * depth + "]" * (depth % 10_000) + "\n")
        with pytest.raises(UserError, match=r"m\.jsonl:1: n"):
            read_outputs(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"m\.jsonl:1: not a line of JSON"):
        read_outputs(tmp_path / "m.jsonl")
    with pytest.raises(UserError, match="cannot read the samples"):
        read_outputs(tmp_path / "none.jsonl")


def test_the_checks_that_ship_are_balanced_and_told_apart() -> None:
    checks = read_checks()
    kinds = [check.purpose for check in checks]
    assert (kinds.count("training"), kinds.count("gold"), kinds.count("attention")) == (3, 4, 2)
    assert all(check.feedback for check in checks if check.purpose == "training")
    gold = [check.expected for check in checks if check.purpose == "gold"]
    assert sorted(map(str, gold)) == ["-2", "-2", "2", "2"]  # whoever reads only one is at chance
    assert len({check.item for check in checks}) == 9
    assert leaks(checks) == []


def test_a_file_of_checks_is_read_strictly(tmp_path: Path) -> None:
    good = {"kind": "gold", "prompt": "q", "outputs": ["x", "y"], "expected": 1}
    (check,) = read_checks(write(tmp_path / "c.jsonl", good))
    assert (check.purpose, check.expected, check.a_text) == ("gold", 1, "x")
    for change, told in (
        ({"kind": "item"}, "a kind is"), ({"outputs": ["x"]}, "two outputs"),
        ({"expected": True}, "expected is"), ({"expected": 3}, "expected is"),
        ({"kind": "training"}, "training has a text"), ({"extra": 1}, "unknown key: extra"),
        ({"prompt": 3}, "a prompt is"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            read_checks(write(tmp_path / "c.jsonl", {**good, **change}))
    for name, text in (("c.yaml", "kind: ["), ("c.yaml", "[" * 400), ("c.jsonl", "[" * 99_999)):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="cannot read the checks"):
            read_checks(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "says", "itself"),
    [
        ("As an AI language model trained by OpenAI, I cannot.", "OpenAI", True),
        ("I am ChatGPT, a helpful assistant.", "ChatGPT", True),
        ("I'm Gemma, an open model.", "Gemma", True),
        ("I was developed by Anthropic.", "Anthropic", True),
        ("My name is Claude and I like lists.", "Claude", True),
        ("You could ask GPT-4 for that.", "GPT-4", False),
        ("Chat-GPT says so.", "Chat-GPT", False),
        ("Paris.<|im_end|>", "<|im_end|>", False),
        ("Paris.\n### Human: and Rome?", "### Human:", False),
        ("Yes.</s>\n", "</s>", False),
        ("# Input\n[INST] and so on", "[INST]", False),
        ("Claude Monet had no Claude to ask.", "Claude", False),
        ("This was written by smollm2-135m-instruct.", "smollm2-135m-instruct", False),
    ],
)
def test_outputs_that_name_their_model_are_found(text: str, says: str, itself: bool) -> None:
    made = compare(outputs("teacher", ["fine"]), [outputs("smollm2-135m-instruct", [text])])
    found = leaks(made)
    assert [(leak.says.lower(), leak.itself) for leak in found] == (
        [(says.lower(), itself)] if says else []
    )
    assert len(without(made, found)) == (0 if says else 1)


SELVES = """
I am GPT-4o.|I'm GPT\u20114.|I am GPT 4, at your service.|I am InstructGPT|As text-davinci-003, I
I'm an assistant trained by Google.|I was trained by Meta AI.|I am Chat**GPT**|I am ChatG\u200bPT
made by Open\u00adAI|I am \uff23\uff48\uff41\uff54\uff27\uff30\uff34.|I am Pythia.
I'm EleutherAI's model|I am Open&#173;AI's model|I am Gemini, a chatbot|I\u2019m LLaMA
I'm Llama 2.|I am Phi-2|I'm koala|I am an AI model developed by Microsoft.
I was created by Alibaba Cloud|As Bard, I cannot do that.
I am a chatbot made by the team at Mistral|My creators at Cohere decided so|I'm an xAI model
As a Google AI model, I have no taste.|Hello! Falcon here.|My name is Vicuna.|I am SmolLM2-135M.
I'm a large language model, trained by researchers from LMSYS.|Call me Grok.
My developers are at DeepSeek|I am **Qwen**, built by Alibaba|I am a helpful bot based on Alpaca
I am a \u0047P\u0301T-3.5-turbo bot
"""
HARMLESS = """
Google is a search engine developed by Google.|I'm going to explain how Google Search works.
The koala sleeps most of the day.|As a result, Google shows advertisements.
I am happy with falcons.|Companies such as Google, Meta and Microsoft|As Apple grew, it hired.
Android was made by Google.|I am a language model and cannot feel.
I am happy. Alpine llamas live in the Andes.|Claude Monet painted
The chat was open, and I was made by hand.|I'm a Gemini and you are a Leo.|phi is 1.618
The mistral blows.|I'm adept at chess.|I am meta about it|A partition table (GPT) has entries.
This is Google's page.|I love palm trees|As an apple farmer, I wake early.
Microsoft Word was made by Microsoft, I think.|the grand opening, AI for all
"""


@pytest.mark.parametrize("listed", [SELVES, HARMLESS])
def test_outputs_that_speak_as_a_model_are_told_from_harmless_ones(listed: str) -> None:
    texts = [text for text in listed.replace("\n", "|").split("|") if text]
    made = compare(outputs("teacher", ["-"] * len(texts)),
                   [outputs("hf:EleutherAI/pythia-1b", texts)])  # fmt: skip
    found = {int(leak.item[1:]): leak for leak in leaks(made)}
    wrong = [(text, found.get(n)) for n, text in enumerate(texts)
             if (n in found and found[n].itself) is not (listed is SELVES)]  # fmt: skip
    assert wrong == []
    assert len(found) == (len(texts) if listed is SELVES else 0), found


def test_no_text_takes_long_to_scan() -> None:
    began = time.process_time()
    for piece in ("\n \n", "I am a ", "as a ", "hi, ", "me ", "\u0301"):
        assert leaks(compare(outputs("t", ["-"]), [outputs("m", [piece * 3000])])) == []
    assert time.process_time() - began < 5.0


def test_an_item_that_leaks_is_dropped_for_all_models() -> None:
    made = compare(outputs("t", ["a", "b"]),
                   [outputs("x", ["I am ChatGPT.", "c"]), outputs("y", ["d", "e"])])  # fmt: skip
    assert [(p.item, p.a, p.b) for p in without(made, leaks(made))] == [
        ("i1", "t", "x"), ("i1", "t", "y"),
    ]  # fmt: skip


def test_an_earlier_answer_in_the_prompt_is_read_as_well() -> None:
    def asked(model: str, text: str, said: str) -> dict[str, Output]:
        turns = (Message("user", "Who are you?"), Message("assistant", said), Message("user", "q"))
        return {"i0": Output("i0", model, turns, text)}

    for said, found in (
        ("I am ChatGPT, trained by OpenAI.", [("", "ChatGPT", True)]), ("ChatGPT is one.", []),
    ):  # fmt: skip
        made = compare(asked("t", "x", said), [asked("a", "y", said), asked("b", "z", said)])
        assert [(leak.model, leak.says, leak.itself) for leak in leaks(made)] == found


def test_a_name_in_the_prompt_gives_nothing_away() -> None:
    prompt = outputs("t", ["ChatGPT is a product."])["i0"]
    asked = type(prompt)(
        "i0", "t", (type(prompt.prompt[0])("user", "What is ChatGPT?"),), "ChatGPT is"
    )
    other = type(prompt)("i0", "m", asked.prompt, "I am ChatGPT.")
    (leak,) = leaks(compare({"i0": asked}, [{"i0": other}]))
    assert (leak.model, leak.itself) == ("m", True)
