"""One enabled namespace with the guide's objects in it, as the tests of single promises use it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
import yaml

from dev.demo.story import EXAMPLES, REPOSITORY
from dev.stack.stack import LocalStack
from tests.eventually import eventually

ENGINE, ROLE, REQUEST = (
    "secretengine/postgresql-engine",
    "postgresrole/psql-role",
    "databaseaccessrequest/postgres-cred-rqst",
)
FILES = ("postgres-app", "postgresSecretEngine", "postgresRole", "postgresAccessRequest")


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace and a mount of its own.

    Attributes:
        stack: Where it is.
        name: Name of the namespace.
        mount: Path of the mount.
    """

    stack: LocalStack
    name: str
    mount: str

    def kubectl(self, *args: str, **options: Any) -> str:
        """Run kubectl in the namespace; answers what it printed."""
        return self.stack.kubectl("-n", self.name, *args, **options).stdout

    def serve(self) -> None:
        """Apply the enabled-namespace manifest."""
        self.kubectl("apply", "-f", str(self.stack.enabled_namespace(self.name)))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        for item in objects:
            self.kubectl("apply", "-f", "-", input=json.dumps(item))

    def guide(self, *files: str) -> list[dict[str, Any]]:
        """The guide's objects, moved to this namespace and mount; all four files if none is named."""
        found: list[dict[str, Any]] = []
        for file in files or FILES:
            text = (REPOSITORY / EXAMPLES / f"{file}.yaml").read_text(encoding="utf-8")
            found += yaml.safe_load_all(
                text.replace("namespace: demo", f"namespace: {self.name}").replace("my-postgres-se", self.mount)
            )
        return found

    def get(self, name: str) -> dict[str, Any]:
        """An object; {} if there is none."""
        found = self.stack.kubectl("-n", self.name, "get", name, "-o", "json", check=False)
        return dict(json.loads(found.stdout)) if found.returncode == 0 else {}

    def status(self, name: str) -> dict[str, Any]:
        """The status of an object."""
        return dict(self.get(name).get("status") or {})

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """A condition of an object; {} if it has none of this type."""
        return next((c for c in self.status(name).get("conditions") or [] if c["type"] == kind), {})

    def phase(self, name: str, wanted: str, *, timeout_s: float = 60) -> None:
        """Wait for a phase."""

        def reached() -> bool:
            status = self.status(name)
            assert status.get("phase") == wanted, status
            return True

        eventually(reached, timeout_s=timeout_s, what=f"{name} {wanted}")

    def patch(self, name: str, patch: Any, kind: str = "merge") -> None:
        """Patch an object."""
        self.kubectl("patch", name, f"--type={kind}", f"--patch={json.dumps(patch)}")

    def annotate(self, name: str, *pairs: str) -> None:
        """Set annotations."""
        self.kubectl("annotate", "--overwrite", name, *pairs)

    def events(self, name: str) -> list[str]:
        """What the Events on an object say, each as ``Type Reason message``."""
        kind, _, plain = name.partition("/")
        found = json.loads(
            self.kubectl("get", "events", "-o", "json", f"--field-selector=involvedObject.name={plain}")
        )["items"]
        return [
            f"{e['type']} {e['reason']} {e['message']}" for e in found if e["involvedObject"]["kind"].lower() == kind
        ]

    def reported(self, name: str, *words: str) -> str:
        """Wait for an Event on an object that holds all words."""

        def found() -> str:
            events = self.events(name)
            hits = [event for event in events if all(word in event for word in words)]
            assert hits, events
            return hits[0]

        return eventually(found, timeout_s=30, what=f"an Event on {name} with {words}")

    def decide(self, verb: str, name: str = "postgres-cred-rqst") -> str:
        """``kubectl vault approve`` or ``deny``; answers what it printed."""
        done = self.vault_command(verb, "databaseaccessrequest", name)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def vault_command(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run ``kubectl vault`` in the namespace."""
        command = ["kubectl", "vault", *args, "-n", self.name]
        return subprocess.run(
            command, env=self.stack.environment(), capture_output=True, text=True, check=False, timeout=60
        )

    def granted(self, name: str = "postgres-cred-rqst") -> str:
        """Approve a request and wait for its Secret, whose name is returned."""
        full = f"databaseaccessrequest/{name}"
        eventually(lambda: self.status(full).get("digest"), timeout_s=60, what="the digest of the request")
        self.decide("approve", name)
        return self.secret_name(name)

    def secret_name(self, name: str = "postgres-cred-rqst") -> str:
        """Wait until the status of a request names its Secret."""
        found = (
            eventually(
                lambda: self.status(f"databaseaccessrequest/{name}").get("secret"), timeout_s=60, what="the Secret"
            )
            or {}
        )
        return str(found["name"])

    def secret(self, name: str) -> dict[str, str]:
        """The decoded values of a Secret."""
        return {
            key: base64.b64decode(value).decode()
            for key, value in (self.get(f"secret/{name}").get("data") or {}).items()
        }

    def user_works(self, data: dict[str, str]) -> bool:
        """Whether PostgreSQL lets a username and password in."""
        url = urlsplit(self.stack.postgres_url)
        try:
            psycopg.connect(
                host=url.hostname, port=url.port, dbname="postgres", user=data["username"], password=data["password"]
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def database_users(self) -> list[str]:
        """Names of the users in PostgreSQL that Vault made for this namespace."""
        return [
            name
            for name in self.stack.psql("select rolname from pg_roles order by 1").splitlines()
            if f"-{self.name}-" in name
        ]

    def described(self) -> str | None:
        """Description of the mount; None where nothing is mounted."""
        answer = self.stack.vault_api().call("GET", f"sys/mounts/{self.mount}")
        return str(answer.body["data"]["description"]) if answer.ok else None


@contextmanager
def space(stack: LocalStack, name: str, *, serve: bool = True, at_once: bool = False) -> Iterator[Space]:
    """A namespace for one test; at the end it is deleted, and nothing may be left of it.

    With ``at_once`` the test does not wait for the namespace itself, only for Leasegate's objects in it: Kubernetes
    takes some ten seconds for a namespace.
    """
    made = Space(stack, name, f"team/{name}")
    stack.kubectl("create", "namespace", name)
    if serve:
        made.serve()
    yield made
    if at_once:
        for kinds in ("databaseaccessrequests", "postgresroles", "secretengines", "appbindings"):
            stack.kubectl("-n", name, "delete", kinds, "--all", "--wait=false")
            eventually(
                lambda kinds=kinds: not stack.kubectl("-n", name, "get", kinds, "-o", "name").stdout,  # type: ignore[misc]
                timeout_s=300,
                what=f"no {kinds} in {name}",
            )
    stack.kubectl("delete", "namespace", name, *(["--wait=false"] if at_once else ["--timeout=90s"]))
    eventually(lambda: not made.database_users(), timeout_s=30, what="every user dropped")
