"""Reasons of errors: code, retry, metadata and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from dev.docs.markdown import page, table
from dev.docs.protos import read
from services.common.errors import LeasegateError

ENUM = "leasegate.errors.v1.ErrorReason"
PREFIX = "ERROR_REASON_"
INTRO = """Every error between processes is a `google.rpc.Status` whose `ErrorInfo` has one of these reasons and the
domain `leasegate.dev`. `RetryInfo` says after how long a retry may help; `BadRequest` names the wrong fields. On a
resource the reason becomes the condition's reason in camel case, `VaultSealed` for `VAULT_SEALED`."""


def render(root: Path) -> str:
    """One table."""
    found = read(root)
    classes = {each.reason: each for each in LeasegateError.__subclasses__()}
    rows = []
    for value in found.enums[ENUM].value:
        reason = value.name.removeprefix(PREFIX)
        if reason not in classes:
            continue  # ERROR_REASON_UNSPECIFIED is never sent
        error, text = classes[reason], found.comments[f"{ENUM}.{value.name}"]
        after = error.default_retry_after_s
        rows.append((f"`{reason}`", error.code.name, "no" if after is None else f"{after:g} s", *_parts(text)))
    columns = ("reason", "gRPC code", "retry after", "meaning and what to do", "metadata")
    return page("Errors", source="`protos/leasegate/errors/v1/error_reason.proto`", parts=[INTRO, table(columns, rows)])


def meanings(root: Path) -> dict[str, str]:
    """What each reason means and what to do."""
    prefix = f"{ENUM}.{PREFIX}"
    found = {name.removeprefix(prefix): text for name, text in read(root).comments.items() if name.startswith(prefix)}
    return {reason: _parts(text)[0] for reason, text in found.items() if reason != "UNSPECIFIED"}


def _parts(comment: str) -> tuple[str, str]:
    """What a comment says beside the code: meaning, and metadata."""
    text = re.sub(r"^[A-Z_]+( with \w+)?\. ", "", comment)
    meaning, _, metadata = text.partition("Metadata: ")
    metadata = metadata.rstrip(". ").replace('"', "`")
    return meaning.strip(), "" if metadata == "none" else metadata
