"""Changes made by hand in Kubernetes or Vault are noticed and corrected, and leave no database user behind."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from dev.stack.stack import LocalStack
from tests.e2e.crowd import LONG_S, Crowd, Seen, at_once, crowded
from tests.e2e.space import Space
from tests.eventually import eventually
from watcher.delivery.manifests import secret_name
from watcher.kube.client import KubeError
from watcher.kube.resources import SECRET
from watcher.specs.kinds import ACCESS_REQUEST

MANY = 8


@pytest.fixture(scope="module")
def behind(stack: LocalStack) -> Iterator[Space]:
    """The namespace of all these tests; each has a role of its own in it."""
    with crowded(stack, "behind") as made:
        yield made


def _replaced(crowd: Crowd, before: Seen, *, in_place: bool, brief: bool = False) -> Seen:
    """Wait until each request has another credential, which works, and nothing is left of the one before.

    Args:
        crowd: The requests.
        before: How they were.
        in_place: Whether each Secret has to be the same object.
        brief: Whether leases are so short that a slow machine may lose one more.
    """
    names = list(before.database_users)

    def done() -> Seen:
        now = crowd.all_well(names)
        assert not set(now.database_users.values()) & set(before.database_users.values())
        return now

    after = eventually(done, timeout_s=LONG_S, what="another credential for each")
    assert brief or after.made == before.made + len(names), "one credential each, no more"
    assert all(crowd.works(name) for name in names)
    assert {name: _uid(after, name) == _uid(before, name) for name in names} == dict.fromkeys(names, in_place)
    return after


def _uid(seen: Seen, name: str) -> str:
    return seen.versions[name].partition("/")[0]


def test_deleted_secrets_are_recreated_with_another_user(behind: Space) -> None:
    """A password is stored nowhere, so each gets a new one, under the same name; the user before is dropped."""
    crowd = Crowd(behind, "lost")
    crowd.prepare()
    names = crowd.granted(MANY)
    before, secrets = crowd.all_well(names), set(crowd.secrets())
    at_once(lambda name: crowd.delete(name, SECRET), secrets)
    _replaced(crowd, before, in_place=False)
    assert set(crowd.secrets()) == secrets
    for name in names[:2]:
        behind.reported(f"databaseaccessrequest/{name}", "SecretRecreated")


EDITS: dict[str, dict[str, Any]] = {
    "password": {"data": {"password": base64.b64encode(b"guessed").decode()}},
    "username": {"data": {"username": base64.b64encode(b"postgres").decode()}},
    "a key taken out": {"data": {"password": None}},
    "attempt": {"metadata": {"annotations": {"leasegate.dev/attempt": "0"}}},
}


def test_edited_secrets_are_replaced_with_another_user(behind: Space) -> None:
    """The former password is lost, so the Secret gets another credential, and the former user is dropped."""
    crowd = Crowd(behind, "edited")
    crowd.prepare()
    names = crowd.granted(2 * len(EDITS))
    before, secrets = crowd.all_well(names), sorted(crowd.secrets())
    edits = dict(zip(secrets, list(EDITS.values()) * 2, strict=True))
    at_once(lambda name: crowd.patch(name, edits[name], SECRET), secrets)
    _replaced(crowd, before, in_place=True)
    for name in names[:2]:
        behind.reported(f"databaseaccessrequest/{name}", "SecretRecreated")


def test_a_secret_of_somebody_else_costs_no_lease(behind: Space) -> None:
    """A foreign Secret in the place of the request's: nothing is issued, all is reported, and it goes on without it."""
    crowd, beside = Crowd(behind, "taken"), Crowd(behind, "beside")
    crowd.prepare()
    beside.prepare()
    names = crowd.names(MANY)
    there = {secret_name(crowd.create(name)): name for name in names}
    for name in there:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"mine": "yes"}}
        crowd.api.create(SECRET, body, namespace=behind.name)
    at_once(crowd.approve, names)
    for secret, name in there.items():
        eventually(lambda secret=secret, name=name: _refused(crowd, name, secret), timeout_s=LONG_S)  # type: ignore[misc]
    for number in range(5):
        change = {"metadata": {"annotations": {"again": str(number)}}}
        at_once(lambda name, change=change: crowd.patch(name, change), names)  # type: ignore[misc]
        beside.pass_by()
    assert crowd.made() == 0
    assert crowd.leases() == set()
    assert all(crowd.get(name, SECRET)["data"] == {"mine": base64.b64encode(b"yes").decode()} for name in there)
    at_once(lambda name: crowd.delete(name, SECRET), there)
    seen = eventually(lambda: crowd.all_well(names), timeout_s=LONG_S)
    assert seen.made == len(names)
    assert set(crowd.secrets()) == set(there)
    for name in names:
        eventually(lambda name=name: not behind.condition(f"databaseaccessrequest/{name}", "Failed"), timeout_s=LONG_S)  # type: ignore[misc]


def _refused(crowd: Crowd, name: str, secret: str) -> bool:
    said = {c["type"]: c for c in (crowd.get(name).get("status") or {}).get("conditions") or []}
    assert {"Approved", "Failed"} <= said.keys()
    assert said["Failed"]["reason"] == "FailedToCreateSecret", said
    assert secret in said["Failed"]["message"]
    events = [event for event in crowd.events(name) if "FailedToCreateSecret" in event]
    assert events
    assert all(event.startswith("Warning") and secret in event for event in events)
    return True


def test_a_secret_that_somebody_took_over_costs_no_lease(behind: Space) -> None:
    """A Secret without its owner and labels is left alone and reported, and replaced once it is deleted."""
    crowd, beside = Crowd(behind, "adopted"), Crowd(behind, "meanwhile")
    crowd.prepare()
    beside.prepare()
    (name,) = crowd.granted(1)
    before, (secret,) = crowd.all_well([name]), crowd.secrets()
    crowd.patch(secret, {"metadata": {"ownerReferences": None, "labels": None}}, SECRET)
    eventually(lambda: _refused(crowd, name, secret), timeout_s=LONG_S)
    beside.pass_by()
    assert crowd.made() == before.made
    assert _left(crowd, {name}, before)
    crowd.delete(secret, SECRET)
    _replaced(crowd, before, in_place=False)


def test_secrets_that_lost_their_owner_are_taken_over(behind: Space) -> None:
    """As ``--cascade=orphan`` and restores leave them (field report 12); they get another credential in place."""
    crowd = Crowd(behind, "orphaned")
    crowd.prepare()
    names = crowd.granted(2)
    before = crowd.all_well(names)
    at_once(lambda name: crowd.patch(name, {"metadata": {"ownerReferences": None}}, SECRET), crowd.secrets())
    _replaced(crowd, before, in_place=True)


def test_leases_revoked_in_vault_are_noticed_and_replaced(behind: Space) -> None:
    """At the next renewal at the latest; each Secret is updated in place."""
    crowd = Crowd(behind, "revoked")
    crowd.prepare(ttl="8s", longest="1h")
    names = crowd.granted(MANY)
    before = crowd.all_well(names)
    vault = behind.stack.vault_api()
    for lease in before.leases.values():
        assert vault.call("POST", f"sys/leases/revoke/{lease}", {"sync": True}).ok
    _replaced(crowd, before, in_place=True, brief=True)
    for name in names[:2]:
        behind.reported(f"databaseaccessrequest/{name}", "CredentialRotated")
    at_once(crowd.delete, names)
    eventually(crowd.nothing_left, timeout_s=LONG_S)


def test_what_vanished_unseen_ends_like_a_delete(behind: Space) -> None:
    """Finalizers removed by hand and objects deleted without a watcher: only what exists keeps a user."""
    crowd = Crowd(behind, "vanished")
    crowd.prepare()
    names = crowd.granted(MANY)
    before, kept, again = crowd.all_well(names), names[0], names[1]
    watcher = behind.stack.process("watcher")
    watcher.terminate()
    try:
        at_once(lambda name: _tear_away(crowd, name), names[1:])
        crowd.create(again)
    finally:
        watcher.start()
        watcher.wait_ready()
    eventually(lambda: _left(crowd, {kept}, before), timeout_s=LONG_S)
    assert crowd.requests().keys() == {kept, again}
    crowd.approve(again)
    seen = eventually(lambda: crowd.all_well([kept, again]), timeout_s=LONG_S)
    assert seen.versions[kept] == before.versions[kept]
    assert seen.database_users[again] != before.database_users[again]


def test_what_a_restored_etcd_lacks_ends_like_a_delete(behind: Space) -> None:
    """Objects that are in etcd no more, without any deletion: before a watcher's eyes, and while there is none."""
    crowd = Crowd(behind, "restored")
    crowd.prepare()
    names = crowd.granted(MANY)
    before, watcher = crowd.all_well(names), behind.stack.process("watcher")
    _take_out_of_etcd(crowd, names[:3])
    eventually(lambda: _left(crowd, set(names[3:]), before), timeout_s=LONG_S)
    watcher.terminate()
    try:
        _take_out_of_etcd(crowd, names[3:6])
    finally:
        watcher.start()
        watcher.wait_ready()
    eventually(lambda: _left(crowd, set(names[6:]), before), timeout_s=LONG_S)
    assert eventually(lambda: crowd.all_well(names[6:]), timeout_s=LONG_S).versions == {
        n: before.versions[n] for n in names[6:]
    }


def _take_out_of_etcd(crowd: Crowd, names: list[str]) -> None:
    """Delete keys as a restored copy of etcd would lack them: no API server is asked."""
    stack = crowd.space.stack
    folder = stack.directory / "kube" / "etcd-tls"
    files = [(folder / name).read_bytes() for name in ("ca.crt", "kube-apiserver.key", "kube-apiserver.crt")]
    with grpc.secure_channel(f"127.0.0.1:{stack._ports['etcd']}", grpc.ssl_channel_credentials(*files)) as channel:
        delete: Callable[..., bytes] = channel.unary_unary("/etcdserverpb.KV/DeleteRange")
        for name in names:
            key = f"/registry/{ACCESS_REQUEST.group}/{ACCESS_REQUEST.plural}/{crowd.space.name}/{name}".encode()
            answer = delete(b"\x0a" + bytes([len(key)]) + key, timeout=20)  # field 1 of DeleteRangeRequest
            assert answer.endswith(b"\x10\x01"), (
                f"{key!r} was not there"
            )  # field 2 of the response: one key was deleted


def test_what_is_torn_away_under_the_watcher_ends_like_a_delete(behind: Space) -> None:
    """The same while the watcher runs, which sees the objects go without ever having let them."""
    crowd = Crowd(behind, "torn")
    crowd.prepare()
    names = crowd.granted(MANY)
    before = crowd.all_well(names)
    at_once(lambda name: _tear_away(crowd, name), names[2:])
    eventually(lambda: _left(crowd, set(names[:2]), before), timeout_s=LONG_S)
    assert eventually(lambda: crowd.all_well(names[:2]), timeout_s=LONG_S).made == before.made


def _tear_away(crowd: Crowd, name: str) -> None:
    crowd.delete(name)
    with suppress(KubeError):  # where the watcher was faster
        crowd.patch(name, {"metadata": {"finalizers": None}})


def _left(crowd: Crowd, names: set[str], before: Seen) -> bool:
    """Check that the users and leases of these requests alone are left."""
    assert crowd.leases() == {before.leases[name] for name in names}
    assert crowd.database_users() == {before.database_users[name] for name in names}
    return True
