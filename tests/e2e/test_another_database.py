"""Attack H2 of the threat model: an approval, and then another database behind the role's names, on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, REQUEST, Space, space
from tests.eventually import eventually
from watcher.delivery.manifests import secret_name

PRODUCTION = "production_h2"


@pytest.fixture
def pointed(stack: LocalStack) -> Iterator[Space]:
    stack.psql(f"CREATE DATABASE {PRODUCTION}")
    with space(stack, "pointed", at_once=True) as made:
        made.apply(*made.guide())
        yield made
        point_at(made, "postgres")
        eventually(lambda: made.status(ENGINE)["database"].endswith("/postgres"), timeout_s=30)
    stack.psql(f"DROP DATABASE {PRODUCTION} WITH (FORCE)")


def point_at(made: Space, database: str) -> None:
    made.patch("appbinding/postgres-app", {"spec": {"clientConfig": {"service": {"path": database}}}})


def is_pending(made: Space, *, database: str) -> str:
    """Wait until the request waits for an approval of another database; answers the digest."""

    def pending() -> str:
        status = made.status(REQUEST)
        assert status.get("phase") == "WaitingForApproval", status
        assert status.get("grant", {}).get("database", "").endswith(f"/{database}"), status
        return str(status["digest"])

    return eventually(pending, timeout_s=60, what=f"a pending request for {database}")


def test_h2_an_approval_is_not_for_another_database(pointed: Space) -> None:
    """Take the Secret's computable name, get approved, point the AppBinding elsewhere, free the name."""
    approved = is_pending(pointed, database="postgres")
    name = secret_name(pointed.get(REQUEST))
    pointed.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"taken": "yes"}})
    pointed.decide("approve")
    eventually(lambda: pointed.condition(REQUEST, "Ready").get("reason") == "FailedToCreateSecret", timeout_s=30)
    point_at(pointed, PRODUCTION)
    assert is_pending(pointed, database=PRODUCTION) != approved
    pointed.kubectl("delete", "secret", name)
    eventually(lambda: pointed.condition(REQUEST, "ApprovalStale").get("reason") == "GrantChanged", timeout_s=30)
    pointed.annotate(REQUEST, "look=again")
    assert is_pending(pointed, database=PRODUCTION) != approved
    assert (pointed.database_users(), pointed.secret(name)) == ([], {})
    pointed.granted()  # who approves now has seen which database it is
    assert pointed.user_works(pointed.secret(name))
    pointed.kubectl("delete", REQUEST)
