"""The errors are the same in three places: the classes, the reasons of the contract, and the wire."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.rpc import error_details_pb2, status_pb2

from leasegate.errors.v1.error_reason_pb2 import ErrorReason
from services.common.errors import FieldViolation, LeasegateError, SpecInvalidError
from services.common.rpc import status

PROTO = Path(__file__).parents[2] / "protos" / "leasegate" / "errors" / "v1" / "error_reason.proto"
DOCUMENTED = {
    name: comment
    for comment, name in re.findall(
        r"((?:^  // [^\n]+\n)+)  ERROR_REASON_(\w+) = \d+;", PROTO.read_text(), re.MULTILINE
    )
}
CLASSES = sorted(status.classes().values(), key=lambda cls: cls.reason)


def descendants(cls: type[LeasegateError]) -> list[type[LeasegateError]]:
    return [found for child in cls.__subclasses__() for found in (child, *descendants(child))]


def test_each_class_has_its_own_reason_and_each_reason_its_class() -> None:
    classes = [cls for cls in descendants(LeasegateError) if cls.__module__ == "services.common.errors"]
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()} - {"UNSPECIFIED"}  # noqa: SIM118 (not a dict)
    assert sorted(cls.reason for cls in classes) == sorted(names)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.reason)
def test_the_contract_says_code_retry_and_metadata_of_each_reason(cls: type[LeasegateError]) -> None:
    comment = DOCUMENTED[cls.reason]
    assert re.match(rf"  // {cls.code.name}\b", comment)
    assert ("RetryInfo" in comment) == (cls.default_retry_after_s is not None)
    assert "Metadata: " in comment


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.reason)
@pytest.mark.parametrize("retry_after_s", [None, 0.25])
def test_each_error_survives_the_wire(cls: type[LeasegateError], retry_after_s: float | None) -> None:
    sent = cls("ä text", path="team/orders", db_role="-")
    sent.retry_after_s = retry_after_s
    wire = status_pb2.Status.FromString(status.to_status(sent).SerializeToString())
    got = status.from_status(wire)
    assert type(got) is cls
    assert wire.code == cls.code.value[0]
    assert (got.message, got.metadata, got.retry_after_s) == (
        "ä text",
        {"path": "team/orders", "db_role": "-"},
        retry_after_s,
    )


def test_wrong_fields_survive_the_wire() -> None:
    violations = (FieldViolation("spec.a", "no"), FieldViolation("spec.b", "neither"))
    got = status.from_status(status.to_status(SpecInvalidError.of(*violations)))
    assert isinstance(got, SpecInvalidError)
    assert got.violations == violations


def test_every_status_carries_what_other_languages_look_for() -> None:
    wire = status.to_status(SpecInvalidError.of(FieldViolation("spec.a", "no")))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert wire.details[0].Unpack(info)
    assert wire.details[1].Unpack(bad)
    assert (info.reason, info.domain) == ("SPEC_INVALID", "leasegate.dev")
    assert wire.details[0].type_url == "type.googleapis.com/google.rpc.ErrorInfo"
