"""Attacks C2, C3, C4 and M6 of the threat model: two teams on one installation, on real servers.

``owner`` is a namespace with the guide's objects. ``evil`` is enabled like any other; whoever edits it has no right in
``owner``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from dev.demo.story import REPOSITORY
from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, REQUEST, ROLE, Space, space
from tests.eventually import eventually


@pytest.fixture(scope="module")
def owner(stack: LocalStack) -> Iterator[Space]:
    with space(stack, "owner", at_once=True) as made:
        made.apply(*made.guide("postgres-app", "postgresSecretEngine", "postgresRole"))
        made.phase(ROLE, "Success")
        yield made


@pytest.fixture
def evil(stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[Space]:
    with space(stack, f"evil{abs(hash(request.node.name)) % 10**6}", at_once=True) as made:
        yield made


def moved(made: Space, file: str, **spec: Any) -> dict[str, Any]:
    """The object of one of the guide's files in a namespace, its spec changed."""
    found = next(each for each in made.guide(file) if each["kind"] not in ("Secret", "ServiceAccount"))
    for path, value in spec.items():
        *parents, last = path.split("__")
        at = found["spec"]
        for parent in parents:
            at = at[parent]
        at[last] = value
    return dict(found)


def reason(made: Space, name: str, expected: str, *, kind: str = "Ready") -> str:
    """Wait for the reason of a condition; answers its message."""

    def found() -> str:
        condition = made.condition(name, kind)
        assert condition.get("reason") == expected, made.status(name)
        return str(condition["message"])

    return eventually(found, timeout_s=30, what=f"{expected} of {name}")


def consent(owner: Space, name: str, value: str, *, word: str = "allow-from") -> None:
    owner.annotate(name, f"leasegate.dev/{word}{'=' + value if value else '-'}")


def connections(made: Space) -> list[str]:
    """Names of the connections on a namespace's mount in Vault."""
    answer = made.stack.vault_api().call("LIST", f"{made.mount}/config")
    return list(answer.body["data"]["keys"]) if answer.ok else []


def test_c2_a_database_of_a_neighbour_is_not_used(owner: Space, evil: Space) -> None:
    foreign = {"name": "postgres-app", "namespace": owner.name}
    evil.apply(moved(evil, "postgresSecretEngine", postgres__databaseRef=foreign))
    text = reason(evil, ENGINE, "NotAllowedFrom")
    assert f"the owner of namespace {owner.name} annotates it with leasegate.dev/allow-from: {evil.name}" in text
    assert evil.described() is None
    consent(owner, "appbinding/postgres-app", evil.name)
    evil.phase(ENGINE, "Success")
    assert connections(evil) == [f"k8s.-.{owner.name}.postgres-app"]
    consent(owner, "appbinding/postgres-app", "")
    reason(evil, ENGINE, "NotAllowedFrom")


def test_c3_a_role_of_a_neighbour_is_not_asked_for(owner: Space, evil: Space) -> None:
    """With the owner's word it is, for as long as the word stands: what is in use is kept and not renewed."""
    role = {"kind": "PostgresRole", "name": "psql-role", "namespace": owner.name}
    evil.apply(moved(evil, "postgresAccessRequest", roleRef=role))
    text = reason(evil, REQUEST, "ConsentMissing", kind="NotAllowedFrom")
    assert f"leasegate.dev/allow-from: {evil.name}" in text
    assert evil.status(REQUEST).get("digest", "") == ""
    consent(owner, ROLE, evil.name)
    secret = evil.granted()
    assert evil.user_works(evil.secret(secret))
    before = owner.get(ROLE)
    owner.kubectl("replace", "-f", "-", input=json.dumps(moved(owner, "postgresRole")))  # it has no annotation
    reason(evil, REQUEST, "ConsentMissing", kind="NotAllowedFrom")
    assert evil.user_works(evil.secret(secret))
    evil.kubectl("delete", f"secret/{secret}")  # so that another credential would be due
    consent(owner, ROLE, evil.name)
    eventually(lambda: not evil.condition(REQUEST, "NotAllowedFrom"), timeout_s=30)
    eventually(lambda: evil.user_works(evil.secret(evil.secret_name())), timeout_s=30)
    assert before["metadata"]["uid"] == owner.get(ROLE)["metadata"]["uid"]
    consent(owner, ROLE, "")


def test_c4_a_role_on_the_mount_of_a_neighbour_is_not_written(owner: Space, evil: Space) -> None:
    superuser = ["CREATE ROLE \"{{name}}\" SUPERUSER LOGIN PASSWORD '{{password}}'"]
    foreign = {"path": owner.mount, "creationStatements": superuser}
    role = moved(evil, "postgresRole", **foreign)
    role["spec"].pop("databaseRef")
    role["spec"]["databaseName"] = f"k8s.-.{owner.name}.postgres-app"
    evil.apply(*evil.guide("postgres-app"), role)
    assert f"leasegate.dev/allow-from: {evil.name}" in reason(evil, ROLE, "NotAllowedFrom")
    # With a connection of its own it is the mount that is not shared.
    evil.kubectl("delete", ROLE)
    evil.apply(moved(evil, "postgresSecretEngine", path=owner.mount))
    text = reason(evil, ENGINE, "NotAllowedFrom")
    assert f"annotates the SecretEngine with leasegate.dev/shared-with: {evil.name}" in text
    assert evil.name not in str(owner.described())
    assert connections(owner) == [f"k8s.-.{owner.name}.postgres-app"]


def test_a_mount_is_shared_by_the_word_of_its_namespace(owner: Space, evil: Space) -> None:
    mine = {"name": "postgres-app", "namespace": evil.name}
    evil.apply(
        *evil.guide("postgres-app"),
        moved(evil, "postgresSecretEngine", path=owner.mount, postgres__databaseRef=mine),
        moved(evil, "postgresRole", path=owner.mount, databaseRef=mine),
        moved(evil, "postgresAccessRequest"),
    )
    consent(owner, ENGINE, evil.name, word="shared-with")
    evil.phase(ROLE, "Success")
    secret = evil.granted()
    assert evil.user_works(evil.secret(secret))
    consent(owner, ENGINE, "", word="shared-with")
    reason(evil, ROLE, "NotAllowedFrom")
    reason(evil, REQUEST, "ConsentMissing", kind="NotAllowedFrom")
    assert evil.user_works(evil.secret(secret))
    evil.kubectl("delete", REQUEST, ROLE, ENGINE, "--timeout=60s")
    assert connections(owner) == [f"k8s.-.{owner.name}.postgres-app"]


def test_two_namespaces_without_a_path_do_not_share_a_mount(stack: LocalStack, evil: Space) -> None:
    """Both mean Vault's default, ``database``: the first one has it until it goes."""
    with space(stack, "pathless", at_once=True) as first:
        for made in (first, evil):
            engine = moved(made, "postgresSecretEngine")
            engine["spec"].pop("path")
            made.apply(*made.guide("postgres-app"), engine)
            if made is first:
                made.phase(ENGINE, "Success")
        assert "the mount database belongs to namespace pathless" in reason(evil, ENGINE, "NotAllowedFrom")
        first.kubectl("delete", ENGINE, "--timeout=60s")
        evil.annotate(ENGINE, "example.com/touched=now")
        evil.phase(ENGINE, "Success", timeout_s=90)


def test_m6_a_neighbours_reference_holds_nothing(stack: LocalStack, evil: Space) -> None:
    """Neither namespace waits for the other's deletion."""
    with space(stack, "held", at_once=True) as held:
        held.apply(*held.guide("postgres-app"))
        foreign = {"name": "postgres-app", "namespace": held.name}
        evil.apply(moved(evil, "postgresSecretEngine", postgres__databaseRef=foreign))
        reason(evil, ENGINE, "NotAllowedFrom")
        assert "finalizers" not in held.get("appbinding/postgres-app")["metadata"]


def test_one_namespace_owns_the_databases_and_another_asks(stack: LocalStack) -> None:
    """The commands of docs/security/rbac.md as printed, and then what each group does with its rights."""
    with space(stack, "databases", at_once=True) as databases, space(stack, "app", at_once=True) as app:
        dba, developer = ["--as=dana", "--as-group=dba"], ["--as=dev", "--as-group=app-team"]
        *bindings, allow = layout_commands()
        for command in bindings:
            stack.kubectl(*command)
        for each in (*databases.guide("postgres-app", "postgresSecretEngine"), moved(databases, "postgresRole")):
            each["metadata"]["name"] = each["metadata"]["name"].replace("psql-role", "app-reader")
            databases.kubectl("apply", "-f", "-", *dba, input=json.dumps(each))
        databases.phase("postgresrole/app-reader", "Success")
        role = {"kind": "PostgresRole", "name": "app-reader", "namespace": "databases"}
        app.kubectl("apply", "-f", "-", *developer, input=json.dumps(moved(app, "postgresAccessRequest", roleRef=role)))
        reason(app, REQUEST, "ConsentMissing", kind="NotAllowedFrom")
        assert stack.kubectl(*allow, *developer, check=False).returncode  # the role's owner alone says so
        stack.kubectl(*allow, *dba)
        eventually(lambda: app.status(REQUEST).get("digest"), timeout_s=30, what="the digest")
        stack.kubectl("create", "rolebinding", "own", "-n", "app", "--clusterrole=leasegate-approver", "--user=al")
        refused = app.vault_command("approve", REQUEST, "--as=al")
        assert "an approver of namespace databases, to which its role belongs" in refused.stderr, refused
        done = app.vault_command("approve", REQUEST, *dba)
        assert done.returncode == 0, done.stderr
        assert app.user_works(app.secret(app.secret_name()))
        denied = app.vault_command("deny", REQUEST, "--as=al")  # approvers of either namespace may end access
        assert denied.returncode == 0, denied.stderr
        eventually(lambda: not app.database_users(), timeout_s=30, what="the user dropped")


def layout_commands() -> list[list[str]]:
    """The commands of the usual layout in docs/security/rbac.md, without ``kubectl``."""
    text = (REPOSITORY / "docs/security/rbac.md").read_text(encoding="utf-8")
    block = text.partition("### One namespace owns the databases, others ask\n")[2].partition("```console\n")[2]
    lines = block.partition("```")[0].splitlines()
    found = [shlex.split(line.removeprefix("$ kubectl ")) for line in lines]
    assert len(found) == 6, found
    return found
