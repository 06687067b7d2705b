"""Requests to Vault are counted by operation and code, from closed lists whatever a team names."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.common.metrics import RpcMetrics
from services.common.vault import call_metrics
from services.common.vault.call_metrics import OPERATIONS, measured, operation_of

CASES = [
    ("GET", "my/postgres/creds/reader", "creds_read"),
    ("POST", "sys/leases/renew/my/postgres/creds/reader/abc", "lease_renew"),
    ("POST", "sys/leases/revoke/my/postgres/creds/reader/abc", "lease_revoke"),
    ("POST", "sys/leases/revoke-force/my/postgres/creds/reader/abc", "lease_forget"),
    ("LIST", "sys/leases/lookup/my/postgres/creds/reader", "lease_list"),
    ("POST", "auth/token/create/leasegate", "token_create"),
    ("POST", "auth/token/revoke-accessor", "accessor_revoke"),
    ("POST", "auth/team/kubernetes/login", "auth_login"),
    ("POST", "auth/userpass/login/somebody", "auth_login"),
    ("POST", "sys/mounts/my/postgres", "mount_create"),
    ("POST", "sys/mounts/my/postgres/tune", "mount_tune"),
    ("DELETE", "sys/mounts/my/postgres", "mount_delete"),
    ("POST", "my/postgres/config/db", "config_write"),
    ("DELETE", "my/postgres/roles/reader", "role_delete"),
    ("GET", "something/else", "other"),
]


@pytest.mark.parametrize(("method", "path", "operation"), CASES)
def test_a_path_is_counted_by_its_shape(method: str, path: str, operation: str) -> None:
    assert operation_of(method, path) == operation
    assert operation in OPERATIONS


def test_the_code_is_a_known_status_or_says_why_there_is_none() -> None:
    registry = CollectorRegistry()
    call_metrics.register(registry)

    def counted(code: str) -> float:
        return registry.get_sample_value("leasegate_vault_requests_total", {"operation": "other", "code": code}) or 0.0

    before = {code: counted(code) for code in ("200", "other", "no_answer")}
    with measured("GET", "x/y") as call:
        call.answered(200)
    with measured("GET", "x/y") as call:
        call.answered(299)
    with pytest.raises(RuntimeError), measured("GET", "x/y"):
        raise RuntimeError("it broke off")
    assert {code: counted(code) - before[code] for code in before} == dict.fromkeys(before, 1)


def test_rpcs_are_counted_under_the_names_of_go_grpc_middleware() -> None:
    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    for code in ("OK", "NOT_FOUND", "CANCELLED"):
        metrics.count_handled("/leasegate.engine.v1.EngineService/EnsureEngine", code=code, seconds=0.1)
    page = generate_latest(registry).decode()
    rpc = 'grpc_method="EnsureEngine",grpc_service="leasegate.engine.v1.EngineService"'
    for code in ("OK", "NotFound", "Canceled"):
        assert f'grpc_server_handled_total{{grpc_code="{code}",{rpc}}} 1.0' in page
    assert f"grpc_server_handling_seconds_count{{{rpc}}} 3.0" in page
