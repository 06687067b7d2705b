"""The steps of the guide, each one an act and an observation that has to follow.

An act runs once. The observation is repeated until a deadline, because the system converges; this lets the tests kill a
process in the middle of any step and demand the same result. The steps use the stack as its users do: by kubectl,
kubectl vault, vault and a PostgreSQL client.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import psycopg

from dev.demo.console import Command, differences, guide_commands

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = "docs/examples/guides/secret-engines/postgres"
REQUEST = "postgres-cred-rqst"
READER = "system:serviceaccount:demo:demo-sa"
OTHER = "system:serviceaccount:demo:default"


class Stack(Protocol):
    """What the steps need of the local stack."""

    @property
    def postgres_url(self) -> str:
        """URL of the superuser."""

    def environment(self) -> dict[str, str]:
        """PATH, KUBECONFIG, VAULT_ADDR, VAULT_TOKEN and VAULT_CACERT as ``make up`` prints them."""

    def enabled_namespace(self, namespace: str) -> Path:
        """The manifest that enables a namespace, with the AppBinding and Services of the local stack."""


class NotSeenError(AssertionError):
    """A step's observation was not made before its deadline."""


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs shell commands as somebody who follows the guide does."""

    stack: Stack

    def run(self, line: str) -> tuple[int, str]:
        """Run one line in the repository's folder.

        Returns:
            Exit code, and what was printed: to both streams if it failed, else to the standard output.
        """
        done = subprocess.run(  # noqa: S602 - the guide's own command lines
            line,
            shell=True,
            cwd=REPOSITORY,
            env=self.stack.environment(),
            text=True,
            capture_output=True,
            timeout=120,
        )
        return done.returncode, (done.stdout + (done.stderr if done.returncode else "")).rstrip()

    def ok(self, line: str) -> str:
        """Run one line that must succeed, and return what it printed."""
        code, text = self.run(line)
        if code:
            raise NotSeenError(f"$ {line}\nexit code {code}: {text}")
        return text

    def refused(self, line: str, *words: str) -> str:
        """Run one line that must fail with these words in its message, and return the message."""
        code, text = self.run(line)
        if code == 0 or not all(word in text for word in words):
            raise NotSeenError(f"$ {line}\na refusal with {words} is expected, exit code {code}: {text}")
        return text


@dataclass(slots=True)
class Seen:
    """What earlier steps observed. Passwords are kept here alone, and in no repr."""

    secret: str = ""
    username: str = ""
    passwords: list[str] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: an act, and the observation that has to follow.

    Attributes:
        title: What the reader of the demo sees.
        act: Done once; returns what it printed.
        see: Asked until it returns what was seen without NotSeenError.
    """

    title: str
    act: Callable[[], str]
    see: Callable[[], str]

    def run(self, *, timeout_s: float = 60) -> str:
        """Act, then wait for the observation.

        Raises:
            NotSeenError: It was not seen within ``timeout_s`` seconds.
        """
        return self.wait(self.act(), timeout_s=timeout_s)

    def wait(self, printed: str = "", *, timeout_s: float = 60) -> str:
        """Wait for the observation; ``printed`` is put before it."""
        end, pause = time.monotonic() + timeout_s, Event()
        while True:
            try:
                return "\n".join(text for text in (printed, self.see()) if text)
            except NotSeenError:
                if time.monotonic() > end:
                    raise
                pause.wait(0.2)


class Story:
    """The guide in its order, with what its text promises."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.shell = Shell(stack)
        self.seen = Seen()
        self._commands = guide_commands()

    # Observations.

    def database_users(self) -> list[str]:
        """Database users in PostgreSQL that Vault made, by name."""
        with psycopg.connect(self.stack.postgres_url) as connection:
            rows = connection.execute(
                "select rolname from pg_roles where rolname ~ '^(token|v)-' order by 1"
            ).fetchall()
        return [row[0] for row in rows]

    def status(self) -> dict[str, Any]:
        """The request's status as it is now."""
        found: dict[str, Any] = json.loads(
            self.shell.ok(f"kubectl get databaseaccessrequest -n demo {REQUEST} -o json")
        ).get("status", {})
        return found

    def _no_user(self) -> str:
        if left := self.database_users():
            raise NotSeenError(f"users are left in PostgreSQL: {left}")
        return "PostgreSQL has no user that Vault created"

    def _no_secret(self) -> str:
        names = self.shell.ok("kubectl get secrets,roles,rolebindings -n demo -o name").splitlines()
        if found := [name for name in names if REQUEST in name]:
            raise NotSeenError(f"there is still {found}")
        return "no Secret, Role or RoleBinding of the access request"

    def connect(self, password: str) -> str:
        """Log in to PostgreSQL with the issued credential and read a table.

        Raises:
            NotSeenError: PostgreSQL refuses.
        """
        try:
            with psycopg.connect(
                self.stack.postgres_url, user=self.seen.username, password=password, connect_timeout=5
            ) as connection:
                row = connection.execute("select current_user, count(*) from films").fetchone()
        except psycopg.OperationalError as err:
            raise NotSeenError(f"PostgreSQL refuses {self.seen.username}: {str(err).splitlines()[-1]}") from err
        return f"psql: current_user, count = {row}"

    # Steps.

    def _guide(self, number: int) -> Step:
        command = self._commands[number]
        if command.reads:
            return Step(f"$ {command.line}", lambda: "", lambda: self._reads(command))
        return Step(f"$ {command.line}", lambda: self._acts(command), lambda: "")

    def _guides(self, first: int, last: int) -> list[Step]:
        return [self._guide(number) for number in range(first, last + 1)]

    def _reads(self, command: Command) -> str:
        line = command.line.replace(f"{REQUEST}-pmq5gp", self.seen.secret or f"{REQUEST}-pmq5gp")
        _, text = self.shell.run(line)
        if missing := differences(command, text):
            raise NotSeenError(f"$ {line}\n{text}\n" + "\n".join(missing))
        return _short(text)

    def _acts(self, command: Command) -> str:
        _, text = self.shell.run(command.line)
        if missing := differences(command, text):
            raise NotSeenError(f"$ {command.line}\n{text}\n" + "\n".join(missing))
        return text

    def steps(self) -> list[Step]:
        """All steps in their order. The numbers are those of the guide's commands."""
        return [
            self._guide(0),
            self._serve(),
            *self._guides(1, 15),
            *self._waiting(),
            *self._guides(16, 18),
            *self._granted(),
            self._guide(20),
            *self._deleted(),
            *self._denied(),
            *self._cleared(),
        ]

    def _serve(self) -> Step:
        def act() -> str:
            return self.shell.ok(f"kubectl apply -n demo -f '{self.stack.enabled_namespace('demo')}'")

        return Step(
            "$ kubectl apply -n demo -f FILE (the enabled-namespace manifest: the one command beside the guide)",
            act,
            lambda: "",
        )

    def _waiting(self) -> list[Step]:
        approve = f"kubectl vault approve databaseaccessrequest {REQUEST} -n demo"
        apply_role = f"kubectl apply -f {EXAMPLES}/postgresRole.yaml"

        def offered() -> str:
            status = self.status()
            if status.get("phase") != "WaitingForApproval" or not status.get("digest"):
                raise NotSeenError(f"the access request does not wait for approval: {status}")
            return f"phase {status['phase']}, digest of the grant {status['digest'][:16]}..."

        def nothing() -> str:
            return f"{self._no_secret()}; {self._no_user()}"

        return [
            Step(
                "The guide has deleted the PostgresRole: an approval without one is refused",
                lambda: self.shell.refused(approve),
                lambda: "",
            ),
            Step(f"$ {apply_role} (again)", lambda: self.shell.ok(apply_role), lambda: self._reads(self._commands[10])),
            Step(
                "The access request waits for approval, with the digest of what would be granted", lambda: "", offered
            ),
            Step("Nothing is issued before the approval", lambda: "", nothing),
            Step(
                "A user without the right to approve is refused",
                lambda: self.shell.refused(f"{approve} --as carol", "carol"),
                nothing,
            ),
        ]

    def _granted(self) -> list[Step]:
        def secret() -> str:
            self.seen.secret = self.status().get("secret", {}).get("name", "")
            if not self.seen.secret:
                raise NotSeenError("the status names no Secret")
            return self._reads(self._commands[19])

        def read() -> str:
            data = json.loads(self.shell.ok(f"kubectl get secret -n demo {self.seen.secret} -o json --as {READER}"))[
                "data"
            ]
            self.seen.username, password = decoded(data["username"]), decoded(data["password"])
            self.seen.passwords.append(password)
            return f"{READER} reads it; {self.connect(password)}"

        def others() -> str:
            return self.shell.refused(f"kubectl get secret -n demo {self.seen.secret} --as {OTHER}", "Forbidden", OTHER)

        def frozen() -> str:
            patch = json.dumps({"spec": {"subjects": [{"kind": "User", "name": "eve"}]}})
            line = f"kubectl patch databaseaccessrequest -n demo {REQUEST} --type merge -p '{patch}'"
            return self.shell.refused(line, "once a request is approved or denied")

        return [
            Step("$ kubectl get secret -n demo NAME -o yaml", lambda: "", secret),
            Step("The named subject reads the Secret, and PostgreSQL accepts the credential", lambda: "", read),
            Step("Another ServiceAccount is refused the Secret", lambda: "", others),
            Step("The spec of a decided access request cannot be changed", frozen, lambda: ""),
        ]

    def _deleted(self) -> list[Step]:
        def refused() -> str:
            try:
                self.connect(self.seen.passwords[-1])
            except NotSeenError as err:
                return str(err)
            raise NotSeenError("the credential still works")

        def gone() -> str:
            return f"{self._no_secret()}; {self._no_user()}; {refused()}"

        deny = self._commands[21].line
        return [
            Step("PostgreSQL refuses the credential after the delete, and nothing is left of it", lambda: "", gone),
            Step(
                f"$ {deny} (the guide has deleted the access request)",
                lambda: self.shell.refused(deny, "there is no databaseaccessrequest"),
                lambda: "",
            ),
        ]

    def _denied(self) -> list[Step]:
        apply_request = f"kubectl apply -f {EXAMPLES}/postgresAccessRequest.yaml"

        def denied() -> str:
            status = self.status()
            if status.get("phase") != "Denied" or status.get("lease") or status.get("secret"):
                raise NotSeenError(f"the access request is not denied: {status}")
            return f"phase Denied; {self._no_secret()}; {self._no_user()}"

        approve = f"kubectl vault approve databaseaccessrequest {REQUEST} -n demo"
        return [
            Step(
                f"$ {apply_request} (again)",
                lambda: self.shell.ok(apply_request),
                lambda: self._reads(self._commands[15]),
            ),
            self._guide(21),
            Step("Nothing is issued on a denial", lambda: "", denied),
            Step("A denial is final", lambda: self.shell.refused(approve, "denied"), denied),
        ]

    def _cleared(self) -> list[Step]:
        def unmounted() -> str:
            code, text = self.shell.run("vault read sys/mounts/my-postgres-se")
            if code == 0:
                raise NotSeenError("the mount my-postgres-se is still there")
            return f"vault: {text.splitlines()[-1].strip() if text else 'no such mount'}"

        def namespace_gone() -> str:
            code, text = self.shell.run("kubectl get namespace demo")
            if code == 0 or "NotFound" not in text:
                raise NotSeenError(text)
            return f"{text}; {unmounted()}; {self._no_user()}"

        clear = "kubectl delete namespace demo --wait=false"
        return [Step(f"$ {clear} (with everything in it)", lambda: self.shell.ok(clear), namespace_gone)]


def _short(text: str, lines: int = 40) -> str:
    rows = [row if len(row) < 180 else row[:177] + "..." for row in text.splitlines()]
    return "\n".join(rows[:lines] + (["..."] if len(rows) > lines else []))


def decoded(value: str) -> str:
    """Decode a value of a Secret."""
    return base64.b64decode(value).decode()
