"""What one tenant may have at most, pure: a namespace of a cluster, or one caller over gRPC. 0 is no limit."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.errors import QuotaExceededError

ISSUES_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits.

    Attributes:
        open_requests: Access requests that are pending or approved.
        database_users: Database users that are not known to be dropped.
        prepared_tokens: Tokens of Vault that are made ahead, for access requests that are pending.
        targets: VaultTargets that its AppBindings have named.
        issues_per_minute: Credentials of one access request within a minute, such as after edits of its Secret.
    """

    open_requests: int = 0
    database_users: int = 0
    prepared_tokens: int = 0
    targets: int = 0
    issues_per_minute: int = 0


def no_room(count: int, limit: int, *, what: str, namespace: str, do: str, option: str) -> QuotaExceededError:
    """The error for one more of something than a tenant may have.

    Args:
        count: What it has.
        limit: What it may have.
        what: Name of it, in the plural.
        namespace: The tenant's namespace; empty for a caller over gRPC.
        do: What the tenant can do.
        option: The operator's option.
    """
    whose = f"Namespace {namespace}" if namespace else "This caller"
    return QuotaExceededError(
        f"{whose} has {count} {what}, and may have {limit}: {do}, or have the operator raise {option}."
        " This goes on by itself when there is room",
        limit=str(limit),
        namespace=namespace,
    )
