"""The grant in words: all of it, bounded, with nothing that hides."""

from __future__ import annotations

import pytest

from services.access.domain.grant import CREATION_CHARS, STATEMENT_CHARS, TEXT_CHARS, grant, role_words
from services.access.domain.models import Subject
from services.common.texts import escaped
from tests.unit.access.access_builders import a_request, a_role


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b-ä€😀", "a b-ä€😀"),
        ("a\x1b[2Kb", "a\\x1b[2Kb"),
        ("a\u202eb\u2066c\u200f", "a\\u202eb\\u2066c\\u200f"),
        ("a\u200bb\ufeff\u00ad\u3164\ufe0f", "a\\u200bb\\ufeff\\xad\\u3164\\ufe0f"),
        ("a\nb\r\u2028\u0085", "a\\x0ab\\x0d\\u2028\\x85"),
        ("a\udc80\U000e0001", "a\\udc80\\U000e0001"),
    ],
)
def test_what_hides_or_reorders_text_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert escaped("a\nb\u202e", keep="\n") == "a\nb\\u202e"


def test_subjects_reason_and_ticket_are_in_the_grant() -> None:
    who = (Subject("ServiceAccount", "", "reports", "demo"), Subject("Group", "", "dba\u202e", ""))
    found = grant(a_request(subjects=who, reason="to\nlook", ticket="OPS-1", ttl_s=60.0), a_role())
    assert found.subjects == ("ServiceAccount demo/reports", "Group dba\\u202e")
    assert (found.reason, found.ticket, found.ttl_s, found.omitted) == ("to\\x0alook", "OPS-1", 60.0, 0)


def test_what_is_cut_from_a_grant_is_counted() -> None:
    long = "--" + " " * 20_000 + "\nGRANT root"
    words = role_words(vault="v", database="d", plugin="p", creation=[long, "SELECT 1;"], renew=["x" * 5_000])
    assert words.creation == (long[:CREATION_CHARS] + "…", "…")
    assert words.renew == ("x" * STATEMENT_CHARS + "…",)
    assert words.omitted == len(long) - CREATION_CHARS + len("SELECT 1;") + 5_000 - STATEMENT_CHARS
    found = grant(a_request(reason="y" * 2_000), a_role(words=words))
    assert found.reason == "y" * TEXT_CHARS + "…"
    assert found.omitted == words.omitted + 2_000 - TEXT_CHARS
