"""Many DatabaseAccessRequests at once for one db_role, and what Kubernetes, Vault and PostgreSQL have of them.

Each test has a db_role of its own, so that what one test leaves behind is not counted in the next. The role's creation
statements draw from a sequence, which no rollback sets back: PostgreSQL itself counts the database users that were ever
begun, however short they lived.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg

from cli.kubectl_vault.deciding import Clock, decide
from cli.kubectl_vault.decisions import Decision, Verdict
from cli.kubectl_vault.resource import Named
from dev.stack.processes import Command
from dev.stack.stack import LocalStack
from tests.deciding import FastRequests, user_name
from tests.e2e.space import ENGINE, Space, space
from tests.eventually import eventually
from watcher.kube.client import HttpKubeClient, KubeError
from watcher.kube.connection import connect
from watcher.kube.resources import EVENT, SECRET, Body, Resource, controller_uid
from watcher.specs.kinds import ACCESS_REQUEST

HANDS = 6
"""Threads that make, approve and delete at once."""
LONG_S = 120.0
"""For what takes seconds here and may take far longer on a slow machine."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is of a crowd at one moment.

    Attributes:
        database_users: User name in the Secret of each request, by the request's name.
        versions: ``uid/resourceVersion`` of each Secret.
        leases: Lease id in the status of each request.
        made: How many users were begun in PostgreSQL since the role is there.
    """

    database_users: Mapping[str, str]
    versions: Mapping[str, str]
    leases: Mapping[str, str]
    made: int


@dataclass
class Crowd:
    """The requests for one role, all in one namespace.

    Attributes:
        space: Namespace and mount.
        role: Name of the PostgresRole; the requests' names begin with it.
    """

    space: Space
    role: str
    _count: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.api = HttpKubeClient(connect(str(self.space.stack.kubeconfig), pool_size=HANDS + 2))
        self._requests = FastRequests(self.api)
        self._approver = user_name(self.space.stack)

    def prepare(self, *, ttl: str = "1h", longest: str = "24h", statements: Sequence[str] = (), **spec: Any) -> None:
        """Make the role and wait until it is there.

        Args:
            ttl: Its defaultTTL.
            longest: Its maxTTL.
            statements: Creation statements beside the guide's.
            spec: More of the role's spec.
        """
        self.psql(f'CREATE SEQUENCE "{self._sequence}"')
        (role,) = self.space.guide("postgresRole")
        role["metadata"]["name"] = self.role
        made = [role["spec"]["creationStatements"][0], f"SELECT nextval('\"{self._sequence}\"');", *statements]
        role["spec"] |= {"creationStatements": made, "defaultTTL": ttl, "maxTTL": longest, **spec}
        self.space.apply(role)
        self.space.phase(f"postgresrole/{self.role}", "Success")

    @property
    def _sequence(self) -> str:
        return f"made-{self.space.name}-{self.role}"

    # -- what people do
    # ------------------------------------------------------------------------------------------------------------

    def names(self, count: int) -> list[str]:
        """Names for so many requests that were not used before."""
        self._count += count
        return [f"{self.role}-{number}" for number in range(self._count - count, self._count)]

    def create(self, name: str) -> Body:
        """Make a request."""
        (body,) = self.space.guide("postgresAccessRequest")
        body["metadata"]["name"] = name
        body["spec"]["roleRef"]["name"] = self.role
        return self.api.create(ACCESS_REQUEST, body, namespace=self.space.name)

    def approve(self, name: str) -> None:
        """Approve it as ``kubectl vault`` does, as soon as it shows what would be granted."""
        eventually(
            lambda: (self.get(name).get("status") or {}).get("digest"),
            timeout_s=LONG_S,
            every_s=0.05,
            what=f"the digest of {name}",
        )
        self.decide(name, Verdict.APPROVE)

    def decide(self, name: str, verdict: Verdict) -> None:
        """Write a decision as ``kubectl vault`` does."""
        clock = Clock(lambda: datetime.now(UTC), time.monotonic, time.sleep)
        decide(self._requests, Named(name, self.space.name), Decision(verdict, self._approver), clock=clock, wait_s=20)

    def ask(self, name: str) -> None:
        """Make a request and approve it."""
        self.create(name)
        self.approve(name)

    def delete(self, name: str, resource: Resource = ACCESS_REQUEST) -> None:
        """Delete a request, or something else of the namespace; it may be gone already."""
        try:
            self.api.delete(resource, namespace=self.space.name, name=name)
        except KubeError as err:
            if err.status != 404:
                raise

    def patch(self, name: str, body: Body, resource: Resource = ACCESS_REQUEST) -> None:
        """Change a request, or something else of the namespace, by a merge patch."""
        self.api.patch(resource, body, namespace=self.space.name, name=name)

    def granted(self, count: int) -> list[str]:
        """Make and approve so many requests and wait until each has its credential."""
        names = self.names(count)
        at_once(self.ask, names)
        eventually(lambda: self.all_well(names), timeout_s=LONG_S, what=f"a credential for each of {count}")
        return names

    def pass_by(self) -> str:
        """One more request gets its credential: the watcher has taken up all that changed before. Answers its name."""
        (name,) = self.names(1)
        self.ask(name)
        eventually(
            lambda: (self.get(name).get("status") or {}).get("secret"),
            timeout_s=LONG_S,
            what=f"the credential of {name}",
        )
        return name

    # -- what there is
    # -------------------------------------------------------------------------------------------------------------

    def get(self, name: str, resource: Resource = ACCESS_REQUEST) -> Body:
        """A request, or something else of the namespace; {} if there is none."""
        try:
            return self.api.get(resource, namespace=self.space.name, name=name)
        except KubeError as err:
            if err.status != 404:
                raise
            return {}

    def requests(self) -> dict[str, Body]:
        """The requests by name."""
        return {name: body for name, body in self._all(ACCESS_REQUEST) if body["spec"]["roleRef"]["name"] == self.role}

    def secrets(self) -> dict[str, Body]:
        """The Secrets that requests of this crowd control or controlled, by the Secret's name."""
        return {
            name: body for name, body in self._all(SECRET) if name.startswith(f"{self.role}-") and controller_uid(body)
        }

    def events(self, name: str) -> list[str]:
        """What the Events on a request say, each as ``Type Reason message``; it may be gone long since."""
        about = {name: body["involvedObject"] for name, body in self._all(EVENT)}
        mine = [body for key, body in self._all(EVENT) if about.get(key, {}).get("name") == name]
        return [
            f"{e['type']} {e['reason']} {e['message']}"
            for e in mine
            if e["involvedObject"]["kind"] == ACCESS_REQUEST.kind
        ]

    def _all(self, resource: Resource) -> list[tuple[str, Body]]:
        found: list[Body] = []
        token, more = "", True
        while more:
            page = self.api.page(resource, namespace=self.space.name, token=token)
            found += page.get("items") or []
            token = page["metadata"].get("continue", "")
            more = bool(token)
        return [(body["metadata"]["name"], body) for body in found]

    def leases(self) -> set[str]:
        """The leases that Vault has on this role."""
        path = f"{self.space.mount}/creds/k8s.-.{self.space.name}.{self.role}/"
        answer = self.space.stack.vault_api().call("LIST", f"sys/leases/lookup/{path}")
        assert answer.ok or answer.status == 404, answer.errors
        return {path + key for key in answer.body["data"]["keys"]} if answer.ok else set()

    def database_users(self) -> set[str]:
        """The roles in PostgreSQL that attempts of this crowd made, those that may log in and those that may not."""
        pattern = f"token-{self.space.name}-{self.role}-%"
        return {row[0] for row in self.psql(f"SELECT rolname FROM pg_roles WHERE rolname LIKE '{pattern}'")}  # noqa: S608

    def made(self) -> int:
        """How many users were begun since the role is there, dropped and rolled back ones as well."""
        ((last, called),) = self.psql(f'SELECT last_value, is_called FROM "{self._sequence}"')  # noqa: S608
        return int(last) if called else 0

    def psql(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL as the superuser; answers the rows."""
        with psycopg.connect(self.space.stack.postgres_url, autocommit=True) as connection:
            done = connection.execute(sql.encode())
            return done.fetchall() if done.description else []

    # -- what has to hold
    # ----------------------------------------------------------------------------------------------------------

    def all_well(self, names: Sequence[str], *, husks: bool = False) -> Seen:
        """Check that each request has one Secret, lease and user, the same everywhere, and no other.

        Args:
            names: All requests of the crowd.
            husks: Whether there may be leases beside, as after a SIGKILL in a read.

        Raises:
            AssertionError: It is not so (yet).
        """
        requests, secrets = (
            self.requests(),
            {body["metadata"]["ownerReferences"][0]["name"]: body for body in self.secrets().values()},
        )
        reported = {name: ((requests[name].get("status") or {}).get("lease") or {}).get("id", "") for name in requests}
        database_users = {name: base64.b64decode(secrets[name]["data"]["username"]).decode() for name in secrets}
        assert requests.keys() == set(names), requests.keys() ^ set(names)
        assert secrets.keys() == set(names), f"without Secret, or Secrets of others: {secrets.keys() ^ set(names)}"
        in_vault, in_postgres = self.leases(), self.database_users()
        lost, beside = set(reported.values()) - in_vault, in_vault - set(reported.values())
        assert not lost, f"{len(lost)} leases lost"
        assert husks or not beside, f"{len(beside)} leases too many"
        assert set(database_users.values()) == in_postgres, set(database_users.values()) ^ in_postgres
        assert len(set(reported.values())) == len(in_postgres) == len(names)
        versions = {
            name: "/".join((s["metadata"]["uid"], s["metadata"]["resourceVersion"])) for name, s in secrets.items()
        }
        return Seen(database_users, versions, reported, self.made())

    def nothing_left(self) -> bool:
        """Check that no request, Secret, lease or user is left.

        Raises:
            AssertionError: It is not so (yet).
        """
        left = {name: body.get("status") for name, body in self.requests().items()}
        assert left == {}
        assert self.secrets() == {}
        return self.none_alive()

    def none_alive(self) -> bool:
        """Check that no user and no lease is left.

        Raises:
            AssertionError: It is not so (yet).
        """
        assert (len(self.database_users()), len(self.leases())) == (0, 0), "users and leases"
        return True

    def works(self, name: str) -> bool:
        """Whether PostgreSQL lets in who has the Secret of a request."""
        body = next(s for s in self.secrets().values() if s["metadata"]["ownerReferences"][0]["name"] == name)
        return self.space.user_works({key: base64.b64decode(value).decode() for key, value in body["data"].items()})


def at_once(work: Callable[[str], Any], names: Iterable[str], *, hands: int = HANDS) -> None:
    """Do something with each name, several at a time; the first failure is raised."""
    with ThreadPoolExecutor(hands) as pool:
        for done in [pool.submit(work, name) for name in names]:
            done.result()


@contextmanager
def crowded(stack: LocalStack, name: str) -> Iterator[Space]:
    """A namespace with the guide's AppBinding and SecretEngine, and an overlap of a second."""
    with access_set(stack, ROTATION_OVERLAP="1s"), space(stack, name) as made:
        made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
        made.phase(ENGINE, "Success")
        yield made


def apart(made: Space, name: str, **postgres: Any) -> Space:
    """The same namespace with another mount, for which there is a SecretEngine of this name: to be changed or deleted.

    Args:
        made: The namespace.
        name: Name of the engine and last segment of the mount.
        postgres: More of the engine's ``spec.postgres``.
    """
    found = Space(made.stack, made.name, f"{made.mount}-{name}")
    (engine,) = found.guide("postgresSecretEngine")
    engine["metadata"]["name"] = name
    engine["spec"]["postgres"] |= postgres
    found.apply(engine)
    found.phase(f"secretengine/{name}", "Success")
    return found


@contextmanager
def access_set(stack: LocalStack, **options: str) -> Iterator[None]:
    """The access service with other options than the stack's, whoever starts it meanwhile."""
    service = stack.process("access")
    usual = service._command
    more = {f"LEASEGATE_ACCESS_{name}": value for name, value in options.items()}

    def command() -> Command:
        made = usual()
        return replace(made, env={**(made.env or {}), **more})

    service._command = command
    try:
        restart(stack, "access")
        yield
    finally:
        service._command = usual
        restart(stack, "access")


def restart(stack: LocalStack, *names: str) -> None:
    """End processes in an orderly way and start them again."""
    for name in names:
        stack.process(name).terminate()
    for name in names:
        stack.process(name).start()
    for name in names:
        stack.process(name).wait_ready()
