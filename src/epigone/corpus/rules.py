"""The cleaning rules, each a small named function, in the order in which they are applied."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape

from epigone.corpus.html import has_entities, is_bare_html, is_site_html, to_markdown
from epigone.corpus.privacy import without_emails, without_secrets
from epigone.schema import Message

Turns = tuple[Message, ...]
# What a rule does not touch it hands on as the same object: the audit counts by identity.
Rule = Callable[[Turns], Turns]

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"

_COPY_GLUED = re.compile(r"^([a-z][\w+#.-]{0,15})Copy code[ \t]*\n?", re.MULTILINE)
_COPY_LINE = re.compile(r"^[ \t]*Copy code[ \t]*(?:\n|\Z)", re.MULTILINE)
# Inside a fence a button's text can stand in the first line only; elsewhere it is code.
_COPY_FIRST = re.compile(r"\A([\w+#.-]*)[ \t]*\n?[ \t]*Copy code[ \t]*\n?")
_COPY_COUNT = re.compile(r"Copy\s*[\d,]+ chars? / [\d,]+ words?")
# Buttons that browser extensions leave behind a prompt.
_BUTTONS = re.compile(
    r"\s*(?:Share Prompt|지금 번역하기|Save & SubmitCancel"
    r"|(?:Copy)?(?:Copy HTML)?(?:Read Aloud)?(?:⏹️ Stop)?\d+ chars \| \d+ words)\s*$"
)
_LAST = ("Prompt", "번역하기", "Cancel", "words", *"0123456789")
_COUNTER = re.compile(
    r"(?P<before>^|\n|[^\n])(?P<blank>[^\S\n]*)(?P<n>\d{1,2}) / (?P<of>\d{1,2})\s*$"
)
# Words of a prompt from which on "2 / 2" behind it counts answers, unless it ends in one of these.
_DONE = 5
_GO_ON = re.compile(
    r"\b(?:is|are|was|be|of|by|than|to|for|from|and|or|plus|minus|times|equals?|about|scored?|rated?"
    r"|date|fraction|ratio|simplify|compute|calculate|evaluate|what|in|on|at|as|like|with|the|an?)\Z",
    re.IGNORECASE,
)
_NOTICE = re.compile(r"\*?This (?:chat )?conversation is shared from .{0,200}", re.DOTALL)

_ERROR = re.compile(
    r"(?:\s*(?:"
    r"too many requests in 1 hour\. try again later\."
    r"|only one message at a time\. please allow any other responses to complete[^\n]*"
    r"|the message you submitted was too long, please (?:reload|edit)[^\n]*"
    r"|hmm\.\.\.\s?something seems to have gone wrong\.[^\n]*"
    r"|there was an error generating a response\.?"
    r"|something went wrong\. (?:if this issue persists|please try)[^\n]*"
    r"|an error occurred\. (?:if this issue persists|please try|either the engine)[^\n]*"
    r"|(?:chatgpt is at capacity right now|our systems are a bit busy at the moment)[^\n]*"
    r"|you(?:'ve| have) reached (?:our|your|the) limit of messages[^\n]*"
    r"|(?P<short>!?network error|load failed|cancelled|\[object object\]|internal server error"
    r"|request timed out\.?|error in body stream|conversation not found|something went wrong\.?"
    r"|an error occurred\.?)"
    r"))+\s*",
    re.IGNORECASE,
)
_LONGEST_ERROR = 500
# Prompts to which a short message of the service may be the answer.
_ASKS_FOR_WORDS = re.compile(
    r"\b(?:translat|mean|return|give|gives|print|output|say|word|term|message|error|tense|synonym"
    r"|spell|result)",
    re.IGNORECASE,
)

_AN_AI = r"an?\ (?:ai|artificial\ intelligence|(?:large\ )?language\ model)\b"
_REFUSAL = re.compile(
    rf"""\W*
    (?:(?:i(?:'m|\ am)\ (?:really\ |very\ |truly\ |deeply\ |so\ )?sorry|(?:my|i)\ apolog\w+
        |unfortunately|regrettably|sorry|apologies)\b [^.!?\n]{{0,120}} [.!?,;:]? \s*)?
    (?:but\ |however,?\ |that\ )?
    (?:(?:as|i(?:'m|\ am)(?:\ just|\ only)?)\ {_AN_AI}
        [^.!?\n]{{0,60}}? (?:[,.]\ |and\ |so\ )(?:but\ )?)?
    (?:i(?:'m|\ am)\ afraid\ (?:that\ )?)? i
    (?:
        (?:'m|\ am)\ (?:not\ able|unable|not\ (?:allowed|permitted|programmed|designed|capable
            |equipped))\b
        |\ (?:cannot|can't|can\ not|won't|will\ not|do\ not|don't)(?:\ be\ able\ to)?
        (?:\ currently|\ directly|\ actually|\ also|\ personally|\ really|\ simply)?
        \ (?:assist|help|provide|fulfill?|comply|generate|create|write|answer|engage|support
            |continue|access|browse|offer|give|discuss|predict|participate|complete|perform|open|view|see
            |do\ that|make|recall|remember|express|promote|condone|share|confirm|verify
            |have\ (?:access|any|the\ ability|the\ capability|personal|real|enough|information
                |feelings|opinions|emotions|a\ body))\b
        |\ (?:(?:must|have\ to|need\ to)\ )?decline\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_AI = re.compile(rf"(?:^|[.!?,;:]\s+|\bbut |\bthat,? )as {_AN_AI}", re.IGNORECASE | re.MULTILINE)
# Both are said at the beginning of a reply.
_OPENING = 300


def no_turns(turns: Turns) -> Turns:
    """Drop conversations that have no turn at all."""
    return turns


def too_long(turns: Turns, most: int) -> Turns:
    """End a dialogue before the exchange with a turn of more than `max_chars` characters."""
    return _until(turns, lambda m: len(m.content) > most)


def site_html(turns: Turns) -> Turns:
    """Turn HTML into Markdown in conversations that a site exported as HTML.

    Such a conversation has a turn in the site's wrapping; or its replies are all HTML, and no
    prompt speaks of HTML.
    """
    replies = [m.content for m in turns if m.role == "assistant"]
    if not any(is_site_html(m.content) for m in turns):
        if not replies or not all(map(is_bare_html, replies)):
            return turns
        if any("html" in m.content.lower() for m in turns if m.role == "user"):
            return turns
    return _each(turns, lambda m: _from_html(m.content))


def site_artefacts(turns: Turns) -> Turns:
    """Take out texts of buttons and counters: "Copy code", "1 / 2", "Copy N chars / M words"."""
    return _each(turns, _without_artefacts)


def site_notices(turns: Turns) -> Turns:
    """Drop system turns in which a site only says that it exported the conversation."""
    return tuple(m for m in turns if m.role != "system" or not _NOTICE.fullmatch(m.content.strip()))


def error_replies(turns: Turns) -> Turns:
    """Drop replies that are an error message of the service; refusals stay."""
    kept: list[Message] = []
    asked = ""
    for turn in turns:
        if turn.role == "user":
            asked = turn.content
        if turn.role != "assistant" or not _is_error(turn.content, asked):
            kept.append(turn)
    return tuple(kept)


def empty_turns(turns: Turns) -> Turns:
    """Drop turns that are empty or only invisible characters.

    An empty prompt behind an answered one ends the dialogue.
    """
    kept: list[Message] = []
    for turn in turns:
        if turn.role == "tool" or not _is_empty(turn.content):
            kept.append(turn)
        elif (
            turn.role == "user"
            and any(m.role == "user" for m in kept)
            and kept[-1].role in ("assistant", "tool")
        ):
            break
    return tuple(kept)


def same_role_twice(turns: Turns) -> Turns:
    """Merge neighbouring turns of one speaker; of equal ones only one text stays."""
    merged: list[Message] = []
    for turn in turns:
        last = merged[-1] if merged else None
        if last is None or turn.role != last.role or turn.role not in ("user", "assistant"):
            merged.append(turn)
        elif turn.content.strip() != last.content.strip():
            merged[-1] = Message(turn.role, f"{last.content.rstrip()}\n\n{turn.content}")
    return tuple(merged)


def leading_replies(turns: Turns) -> Turns:
    """Drop what stands before the first prompt, but for system turns."""
    first = next((i for i, m in enumerate(turns) if m.role == "user"), len(turns))
    return tuple(m for i, m in enumerate(turns) if i >= first or m.role == "system")


def trailing_prompts(turns: Turns) -> Turns:
    """Drop turns behind the last reply; a conversation without a reply is dropped."""
    last = max((i for i, m in enumerate(turns) if m.role == "assistant"), default=-1)
    return turns[: last + 1]


def too_short(turns: Turns, least: int) -> Turns:
    """End a dialogue before the exchange with a reply of fewer than `min_chars` characters."""
    return _until(turns, lambda m: m.role == "assistant" and len(m.content.strip()) < least)


def refusals(turns: Turns) -> Turns:
    """End a dialogue before a reply that refuses, or that says "as an AI language model"."""
    return _until(turns, lambda m: m.role == "assistant" and _is_refusal(m.content))


def secrets(turns: Turns) -> Turns:
    """Put [secret] in the place of keys, tokens and passwords of well-known shapes."""
    return _each(turns, lambda m: without_secrets(m.content))


def emails(turns: Turns) -> Turns:
    """Put [email] in the place of e-mail addresses, but for those that are made for examples."""
    return _each(turns, lambda m: without_emails(m.content))


RULES: tuple[Callable[..., Turns], ...] = (
    no_turns,
    too_long,
    site_html,
    site_artefacts,
    site_notices,
    error_replies,
    empty_turns,
    same_role_twice,
    leading_replies,
    trailing_prompts,
    too_short,
    refusals,
    secrets,
    emails,
)


def exchanges(turns: Turns) -> Iterator[Turns]:
    """A conversation cut before every prompt; what comes before the first prompt is a piece too."""
    start = 0
    for i, turn in enumerate(turns):
        if turn.role == "user" and i > start:
            yield turns[start:i]
            start = i
    if start < len(turns):
        yield turns[start:]


def _until(turns: Turns, bad: Callable[[Message], bool]) -> Turns:
    """The exchanges before the first bad one: those behind it go on from what is not there."""
    if not any(bad(m) for m in turns):
        return turns
    kept: list[Message] = []
    for piece in exchanges(turns):
        if any(bad(m) for m in piece if m.role != "system"):
            break
        kept += piece
    return tuple(kept) if any(m.role == "user" for m in kept) else ()


def _from_html(text: str) -> str:
    if is_site_html(text) or is_bare_html(text):
        return to_markdown(text)
    return unescape(text) if has_entities(text) else text


def _each(turns: Turns, change: Callable[[Message], str]) -> Turns:
    changed = ((m, change(m)) for m in turns)
    return tuple(m if text == m.content else Message(m.role, text) for m, text in changed)


def _is_empty(text: str) -> bool:
    return not text.strip().strip(_INVISIBLE).strip()


def _is_refusal(text: str) -> bool:
    opening = text[:_OPENING].replace("\u2019", "'")
    return _REFUSAL.match(opening) is not None or _AI.search(opening) is not None


def _is_error(text: str, asked: str) -> bool:
    found = _ERROR.fullmatch(text) if len(text) <= _LONGEST_ERROR else None
    return found is not None and (found["short"] is None or not _ASKS_FOR_WORDS.search(asked))


def _without_artefacts(turn: Message) -> str:
    text = turn.content
    if "Copy" in text:
        text = "```".join(
            _COPY_FIRST.sub(lambda m: f"{m[1]}\n", part)
            if i % 2
            else _COPY_LINE.sub("", _COPY_GLUED.sub(r"\1\n", part))
            for i, part in enumerate(text.split("```"))
        )
        text = _COPY_COUNT.sub("", text)
    if turn.role != "user":
        return text
    while True:
        shorter = _without_tail(text)
        if shorter == text:
            return text
        text = shorter


def _without_tail(text: str) -> str:
    """Without one button or counter at the end."""
    # Both stand at the very end; looking only there keeps long prompts cheap.
    head, tail = text[:-80], text[-80:].rstrip()
    if not tail.endswith(_LAST):
        return text
    if button := _BUTTONS.search(tail):
        return head + tail[: button.start()]
    counter = _COUNTER.search(tail)
    if counter and _is_counter(counter, head + tail[: counter.end("before")]):
        return head + tail[: counter.end("before")].rstrip()
    return text


def _is_counter(found: re.Match[str], asked: str) -> bool:
    """Whether "n / m" at the end of a prompt counts answers and is not part of the question."""
    n, of, before = int(found["n"]), int(found["of"]), found["before"]
    if not 1 <= n <= of:
        return False
    if before.isdigit() or before in ("=", "+", "-", "*", "/", "(", "<", ",", "^", ":"):
        return False
    if before not in ("", "\n") and not found["blank"]:
        return True
    # "rate it 2 / 2" asks; a sentence's end, or a longer prompt, before "2 / 2" is done.
    asked = asked.rstrip()
    if asked.endswith((".", "!", "?", "\u2026", '"')):
        return n == of or before in ("", "\n")
    return n == of and len(asked.split()) >= _DONE and not _GO_ON.search(asked)
