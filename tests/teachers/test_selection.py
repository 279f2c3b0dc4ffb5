"""What is asked next: by loss, by disagreement, by words, compared with slow and plain ways."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from transformers import AutoModelForCausalLM, AutoTokenizer

from epigone.corpus.contamination import Item
from epigone.errors import CorpusError
from epigone.schema import Message, silent
from epigone.study.specs import AskSpec, ModelSpec
from epigone.teachers.pool import choose, fitting
from epigone.teachers.prompts import Prompt, Prompts
from epigone.teachers.selection import _turn, disagreements, diverse, jensen_shannon, losses

ENGLISH = "Please tell me how the people of that old town came to build such a long bridge, {}."
GERMAN = "Bitte erzähle mir, wie die Menschen dieser alten Stadt eine Brücke gebaut haben, {}."


def prompts_of(texts: list[str]) -> Prompts:
    made = [Prompt(f"p{i}", (), (t, "And then?")) for i, t in enumerate(texts)]
    return Prompts(tuple(made), Counter())


def spec_of(size: int, **more: object) -> AskSpec:
    model = ModelSpec(kind="teacher", name="t", ref="endpoint:http://x/v1#m")
    return AskSpec(model=model, task="answers", wording="", size=size, **more)  # type: ignore[arg-type]


def test_what_can_be_asked_is_drawn_by_the_seed() -> None:
    read = prompts_of([ENGLISH.format(i) for i in range(50)])
    found = [choose(read, spec_of(20, draw=s), ()).prompts for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert len({p.id for p in found[0]}) == 20
    # A larger size asks the same ones first.
    assert choose(read, spec_of(30), ()).prompts[:20] == found[0]
    assert {len(p.turns) for p in choose(read, spec_of(5, turns=1), ()).prompts} == {1}


def test_other_languages_items_and_what_was_asked_are_left_out() -> None:
    texts = [ENGLISH.format(i) for i in range(9)] + [GERMAN.format(i) for i in range(9)]
    items = [Item("quiz/1", ENGLISH.format(3))]
    spec = spec_of(30, languages=("en",))
    fit = fitting(prompts_of(texts), spec, items, {"p4", "p5"})
    # The others share more than 12 words with the item as well.
    assert [p.id for p in fit.up_to(30)] == []
    fit = fitting(prompts_of(texts), spec, (), {"p4", "p5"})
    assert {p.id for p in fit.up_to(30)} == {f"p{i}" for i in (0, 1, 2, 3, 6, 7, 8)}
    assert fit.skipped == {"another language": 9}
    with pytest.raises(CorpusError, match="only 9 of 18 prompts"):
        choose(prompts_of(texts), spec, ())


def test_the_divergence_is_that_of_scipy() -> None:
    torch.manual_seed(0)
    logits = [torch.randn(70, 9) * 3 for _ in range(2)]
    one, other = (part.softmax(-1).double().numpy() for part in logits)
    theirs = [jensenshannon(a, b) ** 2 for a, b in zip(one, other, strict=True)]
    assert jensen_shannon(logits).tolist() == pytest.approx(theirs, abs=1e-5)
    assert jensen_shannon([logits[0], logits[0]]).max() < 1e-6


def test_diverse_prompts_are_those_of_the_plain_greedy_way() -> None:
    draw = random.Random(3)
    vocabulary = [f"w{i}" for i in range(30)]
    candidates = [
        Prompt(str(i), (), (" ".join(draw.choices(vocabulary, k=draw.randint(3, 20))),))
        for i in range(120)
    ]
    before = [Prompt("b", (), (" ".join(vocabulary[:12]),))]
    grams = {
        p.id: {(w,) for w in p.turns[0].split()}
        | {(a, b) for a, b in zip(p.turns[0].split(), p.turns[0].split()[1:], strict=False)}
        for p in [*candidates, *before]
    }
    often = Counter(g for p in candidates for g in grams[p.id])
    covered = set(grams["b"])
    wanted = []
    left = list(candidates)
    for _ in range(25):
        gains = [
            math.fsum(math.log(1 + 120 / often[g]) for g in grams[p.id] - covered)
            / math.sqrt(len(grams[p.id]))
            for p in left
        ]
        best = left.pop(max(range(len(left)), key=lambda i: (gains[i], -i)))
        wanted.append(best.id)
        covered |= grams[best.id]
    chosen, scores = diverse(candidates, 25, before)
    assert [p.id for p in chosen] == wanted
    assert len(scores) == 120


def test_students_score_prompts_as_plain_transformers_do(
    tiny_base: Path, once: Callable[..., Path]
) -> None:
    def another(folder: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(tiny_base)
        torch.manual_seed(5)
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)

    students = [tiny_base, once("another-student", another)]
    prompts = [Prompt(str(i), (), (ENGLISH.format(i) * (i + 1),)) for i in range(4)]
    loss = losses(students, prompts, silent)
    apart = disagreements(students, prompts, silent)
    from epigone.models.chat import prompt_ids
    from epigone.models.load import load

    for i, prompt in enumerate(prompts):
        loaded = [load(folder) for folder in students]
        tokenizer = loaded[0].tokenizer
        whole = prompt_ids(tokenizer, [Message("user", prompt.turns[0])])
        found = _turn(tokenizer, prompt)
        assert tuple(whole[: len(found.before)]) == found.before
        assert tokenizer.decode(found.ids) in prompt.turns[0]
        ids = torch.tensor([[*found.before, *found.ids]])
        own = slice(len(found.before) - 1, -1)
        with torch.inference_mode():
            logits = [m.model(ids).logits[0, own].float() for m in loaded]
        target = torch.nn.functional.cross_entropy(logits[0], torch.tensor(found.ids))
        assert loss[i] == pytest.approx(float(target), rel=2e-2)
        both = [part.softmax(-1).double().numpy() for part in logits]
        theirs = [jensenshannon(a, b) ** 2 for a, b in zip(*both, strict=True)]
        assert apart[i] == pytest.approx(sum(theirs) / len(theirs), rel=1e-3)
    assert min(apart) > 0


def test_a_long_system_text_hides_no_prompt(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    system = Message("system", "You are careful and kind, and say so. " * 60)
    one, other = (Prompt("p", (system,), (ENGLISH.format(i),)) for i in (1, 2))
    turns = [_turn(tokenizer, p) for p in (one, other)]
    assert turns[0].before == turns[1].before
    assert turns[0].ids != turns[1].ids
    assert tokenizer.decode(turns[0].ids).strip() == one.turns[0]


def test_dialogues_that_begin_alike_are_asked_once() -> None:
    made = [Prompt(f"p{i}", (), ("How do bridges stand?", f"And {i}?")) for i in range(6)]
    read = Prompts((*made, *prompts_of([ENGLISH.format(9)]).prompts), Counter())
    fit = fitting(read, spec_of(9, turns=1), ())
    assert len(fit.up_to(9)) == 2
    assert fit.skipped["asked already"] == 5
    # What an earlier round asked is not asked under another name.
    later = fitting(read, spec_of(9, turns=1), (), {"p3"})
    assert [p.turns for p in later.up_to(9)] == [(ENGLISH.format(9),)]
    assert len(fitting(read, spec_of(9), ()).up_to(9)) == 7


def test_a_pool_must_last_for_all_rounds() -> None:
    read = prompts_of([ENGLISH.format(i) for i in range(12)])
    assert len(choose(read, spec_of(4, of=12), ()).prompts) == 4
    with pytest.raises(CorpusError, match="only 12 of 12 prompts"):
        choose(read, spec_of(4, of=13), ())
