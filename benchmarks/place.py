"""Where it is measured: a local stack, one namespace with the guide's objects, and raw Vault beside it."""

from __future__ import annotations

import base64
import json
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml

from benchmarks.database_users import DatabaseUsers
from benchmarks.http import Server
from benchmarks.namespace import Namespace
from benchmarks.raw import Raw
from benchmarks.settled import Settled
from benchmarks.waiting import until
from deploy.vault.api import VaultApi
from dev.stack.films_role import TARGET
from dev.stack.install import FAST_RBAC
from dev.stack.stack import LocalStack
from services.common.config import ClientTls
from services.common.rpc.channel import connect

MEMBER, GUIDE, GRPC = "member", "guide", "held"
"""Roles: by group membership, with the guide's SQL, and by group membership for callers over gRPC."""

_GROUP = "benchmark_readers"
_CREATE = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
SQL = {
    # A GRANT on all tables rewrites each table's access list, which grows with every user, so that it slows as users
    # grow.
    MEMBER: [_CREATE, f'GRANT {_GROUP} TO "{{{{name}}}}";'],
    GUIDE: [_CREATE, 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";'],
}
_EXAMPLES = Path(__file__).parents[1] / "docs/examples/guides/secret-engines/postgres"


@dataclass(frozen=True, slots=True)
class Place:
    """All that a measure uses.

    Attributes:
        stack: The servers.
        space: The namespace.
        raw: Raw Vault.
        vault: Vault as an administrator.
        database_users: PostgreSQL as its superuser.
        mount: Path of our mount.
        settled: Tells when all that was begun is done.
    """

    stack: LocalStack
    space: Namespace
    raw: Raw
    vault: Server
    database_users: DatabaseUsers
    mount: str
    settled: Settled

    def usernames(self) -> dict[str, str]:
        """The database user of each request, by its name."""
        found = {}
        for item in self.space.kube.call("GET", f"/api/v1/namespaces/{self.space.name}/secrets")["items"]:
            for owner in item["metadata"].get("ownerReferences") or []:
                found[str(owner["name"])] = base64.b64decode(item["data"]["username"]).decode()
        return found

    def leases(self, role: str) -> set[str]:
        """The leases that Vault has of one of our roles."""
        full = _vault_role(self.space.name, role)
        api = VaultApi(self.stack.vault_addr, ca=self.stack.vault_ca, token=self.stack.vault_root_token)
        answer = api.call("LIST", f"sys/leases/lookup/{self.mount}/creds/{full}")
        return set(answer.body["data"]["keys"]) if answer.ok else set()

    def channel(self, client: str) -> grpc.Channel:
        """A channel to access as one of the stack's clients."""
        cert, key, ca = self.stack.client_cert(client)
        return connect(self.stack.addresses["access"], tls=ClientTls(cert, key, ca))


@contextmanager
def place(*, ttl_s: int, fast_rbac: bool = False) -> Iterator[Place]:
    """Start everything; at the end the namespace is removed and everything is stopped.

    Args:
        ttl_s: First TTL of the leases.
        fast_rbac: Whether the watcher has the verbs ``escalate`` and ``bind`` (docs/adr/0052-fast-rbac-opt-in.md).
    """
    with (
        tempfile.TemporaryDirectory(prefix="leasegate-bench-") as folder,
        LocalStack.start(Path(folder) / "stack", say=print) as stack,
    ):
        if fast_rbac:
            stack.kubectl("apply", "-f", str(FAST_RBAC))
        made = _describe(stack, f"bench-{secrets.token_hex(3)}")
        _make(made, ttl_s=ttl_s)
        try:
            yield made
        finally:
            made.database_users.close()
            stack.kubectl("delete", "namespace", made.space.name, "--wait=false", check=False)


def _describe(stack: LocalStack, name: str) -> Place:
    config = yaml.safe_load(stack.kubeconfig.read_text())
    token = next(user["user"]["token"] for user in config["users"] if user["name"] == "admin")
    ca = stack.directory / "bench-kube-ca.crt"
    ca.write_bytes(base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
    kube = Server(config["clusters"][0]["cluster"]["server"], ca=ca, headers=headers)
    vault = Server(stack.vault_addr, ca=stack.vault_ca, headers={"X-Vault-Token": stack.vault_root_token})
    settled = Settled(stack)
    return Place(
        stack=stack,
        space=Namespace(kube, name, user="admin", prepared=settled.wait_prepared),
        raw=Raw(vault, f"raw/{name}"),
        vault=vault,
        database_users=DatabaseUsers(stack.postgres_url),
        mount=f"team/{name}",
        settled=settled,
    )


def _make(made: Place, *, ttl_s: int) -> None:
    made.database_users.execute(
        f"CREATE ROLE {_GROUP} NOLOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {_GROUP}"
    )
    made.stack.kubectl("create", "namespace", made.space.name)
    made.stack.kubectl("-n", made.space.name, "apply", "-f", str(made.stack.enabled_namespace(made.space.name)))
    for item in _objects(made, ttl_s=ttl_s):
        made.stack.kubectl("-n", made.space.name, "apply", "-f", "-", input=json.dumps(item))
    until(lambda: _ready(made), timeout_s=60, what="engine and roles", every_s=0.2)
    connection = made.vault.call("GET", f"/v1/{made.mount}/config/k8s.-.{made.space.name}.postgres-app")["data"]
    details = connection.pop("connection_details")
    definition = {"default_ttl": ttl_s, "max_ttl": "24h"}
    roles = {name: {**definition, "creation_statements": sql} for name, sql in SQL.items()}
    made.raw.set_up({**connection, **details, "password": "root", "password_authentication": ""}, roles)
    _catalog(made, {**definition, "creation_statements": SQL[MEMBER], "revocation_statements": []})


def _objects(made: Place, *, ttl_s: int) -> Iterator[dict[str, Any]]:
    for file in ("postgres-app", "postgresSecretEngine", "postgresRole"):
        text = (_EXAMPLES / f"{file}.yaml").read_text().replace("namespace: demo", f"namespace: {made.space.name}")
        for item in yaml.safe_load_all(text.replace("my-postgres-se", made.mount)):
            if item["kind"] != "PostgresRole":
                yield item
                continue
            for name, sql in SQL.items():
                spec = {**item["spec"], "creationStatements": sql, "defaultTTL": f"{ttl_s}s"}
                yield {**item, "metadata": {**item["metadata"], "name": name}, "spec": spec}


def _ready(made: Place) -> bool:
    base = f"/apis/engine.kubevault.com/v1alpha1/namespaces/{made.space.name}"
    found = [
        item
        for plural in ("secretengines", "postgresroles")
        for item in made.space.kube.call("GET", f"{base}/{plural}")["items"]
    ]
    return all((item.get("status") or {}).get("phase") == "Success" for item in found)


def _catalog(made: Place, definition: dict[str, Any]) -> None:
    """Writes a role for callers over gRPC into Vault and into the catalog file, as an operator would.

    Its name is of the namespace whose connection it uses: Vault's allowed_roles refuses others.
    """
    role = {**definition, "db_name": f"k8s.-.{made.space.name}.postgres-app"}
    name = _vault_role(made.space.name, GRPC)
    made.vault.call("POST", f"/v1/{made.mount}/roles/{name}", role)
    file = made.stack.directory / "services" / "catalog.yaml"
    catalog = json.loads(file.read_text())
    spans = {"default_ttl": f"{definition['default_ttl']}s"}
    catalog["roles"].append({"name": GRPC, "target": TARGET, "mount": made.mount, "vault_role": name, **role, **spans})
    file.write_text(json.dumps(catalog))
    restart(made.stack, "access")


def _vault_role(namespace: str, name: str) -> str:
    return f"k8s.-.{namespace}.{name}"


def restart(stack: LocalStack, *names: str) -> None:
    """Stop processes, start them again and wait until they are ready."""
    for name in names:
        stack.process(name).terminate()
    for name in names:
        stack.process(name).start()
    for name in names:
        stack.process(name).wait_ready()
    stack.process("watcher").wait_ready()
