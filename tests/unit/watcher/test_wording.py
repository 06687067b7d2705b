"""A field of a service's contract is named as in the object that a user wrote."""

from __future__ import annotations

import pytest

from services.common.errors import FieldViolation, SpecInvalidError, VaultFailedError
from watcher.specs.field_paths import message_of


@pytest.mark.parametrize(
    ("field", "description", "says"),
    [
        ("definition.default_ttl", "is longer than max_ttl", "spec.defaultTTL: is longer than maxTTL"),
        ("definition.creation_statements[0]", "is empty", "spec.creationStatements[0]: is empty"),
        ("definition.db_name", "is no name of a connection", "spec.databaseName: is no name of a connection"),
        ("mount", "is no path", "spec.path: is no path"),
        (
            "postgres.database.url",
            "may have only connect_timeout and sslmode",
            "AppBinding of spec.postgres.databaseRef: spec.clientConfig.url: may have only connect_timeout and sslmode",
        ),
        ("postgres.max_connection_lifetime", "is too long", "spec.postgres.maxConnectionLifetime: is too long"),
        ("postgres.plugin_name", "is no name", "spec.postgres.pluginName: is no name"),
        (
            "postgres.database.service.port",
            "must be between 1 and 65535",
            "AppBinding of spec.postgres.databaseRef: spec.clientConfig.service.port: must be between 1 and 65535",
        ),
        (
            "postgres.database.username",
            "is missing",
            "AppBinding of spec.postgres.databaseRef: Secret.username: is missing",
        ),
        (
            "target.ca_bundle",
            "holds no certificate",
            "AppBinding of spec.vaultRef: spec.clientConfig.caBundle: holds no certificate",
        ),
        ("target.token.token", "has blanks", "AppBinding of spec.vaultRef: auth.token.token: has blanks"),
        ("spec.subjects", "needs one", "spec.subjects: needs one"),
        (
            "AppBinding demo/vault spec.clientConfig",
            "is missing",
            "AppBinding demo/vault spec.clientConfig: is missing",
        ),
    ],
)
def test_a_field_is_named_as_in_the_object(field: str, description: str, says: str) -> None:
    assert message_of(SpecInvalidError.of(FieldViolation(field, description))) == says


def test_other_errors_keep_their_words() -> None:
    assert message_of(VaultFailedError("default_ttl is what Vault says", path="x")) == "default_ttl is what Vault says"
    assert message_of(SpecInvalidError("without fields")) == "without fields"
