"""Real servers for the integration tests: OpenBao (raft, TLS) and PostgreSQL 18, with Leasegate's policies, in seconds.

There is no Kubernetes here; dev.stack.stack has it. The servers end with the context manager.

VAULT_BINARY names another server's program to start (``make test-vault``). ``LEASEGATE_TEST_VAULT_ADDR`` with
``LEASEGATE_TEST_VAULT_TOKEN`` and ``LEASEGATE_TEST_VAULT_CACERT`` names a Vault that runs already: the tests write
policies and mounts there, and skip what seals or stops a server. VAULT_ADDR is not read, as it may name one in use.
``LEASEGATE_TEST_POSTGRES_URL`` names a PostgreSQL that this Vault reaches, with the superuser ``postgres`` and the
password ``root``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

import psycopg
import pytest

from deploy.vault.api import VaultApi
from deploy.vault.policies import Mounts
from deploy.vault.setup import Setup
from dev.stack import bao, postgres
from dev.stack.bao import Bao
from dev.stack.ports import Ports
from dev.stack.postgres import Postgres
from tests.canary import CANARY

# A prefix is a whole segment and allows "team/orders": within one, as in "team-*", a policy cannot be limited to part
# of a mount.
DEFAULT_MOUNTS = Mounts(("my-postgres-se", "database", "team-a", "team-b", "team-c"), ("team/",))


@dataclass(frozen=True, slots=True)
class Servers:
    """What runs, and how to reach it. ``bao`` and ``postgres`` can be killed, started, sealed (dev.stack)."""

    bao: Bao
    postgres: Postgres
    vault_addr: str
    vault_ca: Path
    root_token: str = field(repr=False)
    postgres_host: str
    postgres_port: int
    postgres_url: str = field(repr=False)

    def vault(self, method: str, path: str, token: str | None = None, **body: Any) -> tuple[int, dict[str, Any]]:
        """Call Vault below ``/v1/``, as root unless a token is given; returns HTTP status and body, which may be {}."""
        answer = VaultApi(self.vault_addr, ca=self.vault_ca, token=token or self.root_token).call(
            method, path, body or None
        )
        return answer.status, answer.body

    def must(self, method: str, path: str, token: str | None = None, **body: Any) -> dict[str, Any]:
        """As ``vault``, for calls that have to succeed; answers the body."""
        status, answer = self.vault(method, path, token, **body)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    def allow_mounts(self, *paths: str, prefixes: tuple[str, ...] = ("team/",)) -> None:
        """Render the four policies again for these mounts besides the default ones."""
        mounts = Mounts((*DEFAULT_MOUNTS.paths, *paths), prefixes)
        for _ in Setup(VaultApi(self.vault_addr, ca=self.vault_ca, token=self.root_token)).policies(mounts):
            pass

    def token_with(self, *policies: str, ttl: str = "1h") -> str:
        """A token with just these policies, as Kubernetes auth would give it (no default policy)."""
        body = self.must("POST", "auth/token/create-orphan", policies=list(policies), no_default_policy=True, ttl=ttl)
        return str(body["auth"]["client_token"])

    def team_token(self, *policies: str, ttl: str = "24h") -> str:
        """A token with Vault's policy ``default``, as a team proves itself by, and with more policies if wanted."""
        body = self.must("POST", "auth/token/create-orphan", policies=["default", *policies], ttl=ttl)
        return str(body["auth"]["client_token"])

    def psql(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL as the superuser; answers the rows."""
        with psycopg.connect(self.postgres_url, autocommit=True) as connection:
            done = connection.execute(sql.encode())
            return done.fetchall() if done.description else []


@contextmanager
def real_servers(*, set_up: bool = True) -> Iterator[Servers]:
    """Start both servers, or use those that the environment names.

    Args:
        set_up: Whether to write everything that ``python -m deploy.vault`` writes, except Kubernetes auth.
    """
    if address := os.environ.get("LEASEGATE_TEST_VAULT_ADDR"):
        with _named_servers(address) as servers:
            if set_up:
                servers.allow_mounts()
            yield servers
        return
    directory = Path(tempfile.mkdtemp(prefix="leasegate-servers-"))
    ports = Ports()
    ports.reserve((*bao.PORTS, *postgres.PORTS))
    vault, database = Bao(directory, ports=ports), Postgres(directory, ports=ports)
    audit = directory / "audit.jsonl"
    try:
        database.prepare()
        database.process.start()
        vault.prepare()
        vault.start()
        database.start()
        servers = _servers(vault, database)
        servers.must("POST", "sys/audit/canary", type="file", options={"file_path": str(audit), "log_raw": "true"})
        if set_up:
            servers.allow_mounts()
        yield servers
    finally:
        ports.close()
        vault.process.kill()
        database.process.terminate()
        database.remove()
        CANARY.collect(audit)
        shutil.rmtree(directory)


class _NotOurs:
    """In place of a server that somebody else runs: a test that would seal or stop it is skipped."""

    def __getattr__(self, name: str) -> NoReturn:
        pytest.skip(f"{name}: a server that the environment names is not sealed or stopped")


@contextmanager
def _named_servers(address: str) -> Iterator[Servers]:
    directory = Path(tempfile.mkdtemp(prefix="leasegate-servers-"))
    ports = Ports()
    ports.reserve(postgres.PORTS)
    own, url = None, os.environ.get("LEASEGATE_TEST_POSTGRES_URL", "")
    try:
        if not url:
            own = Postgres(directory, ports=ports)
            own.prepare()
            own.process.start()
            own.start()
            url = own.url
        database = urlsplit(url)
        yield Servers(
            bao=cast("Bao", _NotOurs()),
            postgres=own or cast("Postgres", _NotOurs()),
            vault_addr=address,
            vault_ca=Path(os.environ["LEASEGATE_TEST_VAULT_CACERT"]),
            root_token=os.environ["LEASEGATE_TEST_VAULT_TOKEN"],
            postgres_host=database.hostname or "127.0.0.1",
            postgres_port=database.port or 5432,
            postgres_url=url,
        )
    finally:
        ports.close()
        if own:
            own.process.terminate()
            own.remove()
        shutil.rmtree(directory)


def _servers(vault: Bao, database: Postgres) -> Servers:
    return Servers(
        bao=vault,
        postgres=database,
        vault_addr=vault.address,
        vault_ca=vault.ca,
        root_token=vault.root_token,
        postgres_host=database.host,
        postgres_port=database.port,
        postgres_url=database.url,
    )
