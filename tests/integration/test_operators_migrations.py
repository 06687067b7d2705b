"""Ledgers of every version, with rows in every table, are migrated; a migration that fails changes nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import Connection

from services.access.domain.models import Approval, AttemptState, CleanupRoleState, DropBy, Origin, Priority
from services.access.ledger.db import migrate, schema
from services.access.ledger.db.database import open_ledger
from services.access.ledger.inspect import checks
from services.common.config import StartupRefusedError

Rows = dict[str, list[dict[str, Any]]]
# What stands for a value in a column of a kind that is stored as a word or number; a new kind of column needs a line
# here.
_WORDS = {
    "origin": Origin.GRPC,
    "approval": Approval.PENDING,
    "kind": Approval.APPROVED,
    "priority": Priority.ISSUE,
    "drop_by": DropBy.TEAM,
}
_STATES = {"attempts": AttemptState.PENDING, "cleanup_roles": CleanupRoleState.READY}


def sample(table: sa.Table, column: sa.Column[Any]) -> Any:
    """A value that the column may hold and that the present program can read."""
    if column.foreign_keys:
        return 1 if isinstance(column.type, sa.Integer) else f"{next(iter(column.foreign_keys)).column.table.name}-1"
    if column.name == "state":
        return str(_STATES[table.name])
    if column.name in _WORDS:
        value = _WORDS[column.name]
        return int(value) if isinstance(value, Priority) else str(value)
    if isinstance(column.type, sa.Boolean | sa.Integer):
        return 1
    if isinstance(column.type, sa.Float):
        return 1000.5
    if isinstance(column.type, sa.LargeBinary | sa.BLOB):
        return b"\x00\x01"
    if column.name == "words":
        return "{}"
    return "[]" if isinstance(column.type, sa.JSON) else f"{table.name}-1" if column.primary_key else f"a {column.name}"


def fill(connection: Connection) -> Rows:
    """One row in each table, as its version has it."""
    there = sa.MetaData()
    there.reflect(connection)
    for table in there.sorted_tables:
        if table.name != "alembic_version":
            named = ", ".join(f'"{column.name}"' for column in table.columns)
            marks = ", ".join("?" for _ in table.columns)
            values = tuple(sample(table, column) for column in table.columns)
            connection.exec_driver_sql(f"INSERT INTO {table.name} ({named}) VALUES ({marks})", values)  # noqa: S608
    connection.commit()
    return rows(connection)


def rows(connection: Connection) -> Rows:
    """Everything, as SQLite has it."""
    names = [name for name in sa.inspect(connection).get_table_names() if name != "alembic_version"]
    everything = {name: sa.text(f"SELECT * FROM {name}") for name in names}  # noqa: S608 - names of the schema
    found = {name: [dict(row) for row in connection.execute(query).mappings()] for name, query in everything.items()}
    connection.rollback()
    return found


def at_revision(path: Path, revision: str) -> Rows:
    """Make a ledger of an earlier version."""
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        command.upgrade(migrate.config(connection), revision)
        connection.commit()
        return fill(connection)


def opened_by_the_program(path: Path) -> Rows:
    """Bring it up, as a start does; it has to be what the program expects."""
    ledger = open_ledger(path, clock=time.time)
    with ledger.read() as tx:
        assert (
            compare_metadata(MigrationContext.configure(tx.connection, opts={"compare_type": True}), schema.metadata)
            == []
        )
        for table in schema.metadata.sorted_tables:
            tx.execute(sa.select(table)).all()  # every value can be read
        assert tx.connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    ledger.close()
    return present(path)


def kept(before: Rows, after: Rows) -> bool:
    """Whether every row is there, with the values that both versions have columns for."""
    for table, found in before.items():
        now = after.get(table, [])
        assert len(now) >= len(found), table
        for row in found:
            assert any(all(other[name] == value for name, value in row.items() if name in other) for other in now), (
                table,
                row,
            )
    return True


@pytest.mark.parametrize("revision", migrate.revisions())
def test_a_ledger_of_every_version_is_brought_up_with_all_its_rows(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "ledger.db"
    before = at_revision(path, revision)
    assert all(before.values()), "each table has a row"
    assert kept(before, opened_by_the_program(path))
    assert checks.check(path).version == migrate.revisions()[-1]


def test_the_versions_are_one_line() -> None:
    assert len(set(migrate.revisions())) == len(migrate.revisions()) >= 1


LATER = '''"""A later version, made up by a test: it rebuilds tables that others refer to."""
import sqlalchemy as sa
from alembic import op
revision, down_revision = "later1", "{head}"
def upgrade():
    with op.batch_alter_table("access_requests", recreate="always") as batch:
        batch.add_column(sa.Column("invented", sa.String(), nullable=False, server_default="x"))
    with op.batch_alter_table("vault_targets", recreate="always") as batch:
        batch.add_column(sa.Column("invented", sa.String(), nullable=True))
'''
FAILING = '''"""An even later version, which breaks off half-way."""
import os
from alembic import op
revision, down_revision = "later2", "later1"
def upgrade():
    op.execute("UPDATE access_requests SET invented = 'y'")
    op.execute("DELETE FROM attempts")
    {how}
'''


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations, to which versions are added; the folder of the added ones."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate._FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    head = migrate.revisions()[-1]
    monkeypatch.setattr(migrate, "_FOLDER", folder)
    monkeypatch.setattr(schema, "VERSION", "later1")
    (folder / "versions/later1.py").write_text(LATER.format(head=head))
    return folder / "versions"


def present(path: Path) -> Rows:
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        return rows(connection)


def version(path: Path) -> str:
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.connect() as connection:
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar())


def test_a_later_version_may_rebuild_tables_that_others_refer_to(tmp_path: Path, later: Path) -> None:
    path = tmp_path / "ledger.db"
    before = at_revision(path, migrate.revisions()[0])
    open_ledger(path, clock=time.time).close()
    assert version(path) == "later1"
    assert kept(before, present(path))
    assert present(path)["access_requests"][0]["invented"] == "x"
    assert later.is_dir()


@pytest.mark.parametrize(
    "how",
    [
        "raise RuntimeError('half-way')",
        "op.execute('SELECT * FROM nowhere')",
        "op.execute('DELETE FROM access_requests')",
    ],
)
def test_a_migration_that_fails_changes_nothing(tmp_path: Path, later: Path, how: str) -> None:
    path, head = tmp_path / "ledger.db", migrate.revisions()[0]
    before = at_revision(path, head)
    (later / "later2.py").write_text(FAILING.format(how=how))
    with pytest.raises((RuntimeError, StartupRefusedError)):
        open_ledger(path, clock=time.time)
    assert version(path) == head
    assert present(path) == before
    (later / "later2.py").unlink()
    open_ledger(path, clock=time.time).close()  # it was released, and the next try goes on
    assert version(path) == "later1"


def test_a_process_killed_in_a_migration_leaves_the_former_version(tmp_path: Path, later: Path) -> None:
    path, head = tmp_path / "ledger.db", migrate.revisions()[0]
    before = at_revision(path, head)
    (later / "later2.py").write_text(FAILING.format(how="os.kill(os.getpid(), 9)"))
    code = (
        "import sys, time; from pathlib import Path; from services.access.ledger.db import database, migrate, schema;"
        " schema.VERSION = 'later2'; migrate._FOLDER = Path(sys.argv[2]);"
        " database.open_ledger(Path(sys.argv[1]), clock=time.time)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), str(later.parent)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert version(path) == head
    assert present(path) == before
