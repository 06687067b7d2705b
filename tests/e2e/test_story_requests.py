"""What becomes of a request that somebody disturbs: its Secret, its readers, its decision, its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, REQUEST, ROLE, Space, space
from tests.eventually import eventually

READER = "system:serviceaccount:{}:demo-sa"


@pytest.fixture
def guide(stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[Space]:
    """The guide's objects, the request not decided yet."""
    with space(stack, f"rq{abs(hash(request.node.name)) % 10**6}") as made:
        made.apply(*made.guide())
        yield made


def _may_read(guide: Space, secret: str) -> bool:
    who = READER.format(guide.name)
    return (
        guide.stack.kubectl(
            "auth", "can-i", "get", f"secret/{secret}", "-n", guide.name, f"--as={who}", check=False
        ).returncode
        == 0
    )


def _reader(guide: Space) -> str:
    """Name of the Role that lets the subjects read."""
    found = guide.kubectl("get", "roles", "-o", "name").split()
    assert len(found) == 1, found
    return found[0].partition("/")[2]


def test_a_deleted_secret_is_recreated_with_a_new_user(guide: Space) -> None:
    """A new password replaces one that is stored nowhere; the former user is dropped later, or with access."""
    name = guide.granted()
    old = guide.secret(name)
    guide.kubectl("delete", "secret", name)
    new = eventually(lambda: (found := guide.secret(name)) and found != old and found, timeout_s=30)
    assert isinstance(new, dict)
    assert guide.user_works(new)
    assert guide.secret_name() == name
    _denied(guide, old, new)


def _denied(guide: Space, *credentials: dict[str, str]) -> None:
    """A denial ends the new user and the old one at once."""
    guide.decide("deny")
    eventually(lambda: not guide.database_users(), timeout_s=30, what="every user dropped")
    assert not any(guide.user_works(each) for each in credentials)


def test_readers_edited_by_hand_are_set_right(guide: Space) -> None:
    """Role and RoleBinding are what the request says, whoever wrote over them or removed them.

    They are looked at again at the latest with the next resync; a watcher that starts looks at once.
    """
    secret = guide.granted()
    assert _may_read(guide, secret)
    role = _reader(guide)
    wider = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]
    subjects = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "mallory"}]
    guide.patch(f"role/{role}", {"rules": wider})
    guide.patch(f"rolebinding/{role}", {"subjects": subjects})
    _restart(guide)

    def right() -> bool:
        rules = guide.get(f"role/{role}")["rules"]
        assert rules == [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}], (
            rules
        )
        names = [subject["name"] for subject in guide.get(f"rolebinding/{role}")["subjects"]]
        assert names == ["demo-sa"], names
        return True

    eventually(right, timeout_s=90, what="Role and RoleBinding set right")
    guide.kubectl("delete", "role", role)
    guide.kubectl("delete", "rolebinding", role)
    _restart(guide)
    eventually(lambda: guide.get(f"role/{role}") and guide.get(f"rolebinding/{role}") and right(), timeout_s=90)
    assert _may_read(guide, secret)


def _restart(guide: Space) -> None:
    watcher = guide.stack.process("watcher")
    watcher.terminate()
    watcher.start()
    watcher.wait_ready()


def test_a_denial_after_an_approval_revokes_all(guide: Space) -> None:
    """Secret, Role, RoleBinding, status.secret, status.lease and the user go; the decision stays final."""
    name = guide.granted()
    data, role = guide.secret(name), _reader(guide)
    status = guide.status(REQUEST)
    assert status["lease"]["id"]
    assert status["lease"]["duration"] == "1h0m0s"
    assert all(condition.get("lastUpdateTime") for condition in status["conditions"])
    assert guide.decide("deny") == "Denied"
    guide.phase(REQUEST, "Denied")

    def gone() -> bool:
        left = [
            kind
            for kind, plain in (("secret", name), ("role", role), ("rolebinding", role))
            if guide.get(f"{kind}/{plain}")
        ]
        assert left == []
        status = guide.status(REQUEST)
        assert "lease" not in status
        assert "secret" not in status
        assert guide.database_users() == []
        return True

    eventually(gone, timeout_s=30)
    assert not guide.user_works(data)
    guide.reported(REQUEST, "AccessEnded")
    again = guide.vault_command("approve", "databaseaccessrequest", "postgres-cred-rqst")
    assert again.returncode == 1
    assert "denied" in again.stderr


def test_a_new_request_of_the_same_name_is_another_request(guide: Space) -> None:
    """An approval does not outlive its object: the new one waits, and gets another Secret and user."""
    first = guide.granted()
    old = guide.secret(first)
    guide.kubectl("delete", REQUEST)
    guide.apply(*guide.guide("postgresAccessRequest"))
    eventually(lambda: guide.status(REQUEST).get("digest"), timeout_s=30)
    assert guide.status(REQUEST)["phase"] == "WaitingForApproval"
    assert not guide.user_works(old)
    second = guide.granted()
    assert second != first
    assert guide.secret(second)["username"] != old["username"]
    assert not guide.get(f"secret/{first}")
    assert len(guide.database_users()) == 1


def test_a_role_changed_after_the_approval_needs_another(guide: Space) -> None:
    """What is granted is what was approved: an unissued request whose role changes is pending again and says so."""
    eventually(lambda: guide.status(REQUEST).get("digest"), timeout_s=60)
    guide.granted()
    before = guide.status(REQUEST)["digest"]
    more = [
        *guide.get(ROLE)["spec"]["creationStatements"],
        'GRANT INSERT ON ALL TABLES IN SCHEMA public TO "{{name}}";',
    ]
    guide.patch(ROLE, {"spec": {"creationStatements": more}})
    eventually(
        lambda: guide.status(REQUEST)["digest"] != before or guide.condition(REQUEST, "ApprovalStale"), timeout_s=30
    )
    assert guide.user_works(guide.secret(guide.secret_name()))


def test_a_role_that_goes_leaves_what_was_granted(guide: Space) -> None:
    """The user works to its TTL and a condition says why it is not renewed; the role applied again renews it."""
    name = guide.granted()
    guide.kubectl("delete", ROLE)
    eventually(lambda: guide.condition(REQUEST, "RoleDeleted"), timeout_s=30, what="RoleDeleted")
    guide.reported(REQUEST, "Warning", "PostgresRoleDeleted")
    assert guide.user_works(guide.secret(name))
    guide.apply(*guide.guide("postgresRole"))
    eventually(lambda: not guide.condition(REQUEST, "RoleDeleted"), timeout_s=30, what="the role known again")
    assert guide.status(REQUEST)["secret"] == {"name": name}


def test_success_and_failure_are_events(guide: Space) -> None:
    """``kubectl describe`` tells what went well, too."""
    guide.granted()
    guide.reported(ENGINE, "Normal", "Provisioned")
    guide.reported(ROLE, "Normal", "Provisioned")
    guide.reported(REQUEST, "Normal", "SuccessfullyIssuedCredential")
