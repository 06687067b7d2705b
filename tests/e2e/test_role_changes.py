"""H1: between a change in Vault and access' hearing of it nothing is issued, whatever is slow or fails meanwhile.

Every creation statement draws from a sequence, which no rollback sets back: PostgreSQL itself counts the users that
were ever begun by the statements that nobody approved, however short they lived.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from dev.stack.stack import LocalStack
from leasegate.access.v1 import watcher_service_pb2
from tests.e2e.rpc_proxy import Proxy, Repeating, proxied
from tests.e2e.space import ENGINE, REQUEST, ROLE, Space, space
from tests.eventually import eventually
from watcher.kube.client import HttpKubeClient, KubeError
from watcher.kube.connection import connect
from watcher.kube.resources import SECRET

SLOW_S = 2.0
OFTEN_S = 0.1
APPROVED, UNAPPROVED = "approved-runs", "unapproved-runs"


@pytest.fixture(scope="module")
def proxy(stack: LocalStack) -> Iterator[Proxy]:
    """Between the watcher and access."""
    with proxied(stack, resync_interval="2") as found:
        yield found


@pytest.fixture(scope="module")
def guide(stack: LocalStack, proxy: Proxy) -> Iterator[Space]:
    """The guide's objects with a credential; each of its role's users is counted."""
    stack.psql(f'CREATE SEQUENCE "{APPROVED}"; CREATE SEQUENCE "{UNAPPROVED}";')
    with space(stack, "changes") as made:
        made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
        (role,) = made.guide("postgresRole")
        role["spec"]["creationStatements"].append(_counts(APPROVED))
        made.apply(role, *made.guide("postgresAccessRequest"))
        made.granted()
        yield made
    stack.psql(f'DROP SEQUENCE "{APPROVED}"; DROP SEQUENCE "{UNAPPROVED}";')


def _counts(sequence: str) -> str:
    return f"SELECT nextval('\"{sequence}\"');"


def _runs(guide: Space, sequence: str) -> int:
    """How many users were ever begun with statements that draw from a sequence."""
    drawn = guide.stack.psql(f'SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM "{sequence}"')  # noqa: S608
    return int(drawn.strip())


def _statements(guide: Space, *more: str) -> list[str]:
    (role,) = guide.guide("postgresRole")
    return [*role["spec"]["creationStatements"], _counts(APPROVED), *more]


def _change(guide: Space, *more: str) -> None:
    guide.patch(ROLE, {"spec": {"creationStatements": _statements(guide, *more)}})


def _deleting(guide: Space) -> Repeating:
    """Somebody deletes the Secret again and again, each time of which is a reason for another credential."""
    api, name = HttpKubeClient(connect(str(guide.stack.kubeconfig), pool_size=2)), guide.secret_name()

    def delete() -> None:
        with suppress(KubeError):
            api.delete(SECRET, namespace=guide.name, name=name)

    return Repeating(delete, every_s=OFTEN_S)


def _all_quiet(answer: bytes) -> bool:
    """Whether PauseDbRoles answers that no call from before is under way: what such a call makes is approved."""
    return watcher_service_pb2.PauseDbRolesResponse.FromString(answer).pause_report.calls_under_way == 0


def _slow(proxy: Proxy, *methods: str) -> None:
    for method in methods:
        proxy.before[method] = lambda _request: threading.Event().wait(SLOW_S)


@pytest.fixture(autouse=True)
def _fast_again(proxy: Proxy) -> Iterator[None]:
    yield
    proxy.before.clear()
    proxy.after.clear()
    proxy.refused.clear()


def _issued_again(guide: Space) -> None:
    def works() -> bool:
        data = guide.secret(guide.secret_name())
        return "username" in data and guide.user_works(data)

    eventually(works, timeout_s=60, what="a credential that works")


def test_a_slow_snapshot_lets_no_unapproved_sql_run(guide: Space, proxy: Proxy) -> None:
    """H1: the role is changed and put back, while every snapshot takes 2 s and the Secret is deleted all the time."""
    _slow(proxy, "PutDbRoleSnapshot")
    with _deleting(guide) as deleting:
        _change(guide, _counts(UNAPPROVED))
        eventually(lambda: guide.condition(REQUEST, "ApprovalStale"), timeout_s=60, what="an approval that is stale")
        assert deleting.times > SLOW_S / OFTEN_S / 4
        put = proxy.passed["PutDbRoleSnapshot"]
        _change(guide)
        eventually(lambda: proxy.passed["PutDbRoleSnapshot"] > put, timeout_s=60, what="the role put back")
        eventually(lambda: not guide.condition(REQUEST, "ApprovalStale"), timeout_s=60, what="the former approval")
    _issued_again(guide)
    assert _runs(guide, UNAPPROVED) == 0


def test_a_failing_call_holds_no_window_open(guide: Space, proxy: Proxy) -> None:
    """H1: EnsureVaultTarget fails between the write and the snapshot; both objects say why nothing is issued."""
    access = guide.stack.process("access")
    proxy.refused.add("EnsureVaultTarget")
    access.terminate()  # so that the watcher registers the Vault again
    access.start()
    access.wait_ready()
    eventually(lambda: proxy.turned_away["EnsureVaultTarget"], timeout_s=60, what="a Vault that is registered again")
    with _deleting(guide):
        _change(guide, _counts(UNAPPROVED))
        eventually(lambda: guide.condition(REQUEST, "RoleChanging"), timeout_s=60, what="RoleChanging")
        eventually(lambda: guide.condition(ROLE, "RoleChanging"), timeout_s=60, what="RoleChanging of the role")
        assert _runs(guide, UNAPPROVED) == 0
        proxy.refused.clear()
        eventually(lambda: guide.condition(REQUEST, "ApprovalStale"), timeout_s=60, what="an approval that is stale")
    assert not guide.condition(REQUEST, "RoleChanging")
    assert _runs(guide, UNAPPROVED) == 0
    _change(guide)
    _issued_again(guide)
    assert not guide.condition(ROLE, "RoleChanging")


def test_drift_is_put_back_under_a_pause(guide: Space, proxy: Proxy) -> None:
    """H1: somebody writes other statements into Vault; nothing runs them once that is noticed."""
    noticed: list[int] = []

    def note(answer: bytes) -> None:
        if _all_quiet(answer):
            noticed.append(_runs(guide, UNAPPROVED))

    proxy.after["PauseDbRoles"] = note
    _slow(proxy, "PutDbRoleSnapshot")
    path = f"{guide.mount}/roles/k8s.-.{guide.name}.psql-role"
    drifted = {"db_name": f"k8s.-.{guide.name}.postgres-app", "max_ttl": "24h"}
    with _deleting(guide):
        answer = guide.stack.vault_api().call(
            "POST", path, drifted | {"creation_statements": _statements(guide, _counts(UNAPPROVED))}
        )
        assert answer.ok, answer.errors
        eventually(lambda: noticed, timeout_s=60, what="that it is noticed")
        guide.reported(ROLE, "Warning", "DriftCorrected")
    _issued_again(guide)
    assert _runs(guide, UNAPPROVED) == noticed[0]


def test_a_connection_that_changes_pauses_its_roles(guide: Space, proxy: Proxy) -> None:
    """H1: from the pause to the snapshot from after the write, no user is begun on either connection."""
    seen: dict[str, int] = {}
    proxy.after["PauseDbRoles"] = lambda answer: (
        _all_quiet(answer) and seen.setdefault("paused", _runs(guide, APPROVED))
    )
    proxy.before["Resume"] = lambda _request: threading.Event().wait(SLOW_S)
    proxy.after["Resume"] = lambda _answer: "paused" in seen and seen.setdefault("written", _runs(guide, APPROVED))
    service = guide.get("appbinding/postgres-app")["spec"]["clientConfig"]["service"]
    with _deleting(guide):
        eventually(lambda: _runs(guide, APPROVED) > 1, timeout_s=60, what="credentials")
        query = "connect_timeout=9&sslmode=disable"
        guide.patch("appbinding/postgres-app", {"spec": {"clientConfig": {"service": service | {"query": query}}}})
        eventually(lambda: "written" in seen, timeout_s=60, what="the connection written")
    guide.phase(ENGINE, "Success")
    _issued_again(guide)
    assert seen["paused"] == seen["written"]
    assert _runs(guide, APPROVED) > seen["written"]
    assert not guide.condition(ROLE, "RoleChanging")


@pytest.mark.parametrize("way", ["edited", "made again"])
@pytest.mark.usefixtures("proxy")
def test_h7_an_earlier_lease_ends_as_it_was_approved(guide: Space, way: str) -> None:
    """Vault ends a lease by what its role says then, as the managing user: that must not be what nobody approved."""
    _issued_again(guide)
    (role,) = guide.guide("postgresRole")
    role["spec"]["creationStatements"] = _statements(guide)
    before = _runs(guide, UNAPPROVED)
    changed = {**role, "spec": role["spec"] | {"revocationStatements": [_counts(UNAPPROVED), 'DROP ROLE "{{name}}";']}}
    if way == "made again":
        guide.kubectl("delete", ROLE, "--timeout=60s")
    guide.apply(changed)
    eventually(
        lambda: "Deny or delete their access requests" in guide.condition(ROLE, "Available").get("message", ""),
        timeout_s=60,
        what="a role that waits, and says for what",
    )
    assert guide.database_users()
    guide.kubectl("delete", REQUEST, "--timeout=60s")
    eventually(lambda: not guide.database_users(), timeout_s=60, what="the end of its users")
    guide.phase(ROLE, "Success")
    assert _runs(guide, UNAPPROVED) == before
    guide.apply(role, *guide.guide("postgresAccessRequest"))
    guide.granted()
