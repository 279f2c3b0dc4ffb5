from __future__ import annotations

import pytest

from epigone.corpus.language import language, prose
from epigone.schema import Message

ENGLISH = "Could you please tell me how the weather in the mountains will be tomorrow?"
OTHERS = {
    "de": "Kannst du mir bitte sagen, wie morgen das Wetter in den Bergen wird?",
    "fr": "Pourriez-vous me dire quel temps il fera demain dans les montagnes ?",
    "es": "¿Podrías decirme por favor qué tiempo hará mañana en las montañas?",
    "ko": "내일 산의 날씨가 어떨지 알려 주시겠습니까? 감사합니다.",
    "ru": "Скажите, пожалуйста, какая завтра будет погода в горах?",  # noqa: RUF001
}
CODE = "for (int i = 0; i < n; i++) { der[i] = die(das[i], und, nicht); }\n" * 30


def turns(*texts: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[i % 2], t) for i, t in enumerate(texts))


def test_english_is_heard() -> None:
    assert language(prose(turns(ENGLISH, "It will be sunny.")), "en") == "en"


@pytest.mark.parametrize("code", OTHERS)
def test_other_languages_are_heard(code: str) -> None:
    assert language(prose(turns(OTHERS[code], OTHERS[code])), "en") == code
    assert language(prose(turns(OTHERS[code], OTHERS[code])), code) == code


def test_code_does_not_count() -> None:
    fenced = turns(
        f"```c\n{CODE}```\nPlease explain this loop to me.", f"It copies. `der`\n```{CODE}"
    )
    assert language(prose(fenced), "en") == "en"
    assert "der" not in prose(fenced)


@pytest.mark.parametrize(
    "text", ["", "42 + 1", "```\nx = 1\n```", "https://example.org/die/der/das"]
)
def test_what_tells_nothing_is_in_no_language(text: str) -> None:
    assert language(prose(turns(text, text)), "en") == ""


def test_only_prompts_and_replies_are_heard_and_not_without_end() -> None:
    system = (Message("system", OTHERS["de"] * 9), *turns(ENGLISH, ENGLISH))
    assert language(prose(system), "en") == "en"
    assert len(prose(turns(*[ENGLISH * 1000] * 50))) < 2000
