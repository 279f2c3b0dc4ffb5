"""What nobody should learn by heart: keys, tokens, passwords and e-mail addresses."""

from __future__ import annotations

import re

# A literal that every secret of the kind contains, and the whole of it. The literal is found much
# faster, and most texts have none. Runs are bounded, so that no text makes a search quadratic.
_SECRETS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (literal, re.compile(pattern if "(?P<before>" in pattern else f"(?P<before>){pattern}"))
    for literal, pattern in (
        # A digit tells a key from the name of a class or a package.
        ("sk-", r"\bsk-(?=[A-Za-z_-]{0,200}[0-9])(?:[a-z]{2,8}-)?[A-Za-z0-9_-]{20,200}"),
        ("AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
        ("ASIA", r"\bASIA[0-9A-Z]{16}\b"),
        ("aws_secret", r"(?P<before>aws_secret_access_key\W{1,5})[A-Za-z0-9/+=]{40}\b"),
        ("AWS_SECRET", r"(?P<before>AWS_SECRET_ACCESS_KEY\W{1,5})[A-Za-z0-9/+=]{40}\b"),
        ("SecretAccessKey", r"(?P<before>SecretAccessKey\W{1,5})[A-Za-z0-9/+=]{40}\b"),
        ("AccountKey=", r"(?P<before>AccountKey=)[A-Za-z0-9/+]{80,90}={0,2}"),
        (
            "hooks.slack.com",
            r"(?P<before>hooks\.slack\.com/services/)T\w{5,20}/B\w{5,20}/\w{10,40}",
        ),
        ("xapp-", r"\bxapp-\d-[A-Z0-9]{5,20}-\d{5,20}-[a-f0-9]{20,100}"),
        (
            "Bearer ",
            r"(?P<before>\bBearer )(?=[A-Za-z._~+/-]{0,200}[0-9])[A-Za-z0-9._~+/-]{24,500}=*",
        ),
        ("ghp_", r"\bghp_[A-Za-z0-9]{36,255}"),
        ("gho_", r"\bgho_[A-Za-z0-9]{36,255}"),
        ("ghs_", r"\bghs_[A-Za-z0-9]{36,255}"),
        ("ghu_", r"\bghu_[A-Za-z0-9]{36,255}"),
        ("ghr_", r"\bghr_[A-Za-z0-9]{36,255}"),
        ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{22,255}"),
        ("glpat-", r"\bglpat-[\w-]{20,100}"),
        ("xox", r"\bxox[abeoprs]-[\w-]{10,250}"),
        ("AIza", r"\bAIza[\w-]{35}"),
        ("hf_", r"\bhf_[A-Za-z0-9]{30,100}"),
        ("_live_", r"\b[rsp]k_live_[A-Za-z0-9]{16,250}"),
        ("_test_", r"\b[rsp]k_test_[A-Za-z0-9]{16,250}"),
        ("npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("SG.", r"\bSG\.[\w-]{16,32}\.[\w-]{16,64}"),
        ("eyJ", r"\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,8000}\.[\w-]{10,2000}"),
        (":AA", r"\b\d{8,10}:AA[\w-]{33}"),
        (
            "PRIVATE KEY",
            r"-----BEGIN (?:[A-Z]{2,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            r"[\s\S]{0,10000}?(?:-----END (?:[A-Z]{2,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----|\Z)",
        ),
        ("://", r"(?<=://)[^\s/:@'\"<>]{1,100}:[^\s/:@'\"<>]{3,100}(?=@[\w.-]{1,100})"),
    )
)
# Letters of Latin only: Chinese text has no blank in front of an address.
_LETTER = "A-Za-z0-9\u00c0-\u024f"
# Two letters are a country. Other endings are names of methods and files, unless they are these.
_ENDING = (
    "[A-Za-z]{2}|com|org|net|edu|gov|mil|int|info|biz|name|pro|app|dev|tech|online|site|store|shop"
    "|cloud|xyz|club|email|live|news|blog|agency|digital|solutions|services|group|company|global"
    "|world|life|today|design|studio|media|work|works|jobs|travel|museum|asia|london|berlin|nyc"
)
_EMAIL = re.compile(
    rf"(?<![{_LETTER}._%+-])([{_LETTER}._%+-]{{1,64}})@"
    rf"((?:[{_LETTER}-]{{1,63}}\.){{1,8}}(?:{_ENDING}))(?![{_LETTER}-]|\.[a-z]{{3,}}\(|\()",
    re.IGNORECASE,
)
# Names that RFC 2606 reserves for examples, and addresses that belong to nobody.
_NOBODY = re.compile(
    r"(?:.*\.)?(?:example(?:\.(?:com|org|net|edu))?|test|invalid|localhost|domain\.com)",
    re.IGNORECASE,
)
_MACHINES = ("git", "noreply", "no-reply")


def without_secrets(text: str) -> str:
    """The text with [secret] in the place of secrets of well-known shapes."""
    for literal, pattern in _SECRETS:
        if literal in text:
            text = pattern.sub(r"\g<before>[secret]", text)
    return text


def redacted(text: str) -> str:
    """The text without secrets and addresses, as it may be shown to anybody."""
    return without_emails(without_secrets(text))


def without_emails(text: str) -> str:
    """The text with [email] in the place of e-mail addresses that may be somebody's."""
    return _EMAIL.sub(_unless_nobody, text) if "@" in text else text


def _unless_nobody(found: re.Match[str]) -> str:
    if _NOBODY.fullmatch(found[2]) or found[1].lower() in _MACHINES:
        return found[0]
    return "[email]"
