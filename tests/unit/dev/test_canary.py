"""The canary itself: a secret that is printed is found, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

from tests.canary import Canary, by_head, places, secrets_of

AUDIT = [
    {
        "type": "response",
        "auth": {"client_token": "s.abcdefgh1234"},
        "response": {"data": {"password": "pw-12345678", "username": "someone-known"}},
    },
    {"type": "request", "request": {"data": {"password": "root", "jwt": ["x"]}}},
]


def _canary(tmp_path: Path, printed: str) -> Canary:
    audit = tmp_path / "audit.jsonl"
    audit.write_text("".join(json.dumps(line) + "\n" for line in AUDIT) + '{"torn": ')
    canary = Canary()
    canary.collect(audit)
    canary.texts.append(("a test", printed))
    return canary


def test_secrets_are_read_from_the_audit_log(tmp_path: Path) -> None:
    """Passwords and tokens of some length, and no other values."""
    _canary(tmp_path, "")
    assert secrets_of(tmp_path / "audit.jsonl") == {"s.abcdefgh1234", "pw-12345678"}


def test_a_printed_secret_is_a_leak(tmp_path: Path) -> None:
    """It is named with the test that printed it, and not repeated itself."""
    leaks = _canary(tmp_path, "auth failed for pw-12345678").leaks()
    assert len(leaks) == 1
    assert "a test" in leaks[0]
    assert "pw-12345678" not in leaks[0]


def test_every_place_is_found() -> None:
    """Within other words, at both ends, more than once, and those that begin alike."""
    heads = by_head({"s.abcdefgh1234", "s.abcdefgh9999", "pw-12345678"})
    text = "pw-12345678 xs.abcdefgh9999y s.abcdefgh pw-1234567 s.abcdefgh1234pw-12345678"
    assert [text[at : at + 11] for at in places(heads, text)] == [
        "pw-12345678",
        "s.abcdefgh9",
        "s.abcdefgh1",
        "pw-12345678",
    ]
    assert list(places(heads, "short")) == []
    assert list(places(by_head([]), text)) == []


def test_other_words_are_none(tmp_path: Path) -> None:
    """User names and short passwords do not count."""
    assert _canary(tmp_path, "someone-known root").leaks() == []
