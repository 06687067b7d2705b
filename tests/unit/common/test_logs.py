"""Log lines: JSON, with what helps, without what is secret."""

from __future__ import annotations

import datetime
import enum
import errno
import json
import logging
import warnings
import weakref
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from leasegate.access.v1 import lease_pb2
from leasegate.types.v1 import types_pb2
from services.common import logs
from services.common.errors import VaultSealedError
from services.common.rpc import request_ids

Lines = Callable[[], list[dict[str, Any]]]
GEN = Path(__file__).parents[3] / "protos" / "gen"
CANARY = "c4nary"


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    logs.configure("debug", process="engine")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers[:] = handlers
    logging.captureWarnings(capture=False)


def test_a_line_says_when_who_and_for_which_request(lines: Lines) -> None:
    with request_ids.following("r-1"):
        logs.logger("services.engine").info("mounted", path="team/a", count=3)
    logs.logger("services.engine").debug("idle")
    first, second = lines()
    when = datetime.datetime.fromisoformat(first.pop("timestamp"))
    assert when.tzinfo is not None
    assert first == {
        "event": "mounted",
        "level": "info",
        "logger": "services.engine",
        "process": "engine",
        "request_id": "r-1",
        "path": "team/a",
        "count": 3,
    }
    assert "request_id" not in second


def test_the_standard_library_logs_the_same_way(lines: Lines) -> None:
    logging.getLogger("urllib3").warning("retry of %s with token=%s", "x", CANARY)
    logging.getLogger("urllib3").info("not this")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    first, second = lines()
    assert (first["event"], first["level"], first["process"]) == ("retry of x with token=[hidden]", "warning", "engine")
    assert "old" in second["event"]


def test_a_library_record_with_wrong_arguments_is_a_line_without_them(lines: Lines) -> None:
    record = logging.LogRecord("urllib3", logging.WARNING, "x", 1, "retry of %d", (f"token {CANARY}",), None)
    logs._LibraryHandler().handle(record)  # by itself, as the handler of pytest raises
    (line,) = lines()
    assert (line["event"], line["logger"]) == ("a log record does not fit its arguments", "urllib3")
    assert CANARY not in json.dumps(line)


def test_foreign_debug_is_never_printed_as_it_holds_bodies(lines: Lines) -> None:
    logging.getLogger("kubernetes.client.rest").debug("response body: %s", CANARY)
    assert lines() == []


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_password",
        "token",
        "vault_token",
        "jwt",
        "secret_id",
        "secretId",
        "private_key",
        "lease_id",
        "Authorization",
        "client_token",
    ],
)
def test_a_value_under_a_secret_name_is_hidden_at_any_depth(lines: Lines, name: str) -> None:
    log = logs.logger("services")
    log.info("x", **{name: CANARY})
    log.info("x", data={"auth": [{name: {"nested": CANARY}}]})
    found = lines()
    assert CANARY not in json.dumps(found)
    assert found[0][name] == logs.HIDDEN


@pytest.mark.parametrize(
    "name", ["token_file", "password_count", "lease_id_count", "token_ttl_s", "attempt", "secret", "key_path"]
)
def test_a_value_about_a_secret_is_printed(lines: Lines, name: str) -> None:
    logs.logger("services").info("x", **{name: "shown"})
    assert lines()[0][name] == "shown"


def redacted_fields() -> set[str]:
    modules = [import_module(".".join(path.relative_to(GEN).with_suffix("").parts)) for path in GEN.rglob("*_pb2.py")]
    messages = [message for module in modules for message in module.DESCRIPTOR.message_types_by_name.values()]
    return {field.name for message in messages for field in fields(message) if field.GetOptions().debug_redact}


def fields(message: Descriptor) -> list[FieldDescriptor]:
    return [*message.fields, *(field for nested in message.nested_types for field in fields(nested))]


def test_all_redacted_fields_of_the_contracts_have_secret_names(lines: Lines) -> None:
    names = redacted_fields()
    assert {"password", "jwt", "lease_id"} <= names
    for name in names:
        logs.logger("services").info("x", **{name: CANARY})
    assert CANARY not in json.dumps(lines())


def test_a_protobuf_message_is_never_printed(lines: Lines) -> None:
    credential = lease_pb2.Credential(password=CANARY)
    target = types_pb2.VaultTarget()
    logs.logger("services").info("x", answer=credential, all=[credential, {"target": target}])
    found = lines()
    assert CANARY not in json.dumps(found)
    assert found[0]["answer"] == "[Credential]"


def test_a_printed_protobuf_message_in_a_text_is_scrubbed(lines: Lines) -> None:
    logs.logger("services").info(
        f"got {lease_pb2.Credential(username='u', password=CANARY)}", other=repr(lease_pb2.Credential(password=CANARY))
    )
    assert CANARY not in json.dumps(lines())


@pytest.mark.parametrize(
    "text",
    [
        f"bad token hvs.CAESI{CANARY}-_x",
        f"hvb.AAAAAQ{CANARY}",
        f"s.{CANARY}0123456789abcdef",
        f"Bearer eyJhbGciOi.eyJpc3Mi{CANARY}.sig-{CANARY}",
        f"postgresql://v-root:{CANARY}@db:5432/x",
        f"lease database/creds/k8s.-.demo.pg-role/{CANARY}ABCDEFGHIJKL not found",
        f"lease ns1/database/creds/r/{CANARY}ABCD.ns0Id",
        f"password={CANARY} host=db",
        f"""{{"password": "{CANARY}", 'secret_id': '{CANARY}'}}""",
        f"private_key: {CANARY}",
        f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY} cut off",
        f"CREATE ROLE x LOGIN PASSWORD '{CANARY}' VALID UNTIL 'y'",
    ],
)
def test_text_in_the_shape_of_a_secret_is_scrubbed(lines: Lines, text: str) -> None:
    logs.logger("services").info(text, detail=f"and {text}", problem=VaultSealedError(text))
    assert CANARY not in json.dumps(lines())


@pytest.mark.parametrize(
    "text",
    [
        "database/creds/k8s.-.demo.pg-role",
        "password authentication failed for user x",
        "permission denied: auth/token/create",
        "https://vault.example:8200/v1/sys/health",
        "k8s.-.demo.postgres-role",
        "leasegate.access.v1.RequesterService",
        "token expired",
    ],
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert logs.scrub(text) == text


class Text(str):
    """A string that a weak reference can point to."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize(
    "text", [f"password: {CANARY}", f"refused: https://u:{CANARY}@x/", f"it was hvs.{CANARY}{CANARY}"]
)
def test_a_text_with_a_secret_is_not_kept_in_memory(text: str) -> None:
    given = Text(text)
    reference = weakref.ref(given)
    assert CANARY not in logs.scrub(given)
    assert CANARY not in logs.scrub(given)
    del given
    assert reference() is None


def test_no_more_than_some_harmless_texts_are_kept() -> None:
    for number in range(3 * logs._REPEATED):
        assert logs.scrub(f"{number} of them") == f"{number} of them"
    assert len(logs._harmless) <= logs._REPEATED


def test_an_exception_is_logged_with_causes_and_without_variables(lines: Lines) -> None:
    def inner(argument: str) -> None:
        local = argument
        raise ValueError(f"inner {len(local)} password={CANARY}")

    try:
        try:
            inner(CANARY)
        except ValueError as err:
            raise RuntimeError("outer") from err
    except RuntimeError:
        logs.logger("services").exception("failed")
        logging.getLogger("services").exception("failed, too")
    found = lines()
    assert CANARY not in json.dumps(found)
    for line in found:
        assert "ValueError: inner 6 password=[hidden]" in line["exception"]
        assert "RuntimeError: outer" in line["exception"]
        assert "exc_info" not in line


def test_a_long_trace_keeps_its_end() -> None:
    assert len(logs.trace(ValueError("x" * 20000 + "end"))) == logs.TRACE_CHARS
    assert logs.trace(ValueError("x" * 20000 + "end")).endswith("end\n")


def test_long_values_are_cut(lines: Lines) -> None:
    logs.logger("services").info("x", body="y" * 10000)
    assert len(lines()[0]["body"]) == logs.TEXT_CHARS


def test_plain_values_are_printed_and_objects_only_by_type(lines: Lines) -> None:
    class Colour(enum.Enum):
        RED = 1

    class Holder:
        def __repr__(self) -> str:
            return CANARY

    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    logs.logger("services").info(
        "x",
        path=Path("/a"),
        when=now,
        colour=Colour.RED,
        none=None,
        yes=True,
        holder=Holder(),
        raw=CANARY.encode(),
        f=1.5,
    )
    line = lines()[0]
    assert (line["path"], line["when"], line["colour"], line["none"], line["yes"], line["f"]) == (
        "/a",
        str(now),
        "Colour.RED",
        None,
        True,
        1.5,
    )
    assert (line["holder"].endswith("Holder]"), line["raw"]) == (True, "[bytes]")


@pytest.mark.parametrize(
    ("text", "expected"), [("short", "short"), ("x" * 301, "x" * 299 + "…"), ("x" * 300, "x" * 300), ("\ud800", "?")]
)
def test_bounded(text: str, expected: str) -> None:
    assert logs.bounded(text) == expected


def test_the_level_is_that_asked_for(capsys: pytest.CaptureFixture[str], lines: Lines) -> None:
    logs.configure("warning", process="roles")
    logs.logger("services.roles").info("no")
    logs.logger("services.roles").warning("yes")
    assert [line["event"] for line in lines()] == ["yes"]


def test_a_log_that_cannot_be_written_ends_nobodys_work(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk under the log must not end a worker that logs a failure."""

    class Full:
        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Full())
        logs.logger("services.x").error("the disk is full")
    logs.logger("services.x").info("there is room again")
    assert [line["event"] for line in lines()] == ["there is room again"]
