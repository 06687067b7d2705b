"""Every RPC's comment says whether it may be repeated, who may call it, and its errors by names that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leasegate.errors.v1 import error_reason_pb2

PROTOS = Path(__file__).parents[2] / "protos" / "leasegate"
RPC = re.compile(r"((?:^ *//.*\n)+) *rpc (\w+)\(", re.MULTILINE)
NAMES = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name}


def _comments() -> dict[str, str]:
    return {
        f"{file.stem}.{name}": re.sub(r"\s*//\s?", " ", comment)
        for file in sorted(PROTOS.rglob("*.proto"))
        for comment, name in RPC.findall(file.read_text(encoding="utf-8"))
    }


COMMENTS = _comments()


def test_no_rpc_is_without_a_comment() -> None:
    declared = sum(file.read_text(encoding="utf-8").count("  rpc ") for file in PROTOS.rglob("*.proto"))
    assert len(COMMENTS) == declared > 20


@pytest.mark.parametrize("rpc", COMMENTS)
def test_a_comment_says_it_all(rpc: str) -> None:
    text = COMMENTS[rpc]
    assert re.search(r"idempotent|answers the same", text, re.IGNORECASE), text
    assert "Called by" in text, text
    assert re.search(r"Errors: |No errors", text), text
    errors = text.partition("Errors: ")[2]
    for name in re.findall(r"\b[A-Z]{3,}[A-Z_]*\b\*?", errors):
        whole = name.removesuffix("*")
        assert whole in NAMES or (not whole[-1].isalnum() and any(known.startswith(whole) for known in NAMES)), (
            f"{rpc}: no reason {name}"
        )
