"""Turns of phrase by which a chat model is known: how it opens, closes, hedges and declines."""

from __future__ import annotations

import re

from epigone.evaluation.prose import paragraphs, prose_lines
from epigone.evaluation.words import words

# So many characters of an answer's beginning, or of its last paragraph, are looked at.
_LOOKED_AT = 400


def _any(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(rf"\b(?:{p})" for p in phrases), re.IGNORECASE)


# Not over the end of a line, so that an inch sign hides little.
_QUOTED = re.compile(r"[\"\u201c][^\"\u201c\u201d\n]{1,400}[\"\u201d]")

_OPENING = _any(
    r"(?:yes, )?(?:sure|certainly|of course|absolutely|definitely)(?: thing)?(?=[!,.:\u2014]| -|$)",
    r"(?:gladly|okay|ok|alright|understood|got it|no problem|my pleasure)(?=[!,.:\u2014]| -|$)",
    r"(?:great|good|excellent|wonderful|perfect|awesome|amazing)(?=[!,.]|$)",
    r"(?:hello|hi|hey|greetings|welcome)(?: there)?(?=[!,.]|$)",
    r"thank(?:s| you)(?=[!,.]| for\b)",
    r"you're (?:very |most )?welcome|you are (?:very |most )?welcome",
    r"(?:you're|you are) (?:absolutely |quite )?(?:right|correct)",
    r"(?:that's |that is )?(?:an? )?(?:great|good|excellent|interesting|wonderful) "
    r"(?:question|idea|point|job|choice)\b",
    r"(?:i'm|i am) (?:glad|happy|pleased|delighted) (?:to|that|you)\b",
    r"(?:i'd|i would) be (?:happy|glad) to\b",
    r"(?:yes, )?i understand\b",
    r"(?:i apologi[sz]e|(?:my )?apologies|(?:i'm |i am )?sorry) (?:for|about)\b",
    r"(?:i'm |i am )?sorry,? (?:if|i (?:didn't|forgot|missed|made|misunderstood))\b",
    r"(?:you've|you have) done (?:a )?(?:great|good)\b",
)
_CLOSING = _any(
    r"let me know\b",
    r"feel free to\b",
    r"(?:i )?hope (?:this|that|these|it|you)\b|i hope i was\b",
    r"(?:any|more|further|additional|other) (?:\w{1,12} )?questions\b",
    r"(?:happy|glad) to (?:help|assist|answer|provide)\b",
    r"is there (?:anything|something)\b",
    r"how (?:else )?(?:can|may) i (?:help|assist)\b",
    r"would you like me to\b",
    r"(?:do not|don't) hesitate\b",
    r"(?:good|best of) luck\b",
    r"enjoy\b[^.!\n]{0,30}!",
    r"i can help you\b",
    r"(?:i'll|i will) do my best\b",
)
_REFUSAL = _any(
    r"i (?:cannot|can't|can not|could not|couldn't|won't|will not) "
    r"(?!help but|bore you|go into (?:every|all|each|the full|much|too m)|"
    r"wait|stress|believe|recommend|emphasi|agree more|thank|lie\b|(?:even )?(?:begin "
    r"to )?(?:tell|express|describe|say|imagine|overstate)(?: you)? (?:how|enough))\w",
    r"(?:sorry|unfortunately|afraid|no)\b[,.]? (?:but |that )?i (?:cannot|can't|can not|won't)"
    r"(?=[.,;:!]|$)",
    r"(?:i'm|i am) (?:unable|not able|not allowed|not programmed|not capable|not designed)\b",
    r"i (?:do not|don't|did not|didn't) have (?:\w{1,20} ){0,3}?"
    r"(?:information|access|knowledge|data|ability|capability|records?|details)\b",
    r"(?:impossible|not possible|not appropriate|inappropriate) for me\b",
    r"against (?:my|openai's) ",
    r"i must (?:decline|refuse)\b",
)
_DISCLAIMER = _any(
    r"as an? (?:\w{1,12}[ -]){0,3}(?:language model|ai|artificial intelligence|chatbot)\b"
    r"(?: (?:model|assistant|system|program|chatbot|tool))?"
    r"(?: (?:developed|created|made|trained|built|designed|programmed) by (?:\w{1,20} ?){1,3})?"
    r"(?=,? ?i\b|,? ?my\b| language)",
    r"(?:i'm|i am|my name is) (?:chatgpt|gpt-?\d)",
    r"(?:i'm|i am) (?:just |only |simply )?an? (?:\w{1,12}[ -]){0,3}(?:language model|ai|"
    r"artificial intelligence|computer program|chatbot|text-based model|virtual assistant)\b",
    r"my (?:training data|training|knowledge base|programming)\b",
    r"(?:my )?knowledge cut-?\s?off\b",
    r"i (?:do not|don't) have (?:personal|feelings|emotions|opinions|preferences|beliefs|"
    r"real-time|a (?:body|gender|physical))\b",
    r"(?:i cannot|i can't|i'm not able to|i am not able to|i'm unable to|i am unable to) "
    r"(?:browse|access|search the)\b",
    r"i was (?:last )?trained\b|i was (?:created|developed|made|built) by openai\b",
)
# Those of Hyland's list that are seldom anything else: "can", "would" and "about" are left out.
_HEDGE = _any(
    # May is a month.
    r"(?:(?-i:may)|might|maybe|perhaps|possibl[ey]|probabl[ey]|(?:un)?likely|presumably|potentially)\b",
    r"(?:apparently|arguably|seem(?:s|ed|ingly)?|appears? to|suggests?|could be|can vary)\b",
    r"(?:generally|usually|typically|often|sometimes|frequently|mostly|mainly)\b",
    r"(?:in general|in most cases|largely|relatively|somewhat|fairly|roughly)\b",
    r"(?:approximately|to some extent|tends? to)\b",
    r"(?:it depends|depending on|not necessarily|i (?:think|believe|guess|suppose))\b",
)


def has_opening(text: str) -> bool:
    """Whether it begins with assent, thanks, praise, a greeting or an apology for a mistake."""
    return bool(_OPENING.match(_plain(text.lstrip("*_#> \n")[:_LOOKED_AT])))


def has_closing(text: str) -> bool:
    """Whether the last paragraph outside code offers help, invites, or wishes the reader well."""
    parts = paragraphs(text)
    return bool(parts) and closes(parts[-1])


def closes(paragraph: str) -> bool:
    """Whether a paragraph offers help, invites, or wishes the reader well."""
    return bool(_CLOSING.search(_plain(paragraph[-_LOOKED_AT:])))


def has_refusal(text: str) -> bool:
    """Whether the beginning declines, or says that what was asked is not possible or not known.

    What stands in double quotation marks is said by another.
    """
    said = _unquoted("\n".join(prose_lines(text)).strip()[: 2 * _LOOKED_AT])
    return bool(_REFUSAL.search(_plain(said[:_LOOKED_AT])))


def has_disclaimer(text: str) -> bool:
    """Whether it speaks of itself as a machine, in the first person: "As an AI language model"."""
    return bool(_DISCLAIMER.search(_plain(_unquoted("\n".join(prose_lines(text))))))


def hedges(text: str) -> float:
    """Hedges in a hundred words outside code, by a part of K. Hyland's list; 0 for no words.

    The list is in Metadiscourse: Exploring Interaction in Writing (2005), appendix.
    """
    prose = "\n".join(prose_lines(text))
    count = len(words(prose))
    return 100.0 * len(_HEDGE.findall(prose)) / max(1, count)


def _unquoted(text: str) -> str:
    return _QUOTED.sub(" ", text)


def _plain(text: str) -> str:
    return text.replace("\u2019", "'")
