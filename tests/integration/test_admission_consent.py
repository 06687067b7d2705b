"""Whose word an annotation is, and who may name a Secret (C2, C3, H4, H7, F12, F17).

alice has ``edit``, which holds ``share`` and the right to get Secrets. tim is bound to leasegate-team alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from tests.integration.admission_world import a_rule, grant, policed_namespace
from tests.integration.kube import (
    Json,
    Kube,
    Running,
    a_request,
    a_role,
    an_app_binding,
    an_engine,
    bind,
    refusal,
    with_value,
)

LISTS = ("leasegate.dev/allow-from", "leasegate.dev/shared-with", "leasegate.dev/allow-subjects-from")
WORDS = {
    "leasegate.dev/same-database-moved": "db-2.example:5432/app",
    "leasegate.dev/drain": "true",
    "leasegate.dev/abandon": "true",
}
OF_OTHERS = "of-others"
KINDS: dict[str, tuple[Callable[..., Json], str, str]] = {
    "AppBinding": (an_app_binding, "appcatalog.appscode.com", "appbindings"),
    "SecretEngine": (an_engine, "engine.kubevault.com", "secretengines"),
    "PostgresRole": (a_role, "engine.kubevault.com", "postgresroles"),
}


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return policed_namespace(cluster)


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


@pytest.fixture(scope="module")
def alice(cluster: Running) -> Kube:
    return Kube(cluster, "alice")


@pytest.fixture(scope="module")
def tim(cluster: Running, admin: Kube, namespace: str) -> Kube:
    """Somebody of leasegate-team alone, who reads no Secret."""
    until = {"verb": "create", "resource": "postgresroles"}
    bind(admin, namespace, role="leasegate-team", subject={"kind": "User", "name": "tim"}, until=until)
    return Kube(cluster, act_as="tim")


@pytest.fixture(scope="module")
def writer(cluster: Running, admin: Kube, namespace: str) -> Kube:
    """Somebody who writes the kinds and reads Secrets, and may not share."""
    for _, group, resource in KINDS.values():
        grant(admin, "writer", a_rule(resource, "create", "update", "patch", group=group), namespace=namespace)
    grant(admin, "writer", a_rule("secrets", "get", group=""), namespace=namespace)
    return Kube(cluster, act_as="writer")


def annotated(thing: Json, key: str, value: str) -> Json:
    return with_value(thing, "metadata.annotations", {key: value})


def annotate(key: str, value: str | None) -> Json:
    return {"metadata": {"annotations": {key: value}}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", LISTS)
class TestShare:
    """C2, C3: consent is given, changed and taken away with the right ``share`` on the object."""

    def test_without_the_right_it_is_refused(
        self, alice: Kube, writer: Kube, namespace: str, kind: str, key: str
    ) -> None:
        maker, _, resource = KINDS[kind]
        says = f"writer may not say which namespaces may use this object ({key}): ask for the right share on {resource}"
        assert says in refusal(writer, "create", annotated(maker(namespace), key, "ns-a")).message
        bare, shared = alice.create(maker(namespace)), alice.create(annotated(maker(namespace), key, "ns-a"))
        assert says in refusal(writer, "patch", bare, annotate(key, "ns-a")).message
        for value in ("ns-a,ns-b", "", None):
            assert says in refusal(writer, "patch", shared, annotate(key, value)).message
        lost = with_value(shared, "metadata.annotations", ...)
        assert says in refusal(writer, "replace", lost).message
        assert writer.patch(shared, {"metadata": {"labels": {"a": "b"}}})
        assert writer.patch(bare, annotate("example.com/other", "x"))
        assert alice.replace(alice.get(kind, lost["metadata"]["name"], namespace) | {"spec": lost["spec"]})

    def test_a_list_names_namespaces(self, alice: Kube, namespace: str, kind: str, key: str) -> None:
        says = f"{key}: write at most 32 names of namespaces with commas between them"
        many = ",".join(f"n{number}" for number in range(33))
        for value in ("*", "ns-a,*", "", ",", "ns-a,", "Ns", "a b", "ns_a", "a.b", "-a", "x" * 64, many):
            wrong = annotated(KINDS[kind][0](namespace), key, value)
            assert says in refusal(alice, "create", wrong, dry_run=True).message

    def test_the_longest_list_is_given(self, alice: Kube, namespace: str, kind: str, key: str) -> None:
        value = ", ".join(f"{'n' * 61}{number:02}" for number in range(32))
        thing = annotated(KINDS[kind][0](namespace), key, value)
        thing["metadata"]["annotations"]["example.com/large"] = "x" * 250_000
        assert alice.create(thing)
        much = ",".join("a" for _ in range(100_000))
        assert "at most 32 names" in refusal(alice, "create", annotated(KINDS[kind][0](namespace), key, much)).message


class TestAppBindings:
    """H4: a Secret is used only with the word of somebody who may read it."""

    def a_binding(self, namespace: str, secret: str = OF_OTHERS) -> Json:
        return an_app_binding(namespace, secret={"kind": "Secret", "name": secret})

    def test_h4_who_names_a_secret_may_read_it(self, alice: Kube, tim: Kube, namespace: str) -> None:
        says = "tim may not read Secret of-others, which this AppBinding would send to its server"
        assert says in refusal(tim, "create", self.a_binding(namespace)).message
        bare, named = tim.create(an_app_binding(namespace)), alice.create(self.a_binding(namespace))
        secret = {"spec": {"secret": {"kind": "Secret", "name": "of-others"}}}
        assert says in refusal(tim, "patch", bare, secret).message
        elsewhere = {"spec": {"clientConfig": {"url": "postgresql://of-tim:5432/app"}}}
        assert says in refusal(tim, "patch", named, elsewhere).message
        assert tim.patch(named, {"metadata": {"labels": {"a": "b"}}})

    def test_h4_a_right_on_that_secret_is_enough(self, admin: Kube, tim: Kube, namespace: str) -> None:
        grant(admin, "tim", a_rule("secrets", "get", group="", names=["own"]), namespace=namespace)
        assert tim.create(self.a_binding(namespace, "own"))
        adds = {"secretTransforms": [{"addKeysFrom": {"secretRef": {"name": "of-others"}}}]}
        refused = refusal(tim, "create", an_app_binding(namespace, secret={"kind": "Secret", "name": "own"}, **adds))
        assert f"tim may not read all Secrets of namespace {namespace}, which secretTransforms with" in refused.message

    def test_c2_who_shares_a_database_may_read_its_secret(self, alice: Kube, tim: Kube, namespace: str) -> None:
        named = alice.create(self.a_binding(namespace))
        refused = refusal(tim, "patch", named, annotate(LISTS[0], "evil"))
        assert "tim may not let other namespaces use Secret of-others by leasegate.dev/allow-from" in refused.message
        assert alice.patch(named, annotate(LISTS[0], "evil"))
        assert tim.patch(named, annotate(LISTS[0], None)), "taken away without"

    def test_c2_who_shares_keys_of_all_secrets_may_read_them(self, admin: Kube, tim: Kube, namespace: str) -> None:
        grant(admin, "tim", a_rule("secrets", "get", group="", names=["shared"]), namespace=namespace)
        secret, adds = {"kind": "Secret", "name": "shared"}, [{"addKeysFrom": {"secretRef": {"name": OF_OTHERS}}}]
        named = admin.create(an_app_binding(namespace, secret=secret, secretTransforms=adds))
        says = "tim may not let other namespaces use an AppBinding with addKeysFrom by leasegate.dev/allow-from"
        assert says in refusal(tim, "patch", named, annotate(LISTS[0], "evil")).message
        plain = admin.create(an_app_binding(namespace, secret=secret))
        assert tim.patch(plain, annotate(LISTS[0], "evil"))
        assert admin.patch(named, annotate(LISTS[0], "evil"))
        assert tim.patch(named, annotate(LISTS[0], None)), "taken away without"


class TestOperators:
    """H7, F12: an operator's word needs an operator, and names what it allows."""

    @pytest.mark.parametrize("word", WORDS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_h7_a_team_gives_no_operators_word(self, alice: Kube, namespace: str, kind: str, word: str) -> None:
        thing = annotated(KINDS[kind][0](namespace), word, WORDS[word])
        says = f"alice may not set {word}: it is the word of an operator"
        assert says in refusal(alice, "create", thing).message
        bare = alice.create(KINDS[kind][0](namespace))
        assert says in refusal(alice, "patch", bare, annotate(word, WORDS[word])).message

    def test_h7_an_operator_gives_it_and_a_team_takes_it_away(
        self, cluster: Running, admin: Kube, alice: Kube, namespace: str
    ) -> None:
        user = f"op-{secrets.token_hex(3)}"
        grant(admin, user, a_rule("secretengines", "patch"), namespace=namespace)
        operates = {"verb": "update", "resource": "secretengines", "subresource": "operate"}
        bind(admin, namespace, role="leasegate-operator", subject={"kind": "User", "name": user}, until=operates)
        operator, engine = Kube(cluster, act_as=user), alice.create(an_engine(namespace))
        key, place = "leasegate.dev/same-database-moved", "db-2.example:5432/app"
        for standing in ("true", "yes", "db-2.example", "db-2.example:5432", "/app", "db-2:x/app", ""):
            assert f"{key}: name the new place" in refusal(operator, "patch", engine, annotate(key, standing)).message
        assert operator.patch(engine, annotate(key, place))
        assert alice.patch(engine, {"metadata": {"labels": {"a": "b"}}})
        changed = refusal(alice, "patch", engine, annotate(key, "db-3.example:5432/app"))
        assert f"alice may not set {key}" in changed.message
        assert alice.patch(engine, annotate(key, None))
        assert f"alice may not set {key}" in refusal(alice, "patch", engine, annotate(key, place)).message


def test_the_subjects_list_of_a_request_needs_no_right(alice: Kube, namespace: str) -> None:
    request = annotated(a_request(namespace), "leasegate.dev/allow-subjects-from", "ci")
    assert alice.create(request)
    wide = annotated(a_request(namespace), "leasegate.dev/allow-subjects-from", "ci,*")
    assert "write at most 32 names" in refusal(alice, "create", wide).message


@pytest.mark.parametrize("kind", KINDS)
def test_f16_a_status_is_the_watchers(cluster: Running, admin: Kube, namespace: str, kind: str) -> None:
    maker, group, resource = KINDS[kind]
    user = f"status-{secrets.token_hex(3)}"
    grant(admin, user, a_rule(f"{resource}/status", "patch", "update", group=group), namespace=namespace)
    thing, mallory = admin.create(maker(namespace)), Kube(cluster, act_as=user)
    changes: list[Json] = [{"conditions": [{"type": "Ready", "status": "True"}]}, {"observedGeneration": 9}]
    if kind != "AppBinding":
        changes += [{"phase": "Success"}, {"path": "of-others"}, {"target": {"address": "https://mallory"}}]
    for change in changes:
        refused = refusal(mallory, "patch", thing, {"status": change}, status=True)
        assert f"{user} may not change what this status says" in refused.message
        assert admin.patch(thing, {"status": change}, status=True)
    assert refusal(mallory, "patch", thing, {"status": None}, status=True).status == 403
