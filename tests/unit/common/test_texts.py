"""No character of a remote text that a terminal carries out or hides is shown raw, wherever the text is shown (L)."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import yaml

from cli.kubectl_vault.table import as_table, as_text
from cli.leasegate import show
from cli.leasegate.errors import error_text
from leasegate.access.v1 import lease_pb2, ledger_pb2, orphan_pb2
from leasegate.access.v1 import operator_service_pb2 as pb
from services.common import logs
from services.common.errors import FieldViolation, LeasegateError, SpecInvalidError, VaultRefusedError
from services.common.rpc.status import from_status, to_status
from services.common.texts import escaped, escaped_json, escaped_lines
from services.common.vault.response import decode
from watcher.kube import conditions

NOW = datetime(2026, 11, 24, 7, 0, 0, tzinfo=UTC)
C0_AND_C1 = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))]
BIDI = [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
UNSEEN = [*"\u00ad\u034f\u180e\u200b\u200c\u200d\u2060\u2064\ufe0f\ufeff\u3164\U000e0001\U000e0041"]
LINES = [*"\u2028\u2029"]
HARMFUL = [*C0_AND_C1, *BIDI, *UNSEEN, *LINES]
ANSI = ["\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;https://evil.example\x1b\\link", "\x9b31m", "\x1bP+q\x1b\\"]
SEEN = "naïve Пример 漢字 👍 a_b\\x1b 'quoted' 100 %"
TEXTS = [*ANSI, *(f"a{each}b" for each in HARMFUL)]


def of_vault(text: str) -> str:
    """What a caller of a service reads of an answer of Vault."""
    with pytest.raises(VaultRefusedError) as refused:
        decode(400, json.dumps({"errors": [text]}).encode(), path=f"x/config/{text}", address="https://vault")
    return from_status(to_status(refused.value)).message


def of_a_field(text: str) -> str:
    err = from_status(to_status(SpecInvalidError.of(FieldViolation(f"spec.{text}", text))))
    assert isinstance(err, SpecInvalidError)
    return err.message + str(err.violations[0].field) + err.violations[0].description


def of_a_condition(text: str) -> str:
    wrong = conditions.Condition("Ready", status=False, reason="Failed", message=text)
    status = conditions.merged({}, fields={}, conditions=[wrong], complete=True, now=NOW, generation=1)
    return str(status["conditions"][0]["message"])


def of_the_plugin(text: str) -> str:
    decision = {"type": "Approved", "approver": text}
    return as_table([a_request(text, phase=text, conditions=[decision])], now=NOW, with_namespace=True)


def of_leases(text: str) -> str:
    lease = lease_pb2.Lease(handle=text, vault_role=text, username=text, access_request_id=text, end_reason=text)
    return show.leases([lease], now=NOW)


def of_orphans(text: str) -> str:
    orphan = orphan_pb2.Orphan(lease_id=text, username=text, access_request_id=text, advice=text)
    skipped = orphan_pb2.SkippedMount(mount=text, address=text, reason=text)
    return show.orphans(pb.FindOrphansResponse(orphans=[orphan], skipped_mounts=[skipped]), database=True)


SINKS: list[Callable[[str], str]] = [
    logs.bounded,
    of_vault,
    of_a_field,
    of_a_condition,
    of_the_plugin,
    of_leases,
    of_orphans,
    lambda text: show.ledger(ledger_pb2.Ledger(id=text, known_id=text, issuance_paused=True)),
    lambda text: error_text(LeasegateError(text)),
]


def a_request(name: str, **status: object) -> dict[str, object]:
    metadata = {"name": name, "namespace": name, "creationTimestamp": "2026-11-24T06:58:30Z"}
    return {"metadata": metadata | {"annotations": {"leasegate.dev/requested-by": name}}, "status": status}


def is_raw(text: str) -> bool:
    """By what Unicode says of a character, not by the list under test."""
    return any(unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp", "Cs") or each in UNSEEN for each in text)


@pytest.mark.parametrize("sink", SINKS)
def test_no_control_bidi_or_unseen_character_is_shown_raw(sink: Callable[[str], str]) -> None:
    lines = sink("plain").count("\n")
    for text in TEXTS:
        shown = sink(text)
        assert not is_raw(shown.replace("\n", "")), ascii(text)
        assert shown.count("\n") == lines, ascii(text)  # no text forges another row


def test_a_forged_row_stays_in_its_cell() -> None:
    shown = of_the_plugin("x\nprod   other   Approved   bob")
    assert len(shown.splitlines()) == 2
    assert "\\x0aprod" in shown


def test_what_is_seen_stays_as_it_is_and_an_escape_is_not_escaped_again() -> None:
    assert escaped(SEEN) == SEEN
    for text in TEXTS:
        assert escaped(escaped(text)) == escaped(text)
    assert escaped("\x1b[2J\u202e\U000e0041\n") == "\\x1b[2J\\u202e\\U000e0041\\x0a"


def test_lines_of_its_writer_stay_lines() -> None:
    assert escaped_lines("a\r\n\x1bb\n") == "a\\x0d\n\\x1bb\n"


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_documents_for_programs_keep_each_value(form: str) -> None:
    values = {str(number): text for number, text in enumerate([*TEXTS, SEEN])}
    request = a_request("r") | {"spec": values}
    shown = as_text([request], form=form, single=True)
    assert not is_raw(shown.replace("\n", ""))
    read = json.loads(shown) if form == "json" else yaml.safe_load(shown)
    assert read["spec"] == values


def test_a_document_without_such_characters_is_as_readable_as_before() -> None:
    assert SEEN[:20] in as_text([a_request(SEEN)], form="yaml", single=True)
    assert json.loads(escaped_json(json.dumps(SEEN, ensure_ascii=False))) == SEEN


def test_a_log_line_shows_none_to_whoever_prints_its_members(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", process="roles")
    for text in TEXTS:
        logs.logger("services.roles").info(text, name=text, each=[text], error=VaultRefusedError(text))
    for line in capsys.readouterr().err.splitlines():
        read = json.loads(line)
        assert not any(is_raw(str(value)) for value in (read["event"], read["name"], read["error"], *read["each"]))
