"""Bodies and names of Secret, Role and RoleBinding, and how a changed Secret is recognized."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasegate.access.v1 import lease_pb2
from watcher.delivery import manifests
from watcher.kube.resources import Body

CREDENTIAL = lease_pb2.Credential(attempt=7, username="user-7", password="sesame")
LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = re.compile(rf"{LABEL}(\.{LABEL})*")


def request(name: str = "rqst", namespace: str = "demo", uid: str = "uid-1") -> Body:
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
        "spec": {"subjects": [{"kind": "User", "name": "bob"}]},
    }


def test_a_secrets_name_is_the_requests_and_six_letters_of_its_uid() -> None:
    name = manifests.secret_name(request())
    assert re.fullmatch(r"rqst-[a-z0-9]{6}", name)
    assert manifests.secret_name(request()) == name
    assert manifests.secret_name(request(uid="uid-2")) != name


@given(st.from_regex(SUBDOMAIN, fullmatch=True).filter(lambda name: len(name) <= 253), st.uuids())
def test_every_secrets_name_is_valid_in_kubernetes(name: str, uid: object) -> None:
    found = manifests.secret_name(request(name, uid=str(uid)))
    assert len(found) <= 253
    assert SUBDOMAIN.fullmatch(found)


@pytest.mark.parametrize("name", ["a" * 253, "a" * 246 + ".bcdefg", "a" * 245 + "-.bcdef".replace("-", "b")])
def test_a_long_name_is_cut_before_the_letters(name: str) -> None:
    found = manifests.secret_name(request(name))
    assert len(found) <= 253
    assert SUBDOMAIN.fullmatch(found)


def test_the_name_of_the_reader_role_is_kubevaults() -> None:
    assert manifests.reader_role_name(request()) == "DatabaseAccessRequest-demo-rqst-credential-reader"


def test_two_long_names_never_share_a_role() -> None:
    one, two = (
        manifests.reader_role_name(request("a" * 252 + last, namespace="n" * 63, uid=f"uid-{last}")) for last in "xy"
    )
    assert one != two
    assert max(len(one), len(two)) <= 253
    assert one.endswith("-credential-reader")


def test_the_secret_holds_exactly_user_name_and_password() -> None:
    body = manifests.secret_body(request(), CREDENTIAL)
    assert {key: base64.b64decode(value) for key, value in body["data"].items()} == {
        "username": b"user-7",
        "password": b"sesame",
    }
    assert body["type"] == "Opaque"
    assert body["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "engine.kubevault.com/v1alpha1",
            "kind": "DatabaseAccessRequest",
            "name": "rqst",
            "uid": "uid-1",
            "controller": True,
        }
    ]


def test_the_annotations_reveal_nothing_and_differ_each_time() -> None:
    one, two = (manifests.secret_body(request(), CREDENTIAL)["metadata"]["annotations"] for _ in range(2))
    assert one["leasegate.dev/attempt"] == two["leasegate.dev/attempt"] == "7"
    assert one["leasegate.dev/content"] != two["leasegate.dev/content"]
    assert "sesame" not in str(one)


def test_an_unchanged_secret_has_its_attempt() -> None:
    assert manifests.attempt_of(manifests.secret_body(request(), CREDENTIAL)) == 7


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("data", "password", base64.b64encode(b"other").decode()),
        ("data", "username", base64.b64encode(b"other").decode()),
        ("data", "password", "!!!"),
        ("data", "password", None),
        ("annotations", "leasegate.dev/attempt", "8"),
        ("annotations", "leasegate.dev/attempt", "seven"),
        ("annotations", "leasegate.dev/attempt", None),
        ("annotations", "leasegate.dev/content", "zz:00"),
        ("annotations", "leasegate.dev/content", None),
    ],
)
def test_a_changed_secret_has_no_attempt(part: str, key: str, value: str | None) -> None:
    secret = manifests.secret_body(request(), CREDENTIAL)
    place = secret["data"] if part == "data" else secret["metadata"]["annotations"]
    if value is None:
        del place[key]
    else:
        place[key] = value
    assert manifests.attempt_of(secret) == 0


@pytest.mark.parametrize("content", ["\u00e9", "00:\ud800", "00:\u00e9", "\u0660:\u0661", ":", "zz:00"])
def test_a_forged_content_annotation_means_no_attempt(content: str) -> None:
    """An annotation may have any character; what reads it runs in the informer, whose failure stops the namespace."""
    secret = manifests.secret_body(request(), CREDENTIAL)
    secret["metadata"]["annotations"]["leasegate.dev/content"] = content
    assert manifests.attempt_of(secret) == 0


@pytest.mark.parametrize("number", [2**63, 10**9, 0, -1])
def test_a_forged_number_that_no_contract_holds_means_no_attempt(number: int) -> None:
    """Whoever writes Secrets can compute the digest of any number."""
    credential = lease_pb2.Credential()
    credential.CopyFrom(CREDENTIAL)
    secret = manifests.secret_body(request(), credential)
    salt = bytes(16)
    username, password = (base64.b64decode(secret["data"][key]) for key in ("username", "password"))
    digest = manifests._digest(salt, uid="uid-1", attempt=number, username=username, password=password)
    secret["metadata"]["annotations"] = {
        "leasegate.dev/attempt": str(number),
        "leasegate.dev/content": f"{salt.hex()}:{digest}",
    }
    assert manifests.attempt_of(secret) == 0


def test_a_secret_of_another_owner_has_no_attempt() -> None:
    secret = manifests.secret_body(request(), CREDENTIAL)
    secret["metadata"]["ownerReferences"][0]["uid"] = "uid-2"
    assert manifests.attempt_of(secret) == 0


def test_the_cache_keeps_no_value_of_a_secret() -> None:
    kept = manifests.without_values(manifests.secret_body(request(), CREDENTIAL))
    assert kept["secret_attempt"] == 7
    assert "data" not in kept
    assert "c2VzYW1l" not in str(kept)
    other = manifests.without_values(
        {"metadata": {"name": "x", "namespace": "demo", "resourceVersion": "3"}, "data": {"a": "c2VzYW1l"}}
    )
    assert "c2VzYW1l" not in str(other)


def test_a_role_reads_one_secret_and_nothing_else() -> None:
    assert manifests.role_body(request())["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [manifests.secret_name(request())],
            "verbs": ["get"],
        }
    ]


def test_a_binding_as_the_api_server_defaults_it_is_the_same() -> None:
    wanted = manifests.role_binding_body(request())
    found = {**wanted, "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}]}
    assert manifests.grants_the_same(found, wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"subjects": []},
        {"subjects": None},
        {"subjects": [{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]},
        {"subjects": [{"kind": "User", "name": "bob"}, {"kind": "User", "name": "mallory"}]},
        {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "other"}},
    ],
)
def test_another_binding_is_not_the_same(change: Body) -> None:
    wanted = manifests.role_binding_body(request())
    assert not manifests.grants_the_same(wanted | change, wanted)
