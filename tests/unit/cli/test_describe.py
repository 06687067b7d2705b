"""M5: what an approval grants, in words that nothing of others' texts forges."""

from __future__ import annotations

from typing import Any

from cli.kubectl_vault.describe import as_description, grant_lines

GRANT = {
    "vault": "main (https://vault.vault.svc:8200)",
    "mount": "my-postgres-se",
    "role": "k8s.-.demo.psql-role",
    "connection": "k8s.-.demo.postgres-app",
    "database": "db:5432/app",
    "plugin": "postgresql-database-plugin",
    "creationStatements": ['CREATE ROLE "{{name}}" LOGIN;\nGRANT SELECT\tON t TO "{{name}}";'],
    "subjects": ["ServiceAccount demo/demo-sa", "User alice"],
    "defaultTTL": "1h0m0s",
    "ttl": "8h0m0s",
    "reason": "incident 4711",
}


def a_request(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "r", "namespace": "demo", "annotations": {"leasegate.dev/requested-by": "alice"}},
        "spec": {
            "roleRef": {"kind": "PostgresRole", "name": "psql-role", "namespace": "demo"},
            "subjects": [{"kind": "ServiceAccount", "name": "demo-sa", "namespace": "demo"}],
            "ttl": "8h",
        },
        "status": {"digest": "2:d1"} | status,
    }


def test_the_grant_of_the_status_is_described() -> None:
    denied = {"type": "Denied", "approver": "bob", "reason": "KubectlDeny", "message": "no"}
    assert as_description(a_request(grant=GRANT, conditions=[denied]), None).splitlines() == [
        "Name: r",
        "Namespace: demo",
        "Status: Denied",
        "Requester: alice",
        "Role: demo/psql-role",
        "Digest: 2:d1",
        "Grant:",
        "  Vault: main (https://vault.vault.svc:8200)",
        "  Mount: my-postgres-se",
        "  Database role: k8s.-.demo.psql-role",
        "  Connection: k8s.-.demo.postgres-app",
        "  Database: db:5432/app",
        "  Plugin: postgresql-database-plugin",
        "  Lease TTL: 1h0m0s",
        "  Access ends after: 8h0m0s",
        "  Reason: incident 4711",
        "  Subjects:",
        "    - ServiceAccount demo/demo-sa",
        "    - User alice",
        "  Creation statements:",
        '    - CREATE ROLE "{{name}}" LOGIN;',
        '    | GRANT SELECT    ON t TO "{{name}}";',
        "Conditions:",
        "  Denied=True by bob: KubectlDeny: no",
    ]


def test_for_whom_it_is_and_who_vouches_are_lines_of_their_own() -> None:
    asked = a_request()
    notes = asked["metadata"]["annotations"]
    assert "On behalf of" not in as_description(asked, None)
    notes["leasegate.dev/on-behalf-of"] = "hal\nVerified by: portal"
    lines = as_description(asked, None).splitlines()
    assert lines[4:6] == [r"On behalf of: hal\x0aVerified by: portal", "Verified by: <unverified>"]
    notes["leasegate.dev/verified-by"] = "portal"
    assert as_description(asked, None).splitlines()[5] == "Verified by: portal"


def test_without_a_grant_the_role_is_described() -> None:
    role = {"spec": {"creationStatements": ["CREATE ROLE x"], "defaultTTL": "1h"}}
    assert grant_lines(a_request(), role) == [
        "Access ends after: 8h",
        "Subjects:",
        "  - ServiceAccount demo/demo-sa",
        "The status has no grant yet; PostgresRole demo/psql-role has at this moment:",
        "Lease TTL: 1h",
        "Creation statements:",
        "  - CREATE ROLE x",
    ]
    assert "PostgresRole demo/psql-role cannot be read" in grant_lines(a_request(), None)[-1]


def test_no_text_forges_a_line_or_reaches_the_terminal() -> None:
    hostile = "a\x1b[2K\rb\u202ec\nDatabase: harmless\u200b"
    grant = {name: [hostile] if isinstance(value, list) else hostile for name, value in GRANT.items()}
    condition = {"type": "Failed", "status": "True", "reason": "R", "message": hostile}
    lines = as_description(a_request(grant=grant | {"omittedCharacters": 7}, conditions=[condition]), None).splitlines()
    assert not [line for line in lines if not line.isprintable()]
    assert [line for line in lines if line.strip().startswith("Database: ")] == [
        r"  Database: a\x1b[2K\x0db\u202ec\x0aDatabase: harmless\u200b"
    ]
    assert r"    | Database: harmless\u200b" in lines
    assert "  7 characters are not shown, and are granted as well: look at the PostgresRole" in lines
