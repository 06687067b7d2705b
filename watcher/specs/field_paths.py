"""Translates field names of a service's contract to those of the object that a user wrote. Pure."""

from __future__ import annotations

import re

from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import db_role_pb2
from leasegate.types.v1 import types_pb2
from services.common.errors import LeasegateError, SpecInvalidError

_PLACES = (  # by the beginning of a field in a call: where the same stands in the object that the call was made for
    ("definition.db_name", "spec.databaseName"),
    ("definition.", "spec."),
    ("mount", "spec.path"),
    ("postgres.database.service", "AppBinding of spec.postgres.databaseRef: spec.clientConfig.service"),
    ("postgres.database.url", "AppBinding of spec.postgres.databaseRef: spec.clientConfig.url"),
    ("postgres.database", "AppBinding of spec.postgres.databaseRef: Secret"),
    ("postgres.name", "spec.postgres.databaseRef"),
    ("postgres.", "spec.postgres."),
    ("target.ca_bundle", "AppBinding of spec.vaultRef: spec.clientConfig.caBundle"),
    ("target.server_name", "AppBinding of spec.vaultRef: spec.clientConfig.serverName"),
    ("target.address", "AppBinding of spec.vaultRef: spec.clientConfig"),
    ("target", "AppBinding of spec.vaultRef: auth"),
)
_SNAKE = re.compile(r"(?<=[a-z])_([a-z]+)")
_WORD = re.compile(r"[a-z]+(?:_[a-z]+)+")
_FIELDS = frozenset(
    name
    for message in (
        db_role_pb2.DbRoleDefinition,
        engine_service_pb2.EnsureEngineRequest,
        engine_service_pb2.PostgresConnection,
        types_pb2.Database,
    )
    for name in message.DESCRIPTOR.fields_by_name
)
"""Fields of the contracts that a description may name; other words, such as parameters of a URL, stay as they are."""


def message_of(err: LeasegateError) -> str:
    """The message of an error; one of wrong fields names them as they stand in the SecretEngine or PostgresRole."""
    if not isinstance(err, SpecInvalidError) or not err.violations:
        return err.message
    return "; ".join(f"{_place(v.field)}: {_in_words(v.description)}" for v in err.violations)


def _place(field: str) -> str:
    if field.startswith(("spec", "AppBinding", "Secret")):  # the watcher's own
        return field
    for begin, place in _PLACES:
        if field.startswith(begin):
            return place + _camel(field.removeprefix(begin))
    return field


def _in_words(description: str) -> str:
    return _WORD.sub(lambda word: _camel(word[0]) if word[0] in _FIELDS else word[0], description)


def _camel(text: str) -> str:
    return _SNAKE.sub(lambda found: found[1].upper() if found[1] == "ttl" else found[1].capitalize(), text)
