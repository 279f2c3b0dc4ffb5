"""The cleaning rules, each a small named function, in the order in which they are applied."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from epigone.corpus.html import is_site_html, to_markdown
from epigone.corpus.privacy import without_emails, without_secrets
from epigone.schema import Message

Turns = tuple[Message, ...]
# What a rule does not touch it hands on as the same object: the audit counts by identity.
Rule = Callable[[Turns], Turns]

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"

_COPY_IN_FENCE = re.compile(r"```([\w+#.-]*?)[ \t]*Copy code[ \t]*\n?")
_COPY_GLUED = re.compile(r"^([a-z][\w+#.-]{0,15})Copy code[ \t]*\n?", re.MULTILINE)
_COPY_LINE = re.compile(r"^[ \t]*Copy code[ \t]*(?:\n|\Z)", re.MULTILINE)
_COPY_COUNT = re.compile(r"Copy\s*[\d,]+ chars? / [\d,]+ words?")
# Buttons that browser extensions leave behind a prompt.
_BUTTONS = re.compile(
    r"\s*(?:Share Prompt|지금 번역하기|Save & SubmitCancel|Regenerate response|Stop generating"
    r"|(?:Copy)?(?:Copy HTML)?(?:Read Aloud)?(?:⏹️ Stop)?\d+ chars \| \d+ words)\s*$"
)
_LAST = ("Prompt", "번역하기", "Cancel", "response", "generating", "words", *"0123456789")
_COUNTER = re.compile(
    r"(?P<before>^|\n|[^\n])(?P<blank>[^\S\n]*)(?P<n>\d{1,2}) / (?P<of>\d{1,2})\s*$"
)
_NOTICE = re.compile(r"\*?This (?:chat )?conversation is shared from .{0,200}", re.DOTALL)

_ERROR = re.compile(
    r"(?:\s*(?:"
    r"too many requests in 1 hour\. try again later\."
    r"|!?network error|load failed|cancelled|\[object object\]|internal server error"
    r"|request timed out\.?|error in body stream|conversation not found"
    r"|only one message at a time\. please allow any other responses to complete[^\n]*"
    r"|the message you submitted was too long, please (?:reload|edit)[^\n]*"
    r"|hmm\.\.\.\s?something seems to have gone wrong\.[^\n]*"
    r"|there was an error generating a response\.?"
    r"|something went wrong\.?(?: (?:if this issue persists|please try)[^\n]*)?"
    r"|an error occurred\.?(?: (?:if this issue persists|please try|either the engine)[^\n]*)?"
    r"|(?:chatgpt is at capacity right now|our systems are a bit busy at the moment)[^\n]*"
    r"|you(?:'ve| have) reached (?:our|your|the) limit of messages[^\n]*"
    r"))+\s*",
    re.IGNORECASE,
)
_LONGEST_ERROR = 500

_REFUSAL = re.compile(
    r"\W*(?:(?:i(?:'m| am) (?:really |very |truly |deeply )?sorry|i apologi[sz]e|unfortunately"
    r"|sorry|apologies)\b[^.!?\n]{0,120}?)?\W*(?:but )?"
    r"(?:i|as an ai[^.!?\n]{0,60}?,? i)(?:'m| am)?(?: afraid i)?"
    r"(?: do not| don't| cannot| can't| can not| won't| will not| am not| not| unable)"
    r"[^.!?\n]{0,40}?\b(?:able|allowed|programmed|designed|capable|have|assist|help|provide|fulfil"
    r"|fulfill|comply|generate|create|write|answer|engage|support|continue|access|browse|unable"
    r"|offer|give|discuss|predict|participate|complete|perform|to)\b",
    re.IGNORECASE,
)
_AI = re.compile(
    r"\bas an (?:ai|artificial intelligence)(?: language)?(?: model| assistant)?\b", re.I
)
# Both are said at the beginning of a reply.
_OPENING = 300


def no_turns(turns: Turns) -> Turns:
    """Drop conversations that have no turn at all."""
    return turns


def too_long(turns: Turns, most: int) -> Turns:
    """Drop exchanges with a turn of more than `max_chars` characters."""
    return _without_exchanges(turns, lambda m: len(m.content) > most)


def site_html(turns: Turns) -> Turns:
    """Turn the HTML of the site's export into Markdown."""
    return _each(turns, lambda m: to_markdown(m.content) if is_site_html(m.content) else m.content)


def site_artefacts(turns: Turns) -> Turns:
    """Take out texts of buttons and counters: "Copy code", "1 / 2", "Copy N chars / M words"."""
    return _each(turns, _without_artefacts)


def site_notices(turns: Turns) -> Turns:
    """Drop system turns in which a site only says that it exported the conversation."""
    return tuple(m for m in turns if m.role != "system" or not _NOTICE.fullmatch(m.content.strip()))


def error_replies(turns: Turns) -> Turns:
    """Drop exchanges whose reply is an error message of the service; refusals stay."""
    return _without_exchanges(turns, lambda m: m.role == "assistant" and _is_error(m.content))


def same_role_twice(turns: Turns) -> Turns:
    """Merge neighbouring turns of one speaker; of equal or empty ones only one text stays."""
    merged: list[Message] = []
    at = -1  # of the last turn that says something or has a speaker
    for turn in turns:
        last = merged[at] if at >= 0 else None
        if last is None or turn.role != last.role or turn.role not in ("user", "assistant"):
            merged.append(turn)
            # Empty system turns are dropped later, and part no speaker's turns.
            if turn.role != "system" or not _is_empty(turn.content):
                at = len(merged) - 1
        elif _is_empty(last.content):
            merged[at] = turn
        elif not _is_empty(turn.content) and turn.content.strip() != last.content.strip():
            merged[at] = Message(turn.role, f"{last.content.rstrip()}\n\n{turn.content}")
    return tuple(merged)


def empty_turns(turns: Turns) -> Turns:
    """Drop exchanges in which the prompt or the reply is empty or only invisible characters."""
    kept = _without_exchanges(turns, lambda m: m.role != "tool" and _is_empty(m.content))
    return tuple(m for m in kept if m.role != "system" or not _is_empty(m.content))


def leading_replies(turns: Turns) -> Turns:
    """Drop what stands before the first prompt, but for system turns."""
    first = next((i for i, m in enumerate(turns) if m.role == "user"), len(turns))
    return tuple(m for i, m in enumerate(turns) if i >= first or m.role == "system")


def trailing_prompts(turns: Turns) -> Turns:
    """Drop turns behind the last reply; a conversation without a reply is dropped."""
    last = max((i for i, m in enumerate(turns) if m.role == "assistant"), default=-1)
    return turns[: last + 1]


def too_short(turns: Turns, least: int) -> Turns:
    """Drop exchanges with a reply of fewer than `min_chars` characters."""
    return _without_exchanges(
        turns, lambda m: m.role == "assistant" and len(m.content.strip()) < least
    )


def refusals(turns: Turns) -> Turns:
    """Drop exchanges whose reply refuses, or says that it comes from an AI language model."""
    return _without_exchanges(turns, lambda m: m.role == "assistant" and _is_refusal(m.content))


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
    same_role_twice,
    empty_turns,
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


def _without_exchanges(turns: Turns, bad: Callable[[Message], bool]) -> Turns:
    if not any(bad(m) for m in turns):
        return turns
    kept: list[Message] = []
    for piece in exchanges(turns):
        spoilt = any(bad(m) for m in piece if m.role != "system")
        kept += [m for m in piece if not spoilt or m.role == "system"]
    return tuple(kept)


def _each(turns: Turns, change: Callable[[Message], str]) -> Turns:
    changed = ((m, change(m)) for m in turns)
    return tuple(m if text == m.content else Message(m.role, text) for m, text in changed)


def _is_empty(text: str) -> bool:
    return not text.strip().strip(_INVISIBLE).strip()


def _is_refusal(text: str) -> bool:
    opening = text[:_OPENING].replace("\u2019", "'")
    return _REFUSAL.match(opening) is not None or _AI.search(opening) is not None


def _is_error(text: str) -> bool:
    return len(text) <= _LONGEST_ERROR and _ERROR.fullmatch(text) is not None


def _without_artefacts(turn: Message) -> str:
    text = turn.content
    if "Copy" in text:
        text = _COPY_IN_FENCE.sub(r"```\1\n", text)
        text = _COPY_GLUED.sub(r"\1\n", text)
        text = _COPY_LINE.sub("", text)
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
    if counter and _is_counter(counter):
        return head + tail[: counter.end("before")].rstrip()
    return text


def _is_counter(found: re.Match[str]) -> bool:
    """Whether "n / m" at the end of a prompt counts answers and is not part of the question."""
    n, of, before = int(found["n"]), int(found["of"]), found["before"]
    if not 1 <= n <= of:
        return False
    if before.isdigit() or before in ("=", "+", "-", "*", "/", "(", "<", ",", "^"):
        return False
    # "halve 1 / 2" asks; "halve1 / 2", "halve\n1 / 2" and "halve 2 / 2" end in a counter.
    return n == of or before in ("", "\n") or not found["blank"]
