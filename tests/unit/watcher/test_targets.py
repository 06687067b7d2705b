"""AppBindings: where a server is and what authenticates there, and every wrong field named without a secret."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from leasegate.types.v1 import types_pb2
from services.common.errors import SpecInvalidError
from services.common.vault.target import VaultTarget
from services.common.vault_config.entries import TeamAuth
from services.common.vault_config.read import TEAM_METHODS
from watcher.kube.resources import Body, Key
from watcher.specs import appbinding
from watcher.specs.appbinding import SecretAuth, SecretContent, ServiceAccountAuth
from watcher.specs.cluster import Cluster

CLUSTER = Cluster("", "uid")
NOWHERE: Mapping[tuple[str, str], tuple[str, int]] = {}
SERVICE = {"name": "vault", "port": 8200, "scheme": "HTTPS"}
ALL = TeamAuth(mounts=(), methods=TEAM_METHODS, token_audience="v", service_accounts=("sa", "flat"))


def binding(**spec: Any) -> Body:
    return {
        "metadata": {"namespace": "demo", "name": "vault", "uid": "u"},
        "spec": {"clientConfig": {"service": SERVICE}} | spec,
    }


def vault(config: Body, addresses: appbinding.ServiceAddresses = NOWHERE) -> types_pb2.VaultTarget:
    return appbinding.vault_address(binding(clientConfig=config), cluster=CLUSTER, addresses=addresses)


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# -- where a Vault is


def test_the_guides_binding_is_https_in_lower_case() -> None:
    found = vault({"service": SERVICE, "caBundle": b64("PEM")})
    assert (found.address, found.ca_bundle, found.insecure_skip_tls_verify) == (
        "https://vault.demo.svc:8200",
        b"PEM",
        False,
    )
    assert (found.source.namespace, found.source.name, found.source.cluster_uid) == ("demo", "vault", "uid")


@pytest.mark.parametrize(
    ("config", "address"),
    [
        ({"service": {"name": "vault", "port": 8200}}, "https://vault.demo.svc:8200"),
        ({"service": {"name": "vault", "port": 8200, "scheme": "http"}}, "http://vault.demo.svc:8200"),
        ({"service": {"name": "vault", "port": 8200, "namespace": "infra"}}, "https://vault.infra.svc:8200"),
        ({"service": SERVICE | {"path": "/"}}, "https://vault.demo.svc:8200"),
        ({"url": "https://vault.example.com:8200"}, "https://vault.example.com:8200"),
        ({"url": "HTTPS://vault.example.com:8200/"}, "https://vault.example.com:8200"),
        ({"url": "https://vault.example.com:8200", "service": SERVICE}, "https://vault.example.com:8200"),
        ({"url": "https://[::1]:8200"}, "https://[::1]:8200"),
    ],
)
def test_addresses(config: Body, address: str) -> None:
    assert vault(config).address == address


@pytest.mark.parametrize(
    ("addresses", "address"),
    [
        ({("demo", "vault"): ("127.0.0.1", 9)}, "https://127.0.0.1:9"),
        ({("*", "vault"): ("127.0.0.1", 9)}, "https://127.0.0.1:9"),
        ({("*", "vault"): ("127.0.0.1", 8), ("demo", "vault"): ("127.0.0.1", 9)}, "https://127.0.0.1:9"),
        ({("other", "vault"): ("127.0.0.1", 9)}, "https://vault.demo.svc:8200"),
        ({("*", "vault"): ("::1", 9)}, "https://[::1]:9"),
    ],
)
def test_a_service_may_be_reached_elsewhere(addresses: appbinding.ServiceAddresses, address: str) -> None:
    assert vault({"service": SERVICE}, addresses).address == address


def test_a_certificate_goes_unchecked_only_where_asked() -> None:
    found = vault({"service": SERVICE, "insecureSkipTLSVerify": True, "serverName": "vault.internal"})
    assert (found.insecure_skip_tls_verify, found.server_name) == (True, "vault.internal")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "service"),
        ({"service": {}}, "service.name"),
        ({"service": {"name": "v"}}, "service.port"),
        ({"service": {"name": "v", "port": 0}}, "service.port"),
        ({"service": {"name": "v", "port": 65536}}, "service.port"),
        ({"service": {"name": "v", "port": "8200"}}, "service.port"),
        ({"service": "vault"}, "service"),
        ({"service": SERVICE | {"scheme": "postgresql"}}, "service.scheme"),
        ({"service": SERVICE | {"path": "/v1"}}, "service.path"),
        ({"service": SERVICE | {"query": "a=b"}}, "service.path"),
        ({"url": "vault.demo.svc:8200"}, "url"),
        ({"url": "https://u:p@vault:8200"}, "url"),
        ({"url": "https://vault:8200/v1"}, "url"),
        ({"url": "https://[::1"}, "url"),
        ({"url": 7}, "url"),
        ({"service": SERVICE, "caBundle": "!!!"}, "caBundle"),
        ({"service": SERVICE, "insecureSkipTLSVerify": "yes"}, "insecureSkipTLSVerify"),
        ({"service": SERVICE, "serverName": 7}, "serverName"),
    ],
)
def test_a_wrong_address_is_named(config: Body, field: str) -> None:
    with pytest.raises(SpecInvalidError) as caught:
        vault(config)
    assert any(v.field == f"AppBinding demo/vault spec.clientConfig.{field}" for v in caught.value.violations), (
        caught.value.violations
    )


def test_a_binding_without_a_spec_is_wrong() -> None:
    with pytest.raises(SpecInvalidError, match="clientConfig"):
        appbinding.vault_address({"metadata": {"namespace": "demo", "name": "v"}}, cluster=CLUSTER, addresses=NOWHERE)


# -- how to authenticate


@pytest.mark.parametrize(
    ("parameters", "plan"),
    [
        (
            {
                "path": "kubernetes",
                "vaultRole": "r",
                "serviceAccountName": "sa",
                "usePodServiceAccountForCsiDriver": True,
            },
            ServiceAccountAuth("sa", "r", "kubernetes"),
        ),
        ({"policyControllerRole": "r", "serviceAccountName": "sa"}, ServiceAccountAuth("sa", "r", "")),
        (
            {"policyControllerRole": "old", "vaultRole": "r", "serviceAccountName": "sa"},
            ServiceAccountAuth("sa", "r", ""),
        ),
        ({"vaultRole": "r", "kubernetes": {"serviceAccountName": "sa"}}, ServiceAccountAuth("sa", "r", "")),
        (
            {"vaultRole": "r", "serviceAccountName": "flat", "kubernetes": {"serviceAccountName": "sa"}},
            ServiceAccountAuth("sa", "r", ""),
        ),
        (
            {"vaultRole": "r", "path": "/k8s/prod/", "serviceAccountName": "sa"},
            ServiceAccountAuth("sa", "r", "k8s/prod"),
        ),
        ({"vaultRole": "r", "serviceAccountName": "sa", "audience": "v"}, ServiceAccountAuth("sa", "r", "")),
        (
            {"vaultRole": "r", "kubernetes": {"serviceAccountName": "sa", "audience": "v"}},
            ServiceAccountAuth("sa", "r", ""),
        ),
    ],
)
def test_both_shapes_of_parameters(parameters: Body, plan: ServiceAccountAuth) -> None:
    assert appbinding.auth_plan(binding(parameters=parameters), ALL) == plan


def test_a_secret_logs_in_where_no_service_account_is_named() -> None:
    plan = appbinding.auth_plan(binding(secret={"name": "auth"}, parameters={"vaultRole": "r", "path": "p"}), ALL)
    assert plan == SecretAuth("auth", "r", "p")


def test_a_service_account_wins_over_a_secret() -> None:
    plan = appbinding.auth_plan(
        binding(secret={"name": "auth"}, parameters={"vaultRole": "r", "serviceAccountName": "sa"}), ALL
    )
    assert isinstance(plan, ServiceAccountAuth)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "parameters.serviceAccountName"),
        ({"parameters": {"serviceAccountName": "sa"}}, "parameters.vaultRole"),
        ({"parameters": {"serviceAccountName": 7, "vaultRole": "r"}}, "parameters.serviceAccountName"),
        ({"parameters": "x"}, "parameters"),
        ({"parameters": {"kubernetes": []}, "secret": {"name": "s"}}, "parameters.kubernetes"),
        ({"secret": "auth"}, "secret"),
    ],
)
def test_wrong_authentication_is_named(spec: Body, field: str) -> None:
    with pytest.raises(SpecInvalidError) as caught:
        appbinding.auth_plan(binding(**spec), ALL)
    assert any(v.field == f"AppBinding demo/vault spec.{field}" for v in caught.value.violations), (
        caught.value.violations
    )


def authenticated(kind: str, data: dict[str, bytes], *, role: str = "r", mount: str = "m") -> types_pb2.VaultTarget:
    target = types_pb2.VaultTarget(source=types_pb2.ObjectRef(name="vault"), address="https://v:1")
    appbinding.set_secret_auth(target, SecretAuth("s", role, mount), SecretContent(kind, data), ALL)
    return target


def test_every_secret_type_logs_in() -> None:
    assert authenticated("kubevault.com/token", {"token": b"t"}).token.token == "t"
    user = authenticated("kubernetes.io/basic-auth", {"username": b"u", "password": b"p"}).userpass
    assert (user.mount, user.username, user.password) == ("m", "u", "p")
    tls = authenticated("kubernetes.io/tls", {"tls.crt": b"C", "tls.key": b"K"}).certificate
    assert (tls.mount, tls.auth_role, tls.certificate, tls.private_key) == ("m", "r", b"C", b"K")
    app = authenticated("leasegate.dev/approle", {"role_id": b"i", "secret_id": b"s"}).app_role
    assert (app.mount, app.role_id, app.secret_id) == ("m", "i", "s")


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        ("Opaque", {"token": b"sesame"}, "type: is Opaque"),
        ("kubernetes.io/service-account-token", {"token": b"sesame"}, "never expires.*parameters.serviceAccountName"),
        ("", {}, "type: is missing"),
        ("kubevault.com/token", {}, "data.token"),
        ("kubernetes.io/basic-auth", {"username": b"u"}, "data.password"),
        ("kubernetes.io/tls", {"tls.crt": b"C"}, r"data\.tls\.key"),
        ("leasegate.dev/approle", {"secret_id": b"sesame"}, "data.role_id"),
    ],
)
def test_a_wrong_secret_is_named_without_its_values(kind: str, data: dict[str, bytes], says: str) -> None:
    with pytest.raises(SpecInvalidError, match=says) as caught:
        authenticated(kind, data)
    assert "sesame" not in str(caught.value)


KUBERNETES = TeamAuth(token_audience="leasegate-vault")


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"serviceAccountName": "cluster-admin"}, "serviceAccountName"),
        ({"kubernetes": {"serviceAccountName": "cluster-admin"}}, "kubernetes.serviceAccountName"),
        ({"serviceAccountName": "vault", "kubernetes": {"serviceAccountName": "x"}}, "kubernetes.serviceAccountName"),
        ({"serviceAccountName": "vault", "audience": "https://kubernetes.default.svc"}, "audience"),
        ({"serviceAccountName": "vault", "kubernetes": {"audience": "sts.example.com"}}, "kubernetes.audience"),
        ({"kubernetes": {"serviceAccountName": "vault", "audience": "vault"}}, "kubernetes.audience"),
        ({"audience": "leasegate-vault"}, "serviceAccountName"),
        ({"serviceAccountName": "vault", "path": "kubernetes-of-others"}, "path"),
        ({"serviceAccountName": "vault", "path": "kubernetes/../token"}, "path"),
    ],
)
def test_what_the_operator_does_not_allow_is_named(parameters: Body, field: str) -> None:
    """H4: no ServiceAccount, audience or method is the AppBinding's to choose."""
    with pytest.raises(SpecInvalidError, match="operator") as caught:
        appbinding.auth_plan(binding(parameters={"vaultRole": "r"} | parameters, secret={"name": "s"}), KUBERNETES)
    assert [v.field for v in caught.value.violations] == [f"AppBinding demo/vault spec.parameters.{field}"]


@pytest.mark.parametrize("kind", appbinding.SECRET_METHODS)
def test_a_secret_logs_in_only_by_an_allowed_method(kind: str) -> None:
    """H4: each type of Secret is one auth method, which the operator allows or not."""
    data = dict.fromkeys(("token", "username", "password", "tls.crt", "tls.key", "role_id", "secret_id"), b"sesame")
    method, content, plan = appbinding.SECRET_METHODS[kind], SecretContent(kind, data), SecretAuth("s", "r", "m")
    others = TeamAuth(methods=tuple(each for each in TEAM_METHODS if each != method))
    with pytest.raises(SpecInvalidError, match="the operator allows these") as caught:
        appbinding.set_secret_auth(types_pb2.VaultTarget(), plan, content, others)
    assert "sesame" not in caught.value.message
    appbinding.set_secret_auth(types_pb2.VaultTarget(), plan, content, TeamAuth(methods=(method,)))


@pytest.mark.parametrize("vault", ["", "main"])
def test_the_digest_is_the_services_own(vault: str) -> None:
    """So a target finds the session that a service has for it, whatever authenticates there."""
    target = authenticated("kubevault.com/token", {"token": b"t"}) if not vault else types_pb2.VaultTarget()
    target.address, target.vault, target.source.name = "https://Vault.demo.svc.:8200/", vault, "vault"
    theirs = VaultTarget.from_proto(target)
    assert appbinding.target_ref(target).digest == theirs.digest
    bare = types_pb2.VaultTarget(source=target.source, address="https://vault.demo.svc:8200", vault=vault)
    assert VaultTarget.from_proto(bare).auth is None
    assert VaultTarget.from_proto(bare).key == theirs.key


# -- databases


def database(
    spec: Body, data: dict[str, bytes] | None = None, addresses: appbinding.ServiceAddresses = NOWHERE
) -> types_pb2.Database:
    obj = {"metadata": {"namespace": "demo", "name": "postgres-app"}, "spec": spec}
    content = None if data is None else SecretContent("Opaque", data)
    return appbinding.database_target(obj, addresses=addresses, content=content)


POSTGRES = {"name": "postgres", "scheme": "postgresql", "port": 5432, "path": "postgres", "query": "sslmode=disable"}


def test_the_guides_database() -> None:
    found = database({"clientConfig": {"service": POSTGRES}}, {"username": b"postgres", "password": b"root"})
    service = found.service
    assert (service.scheme, service.host, service.port, service.path, service.query) == (
        "postgresql", "postgres.demo.svc", 5432, "postgres", "sslmode=disable",
    )  # fmt: skip
    assert (found.username, found.password) == ("postgres", "root")


def test_a_database_by_url_and_without_a_secret() -> None:
    found = database({"clientConfig": {"url": "postgresql://db:5432/app"}})
    assert (found.url, found.username, found.password) == ("postgresql://db:5432/app", "", "")


def test_a_database_elsewhere_keeps_its_path_and_query() -> None:
    service = database({"clientConfig": {"service": POSTGRES}}, addresses={("*", "postgres"): ("127.0.0.1", 7)}).service
    assert (service.host, service.port, service.path, service.query) == ("127.0.0.1", 7, "postgres", "sslmode=disable")


@pytest.mark.parametrize("service", [{}, {"name": "p"}, {"name": "p", "port": -1}, {"port": 5432}, []])
def test_a_wrong_database_is_named(service: object) -> None:
    with pytest.raises(SpecInvalidError, match=r"AppBinding demo/postgres-app spec\.clientConfig\.service"):
        database({"clientConfig": {"service": service}})


@pytest.mark.parametrize("kind", ["Opaque", "kubernetes.io/tls", "kubevault.com/token", "leasegate.dev/credential", ""])
def test_of_a_secret_for_something_else_only_two_keys_are_read(kind: str) -> None:
    """H4: a transform cannot give another value the name password, which Vault sends to the team's database."""
    key = Key("demo", "s")
    data = {"username": b"u", "password": b"p", "api-key": b"sesame"}
    assert appbinding.database_content(key, SecretContent(kind, data)).data == {"username": b"u", "password": b"p"}
    assert appbinding.database_content(key, SecretContent(kind, {})).data == {}
    with pytest.raises(SpecInvalidError, match=r"Secret demo/s.*leasegate\.dev/database") as caught:
        appbinding.database_content(key, SecretContent(kind, {"api-key": b"sesame"}))
    assert "sesame" not in caught.value.message


@pytest.mark.parametrize("kind", appbinding.DATABASE_TYPES)
def test_a_secret_for_a_database_is_read_whole(kind: str) -> None:
    content = SecretContent(kind, {"postgres-password": b"p"})
    assert appbinding.database_content(Key("demo", "s"), content) == content


# -- transforms


def transformed(steps: object, **more: SecretContent) -> SecretContent | None:
    contents = {"own": SecretContent("Opaque", {"user": b"u", "pass": b"p"})} | more
    return appbinding.transformed(binding(secret={"name": "own"}, secretTransforms=steps), contents)


@pytest.mark.parametrize(
    ("steps", "data"),
    [
        ([], {"user": b"u", "pass": b"p"}),
        ([{"renameKey": {"from": "user", "to": "username"}}], {"username": b"u", "pass": b"p"}),
        ([{"renameKey": {"from": "none", "to": "username"}}], {"user": b"u", "pass": b"p"}),
        ([{"addKey": {"key": "a", "value": b64("x")}}], {"user": b"u", "pass": b"p", "a": b"x"}),
        ([{"addKey": {"key": "a", "value": b64("x"), "stringValue": "y"}}], {"user": b"u", "pass": b"p", "a": b"y"}),
        ([{"removeKey": {"key": "pass"}}], {"user": b"u"}),
        ([{"removeKey": {"key": "none"}}], {"user": b"u", "pass": b"p"}),
        ([{"addKeysFrom": {"name": "more"}}], {"user": b"other", "pass": b"p", "extra": b"e"}),
        (
            [{"addKeysFrom": {"secretRef": {"name": "more", "namespace": "demo"}}}],
            {"user": b"other", "pass": b"p", "extra": b"e"},
        ),
        (
            [
                {"renameKey": {"from": "user", "to": "username"}},
                {"removeKey": {"key": "user"}},
                {"addKey": {"key": "pass", "stringValue": "q"}},
            ],
            {"username": b"u", "pass": b"q"},
        ),
    ],
)
def test_transforms_in_their_order(steps: object, data: dict[str, bytes]) -> None:
    found = transformed(steps, more=SecretContent("Opaque", {"user": b"other", "extra": b"e"}))
    assert found is not None
    assert found.data == data


def test_the_secrets_that_are_read() -> None:
    spec = binding(
        secret={"name": "own"},
        secretTransforms=[{"addKeysFrom": {"name": "more"}}, {"addKeysFrom": {"secretRef": {"name": "own"}}}],
    )
    assert appbinding.secret_names(spec) == ["own", "more"]
    assert appbinding.secret_names(binding()) == []


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({}, "secretTransforms[0]"),
        ("x", "secretTransforms[0]"),
        ({"renameKey": {"from": "a"}}, "secretTransforms[0].renameKey.to"),
        ({"renameKey": {"to": "a"}}, "secretTransforms[0].renameKey.from"),
        ({"addKey": {"stringValue": "a"}}, "secretTransforms[0].addKey.key"),
        ({"addKey": {"key": "a", "value": "!"}}, "secretTransforms[0].addKey.value"),
        ({"addKey": {"key": "a", "jsonPathExpression": "x"}}, "secretTransforms[0].addKey.jsonPathExpression"),
        ({"addKeysFrom": {}}, "secretTransforms[0].addKeysFrom.name"),
        (
            {"addKeysFrom": {"secretRef": {"name": "a", "namespace": "other"}}},
            "secretTransforms[0].addKeysFrom.secretRef.namespace",
        ),
        ({"removeKey": {}}, "secretTransforms[0].removeKey.key"),
    ],
)
def test_a_wrong_transform_is_named(step: object, field: str) -> None:
    with pytest.raises(SpecInvalidError) as caught:
        transformed([step])
    assert any(v.field == f"AppBinding demo/vault spec.{field}" for v in caught.value.violations), (
        caught.value.violations
    )


def test_a_secret_that_is_no_base64_is_named_without_its_value() -> None:
    with pytest.raises(SpecInvalidError, match="Secret demo/s") as caught:
        appbinding.secret_content({"metadata": {"namespace": "demo", "name": "s"}, "data": {"password": "sesame!"}})
    assert "sesame" not in str(caught.value)


def test_no_secret_is_in_a_repr() -> None:
    assert "hunter2" not in repr(SecretContent("Opaque", {"password": b"hunter2"}))
