"""Prints what an access request is and what an approval of it grants. Pure.

All texts are of others: each line is made harmless for a terminal, and a line break in a value begins a line that is
indented below its own name, so that no value looks like another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cli.kubectl_vault.decisions import Json, conditions_of
from cli.kubectl_vault.table import behind, requester, state
from services.common.texts import escaped

_WORDS = {
    "vault": "Vault",
    "mount": "Mount",
    "role": "Database role",
    "connection": "Connection",
    "database": "Database",
    "plugin": "Plugin",
    "defaultTTL": "Lease TTL",
    "maxTTL": "Longest lease",
    "ttl": "Access ends after",
    "reason": "Reason",
    "ticket": "Ticket",
}
_STATEMENTS = {
    "creationStatements": "Creation statements",
    "revocationStatements": "Revocation statements",
    "rollbackStatements": "Rollback statements",
    "renewStatements": "Renew statements",
}
_NONE = "<none>"


def as_description(request: Json, role: Json | None) -> str:
    """Describe an access request, as ``kubectl describe`` does.

    Args:
        request: The access request.
        role: Its PostgresRole, for an access request whose status says no grant; None if it cannot be read.
    """
    metadata, status = request["metadata"], request.get("status") or {}
    behalf, verified_by = behind(request)
    fields = {
        "Name": metadata["name"],
        "Namespace": metadata.get("namespace", ""),
        "Status": state(request),
        "Requester": requester(request) or "<unverified>",
        **({"On behalf of": behalf, "Verified by": verified_by or "<unverified>"} if behalf else {}),
        "Role": _role_of(request),
        "Digest": status.get("digest") or _NONE,
    }
    lines = [*(_line(name, value) for name, value in fields.items()), "Grant:"]
    lines += (f"  {line}" for line in grant_lines(request, role))
    lines.append("Conditions:" if conditions_of(request) else f"Conditions: {_NONE}")
    lines += (f"  {line}" for line in _condition_lines(request))
    return "\n".join(lines)


def grant_lines(request: Json, role: Json | None) -> list[str]:
    """What an approval grants: by ``status.grant``, or where the status has none by the spec and the PostgresRole."""
    grant = (request.get("status") or {}).get("grant")
    if isinstance(grant, Mapping):
        return list(_of_grant(grant))
    return list(_of_spec(request, role))


def _of_grant(grant: Mapping[str, Any]) -> Iterator[str]:
    yield from _fields(grant)
    yield from _block("Subjects", grant.get("subjects"))
    yield from _statements(grant)
    if omitted := grant.get("omittedCharacters"):
        yield f"{escaped(str(omitted))} characters are not shown, and are granted as well: look at the PostgresRole"


def _of_spec(request: Json, role: Json | None) -> Iterator[str]:
    spec = request.get("spec") or {}
    yield from _fields({name: spec.get(name) for name in ("ttl", "reason", "ticket")})
    yield from _block("Subjects", [_subject(each) for each in spec.get("subjects") or []])
    if role is None:
        yield f"The status has no grant yet, and PostgresRole {escaped(_role_of(request))} cannot be read"
    else:
        yield f"The status has no grant yet; PostgresRole {escaped(_role_of(request))} has at this moment:"
        yield from _fields({name: (role.get("spec") or {}).get(name) for name in ("defaultTTL", "maxTTL")})
        yield from _statements(role.get("spec") or {})


def _fields(values: Mapping[str, Any]) -> Iterator[str]:
    for name, word in _WORDS.items():
        if values.get(name) not in (None, ""):
            yield _line(word, values[name])


def _statements(values: Mapping[str, Any]) -> Iterator[str]:
    for name, word in _STATEMENTS.items():
        yield from _block(word, values.get(name))


def _block(name: str, values: Any) -> Iterator[str]:
    if not isinstance(values, list) or not values:
        return
    yield f"{name}:"
    for value in values:
        first, *further = str(value).split("\n")
        yield f"  - {_shown(first)}"
        yield from (f"  | {_shown(line)}" for line in further)


def _condition_lines(request: Json) -> Iterator[str]:
    for each in conditions_of(request):
        by = f" by {each['approver']}" if each.get("approver") else ""
        head = f"{each.get('type')}={each.get('status') or 'True'}{by}"
        yield escaped(": ".join(str(part) for part in (head, each.get("reason"), each.get("message")) if part))


def _subject(subject: Mapping[str, Any]) -> str:
    name = f"{subject['namespace']}/{subject['name']}" if subject.get("namespace") else subject.get("name")
    return f"{subject.get('kind')} {name}"


def _role_of(request: Json) -> str:
    role = (request.get("spec") or {}).get("roleRef") or {}
    return f"{role.get('namespace') or request['metadata'].get('namespace', '')}/{role.get('name', '')}"


def _line(name: str, value: Any) -> str:
    return f"{name}: {escaped(str(value))}"


def _shown(line: str) -> str:
    return escaped(line.replace("\t", "    "))
