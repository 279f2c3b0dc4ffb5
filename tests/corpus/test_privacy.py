from __future__ import annotations

import pytest

from epigone.corpus.privacy import without_emails, without_secrets

KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCD"


@pytest.mark.parametrize(
    "secret",
    [
        f"sk-{KEY}",
        "ghu_" + KEY[:36],
        "xapp-1-A012345-123456789-0123456789abcdef0123",
        f"sk-proj-{KEY}",
        f"sk-ant-api03-{KEY}",
        "AKIAABCDEFGHIJKLMNOP",
        f"ghp_{KEY[:36]}",
        f"github_pat_{KEY}",
        f"glpat-{KEY[:20]}",
        "xoxb-123456789012-abcdefghij",
        f"AIza{KEY[:35]}",
        f"hf_{'abcdefghijklmnopqrstuvwxyzABCDEFGH'}",
        f"sk_live_{KEY[:24]}",
        f"npm_{KEY[:36]}",
        f"SG.{KEY[:22]}.{KEY[:40]}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJ{KEY}.{KEY}",
        f"1234567890:AA{KEY[:33]}",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIE and the end is missing",
    ],
)
def test_secrets_are_taken_out_and_nothing_else(secret: str) -> None:
    assert without_secrets(f"use {secret}") == "use [secret]"
    if "PRIVATE" not in secret:
        assert without_secrets(f'k = "{secret}", done') == 'k = "[secret]", done'


def test_the_password_of_an_address_is_taken_out() -> None:
    text = "postgres://ann:hunter2@db.example.com/x and https://example.com:8080/a@b"
    assert without_secrets(text) == (
        "postgres://[secret]@db.example.com/x and https://example.com:8080/a@b"
    )


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"AWS_SECRET_ACCESS_KEY={KEY}", "AWS_SECRET_ACCESS_KEY=[secret]"),
        (f'aws_secret_access_key = "{KEY}"', 'aws_secret_access_key = "[secret]"'),
        (f"Authorization: Bearer {KEY}", "Authorization: Bearer [secret]"),
        (
            "https://hooks.slack.com/services/T0ABCDEF1/B0ABCDEF2/abcdefghijklmnop",
            "https://hooks.slack.com/services/[secret]",
        ),
        (f"AccountKey={KEY}{KEY}==;x", "AccountKey=[secret];x"),
    ],
)
def test_what_stands_before_a_secret_stays(text: str, left: str) -> None:
    assert without_secrets(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "sk-toggleable__label-arrow and pip install sk-video-something-long-package-name",
        "Bearer authentication-with-a-very-long-word",
        "risk-averse people ask-me-anything about disk-utilities-and-more-of-them",
        "the AKIA prefix and ghp_ alone",
        "sk-short",
        "BEGIN PUBLIC KEY",
        "ratio 12:30 and http://user@host/",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to jane.doe+x@mail.company.co.uk now", "write to [email] now"),
        ("<a@b.io>, c_d@e-f.org.", "<[email]>, [email]."),
        ("user@example.com and me@test.example.org", "user@example.com and me@test.example.org"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("@decorator x@y 5@3.5 a@b@c", "@decorator x@y 5@3.5 a@b@c"),
        ("name@company.com", "[email]"),
        ("joe@m\u00fcnchen.de, jan\u00e9@firm.fr", "[email], [email]"),
        ("\u53d1\u5230jane@firm.com\u8c22\u8c22", "\u53d1\u5230[email]\u8c22\u8c22"),
        (
            "logo@2x.png x@W.dot A@B.mean() x@w.to(device)",
            "logo@2x.png x@W.dot A@B.mean() x@w.to(device)",
        ),
    ],
)
def test_addresses(text: str, left: str) -> None:
    assert without_emails(text) == left


@pytest.mark.parametrize(
    "text", ["a" * 200_000 + "@", "a.b-" * 50_000 + "@x", "://" * 60_000, "sk-, " * 60_000]
)
def test_no_text_makes_the_search_slow(text: str) -> None:
    # A search that is not linear would take hours here.
    assert without_emails(text) == text
    assert without_secrets(text) == text
