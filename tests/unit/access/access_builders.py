"""Values of the access service's domain with everything that a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from services.access.domain.models import (
    AccessRequest,
    Approval,
    Attempt,
    AttemptState,
    DbRole,
    Decision,
    Origin,
    Subject,
    VaultTargetRow,
)

DIGEST = "a" * 64


def a_request(**changes: Any) -> AccessRequest:
    """An approved request of Kubernetes."""
    usual: dict[str, Any] = {
        "uid": "uid-1",
        "origin": Origin.KUBERNETES,
        "owner": "spiffe://leasegate/watcher",
        "cluster": "-",
        "cluster_uid": "c1",
        "namespace": "demo",
        "name": "cred",
        "generation": 1,
        "role_namespace": "demo",
        "role_name": "psql-role",
        "subjects": (Subject("ServiceAccount", "", "demo-sa", "demo"),),
        "ttl_s": None,
        "requester": "alice",
        "created_at": 0.0,
        "approval": Approval.APPROVED,
        "digest": DIGEST,
    }
    return AccessRequest(**{**usual, **changes})


def an_attempt(state: AttemptState = AttemptState.ACTIVE, number: int = 1, **changes: Any) -> Attempt:
    """An attempt of that request, its lease of an hour issued at 0."""
    lease: dict[str, Any] = {
        "lease_id": "m/creds/r/x",
        "lease_ttl_s": 3600.0,
        "renewable": True,
        "issued_at": 0.0,
        "ends_at": 3600.0,
    }
    usual: dict[str, Any] = {
        "id": f"attempt{number:013d}",
        "access_request_id": "uid-1",
        "sequence": number,
        "state": state,
        "grant": DIGEST,
        "role_digest": "r1",
        "target": 1,
        "mount": "my-postgres-se",
        "vault_role": "k8s.-.demo.psql-role",
        "db_name": "k8s.-.demo.postgres-app",
        "revocation_statements": (),
        "default_ttl_s": 3600.0,
        "max_ttl_s": 86400.0,
        "database_user": f"token-demo-psql-role-attempt{number:013d}",
        "begun_at": 0.0,
        **(
            lease
            if state
            not in (AttemptState.PENDING, AttemptState.TOKEN_READY, AttemptState.ISSUING, AttemptState.REVOKING_TOKEN)
            else {}
        ),
    }
    return Attempt(**{**usual, **changes})


def a_role(**changes: Any) -> DbRole:
    """The role of that request."""
    usual: dict[str, Any] = {
        "id": 1,
        "cluster": "-",
        "cluster_uid": "c1",
        "namespace": "demo",
        "name": "psql-role",
        "target": 1,
        "mount": "my-postgres-se",
        "vault_role": "k8s.-.demo.psql-role",
        "db_name": "k8s.-.demo.postgres-app",
        "revocation_statements": (),
        "default_ttl_s": 3600.0,
        "max_ttl_s": 86400.0,
        "digest": "r1",
        "deleted": False,
    }
    return DbRole(**{**usual, **changes})


def a_decision(kind: Approval = Approval.APPROVED, *, digest: str = DIGEST, **changes: Any) -> Decision:
    """A decision by carol on the present digest."""
    usual: dict[str, Any] = {
        "kind": kind,
        "approver": "carol",
        "proof": 1,
        "reason": "KubectlApprove",
        "message": "",
        "decided_at": 5.0,
        "sent_digest": digest,
        "digest": digest,
        "self_approved": False,
    }
    return Decision(**{**usual, **changes})


def a_target(**changes: Any) -> VaultTargetRow:
    """The Vault of that role, as it is before the ledger knows it."""
    usual: dict[str, Any] = {
        "id": 0,
        "cluster": "-",
        "namespace": "demo",
        "name": "vault",
        "key_digest": "d",
        "address": "https://v:1",
        "vault": "https://v:1",
        "vault_namespace": "",
        "ca_bundle": b"",
        "insecure_skip_tls_verify": False,
        "server_name": "",
    }
    return VaultTargetRow(**{**usual, **changes})
