"""Counts and times each request to Vault, by operation and code, for all Vaults of a process together.

An operation is one of a closed list that ``operation_of`` derives from the shape of the path; no part of a path is ever
a label, as teams choose mounts, roles and addresses.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from services.common.metrics import RPC_METRICS, MetricSpec, new_registry

REQUESTS = MetricSpec(
    "leasegate_vault_requests_total",
    "counter",
    "Requests sent to Vault, by operation and HTTP status; code is unreachable where no connection came about,"
    " no_answer where it broke off or took too long.",
    ("operation", "code"),
)
SECONDS = MetricSpec(
    "leasegate_vault_request_seconds", "histogram", "Duration of a request to Vault, in seconds.", ("operation",)
)
VAULT_METRICS = (REQUESTS, SECONDS)

UNREACHABLE, NO_ANSWER = "unreachable", "no_answer"
_STATUSES = frozenset({200, 204, 400, 403, 404, 405, 412, 413, 429, 472, 473, 500, 501, 502, 503, 504})
"""A server that is no Vault may answer anything; every other status is counted as ``other``."""

_PATTERNS = (
    (r"GET sys/health.*", "health"),
    (r"\w+ sys/leases/renew/.*", "lease_renew"),
    (r"\w+ sys/leases/revoke/.*", "lease_revoke"),
    (r"\w+ sys/leases/revoke-force/.*", "lease_forget"),
    (r"LIST sys/leases/lookup/.*", "lease_list"),
    (r"POST auth/token/create(/.*)?", "token_create"),
    (r"POST auth/token/revoke-accessor", "accessor_revoke"),
    (r"POST auth/token/renew-self", "token_renew"),
    (r"GET auth/token/lookup-self", "token_lookup"),
    (r"POST auth/token/revoke-self", "token_revoke"),
    (r"(POST|PUT) auth/.*/login(/.*)?", "auth_login"),
    (r"GET sys/mounts/.*", "mount_read"),
    (r"POST sys/mounts/.*/tune", "mount_tune"),
    (r"POST sys/mounts/.*", "mount_create"),
    (r"DELETE sys/mounts/.*", "mount_delete"),
    (r"GET .*/config/[^/]*", "config_read"),
    (r"POST .*/config/[^/]*", "config_write"),
    (r"DELETE .*/config/[^/]*", "config_delete"),
    (r"GET .*/roles/[^/]*", "role_read"),
    (r"POST .*/roles/[^/]*", "role_write"),
    (r"DELETE .*/roles/[^/]*", "role_delete"),
    (r"GET .*/creds/[^/]*", "creds_read"),
)
_OPERATION = re.compile("|".join(f"(?P<{name}>{pattern})" for pattern, name in _PATTERNS))
OPERATIONS = (*(name for _, name in _PATTERNS), "other")

_requests, _seconds = REQUESTS.counter(None), SECONDS.histogram(None)


def register(registry: CollectorRegistry) -> None:
    """Show these figures in a registry."""
    registry.register(_requests)
    registry.register(_seconds)


def new_server_registry() -> CollectorRegistry:
    """Make the registry of a server that calls Vault."""
    registry = new_registry()
    register(registry)
    return registry


def server_metrics() -> tuple[MetricSpec, ...]:
    """Return all metrics of a gRPC server that calls Vault, which is all that engine and roles have."""
    return (*RPC_METRICS, *VAULT_METRICS)


def operation_of(method: str, path: str) -> str:
    """Name the operation of a request, one of ``OPERATIONS``.

    Args:
        method: GET, POST, PUT, DELETE or LIST.
        path: Below ``/v1/``.
    """
    found = _OPERATION.fullmatch(f"{method} {path}")
    return (found and found.lastgroup) or "other"


class Call:
    """One request under way; ``code`` is set when its outcome is known."""

    code = NO_ANSWER

    def answered(self, status: int) -> None:
        """Take the HTTP status of the answer."""
        self.code = str(status) if status in _STATUSES else "other"


@contextmanager
def measured(method: str, path: str) -> Iterator[Call]:
    """Count and time the request that is sent inside."""
    call, began = Call(), time.perf_counter()
    try:
        yield call
    finally:
        operation = operation_of(method, path)
        _requests.labels(operation, call.code).inc()
        _seconds.labels(operation).observe(time.perf_counter() - began)
