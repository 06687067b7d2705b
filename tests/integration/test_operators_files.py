"""Ledger files that are missing, in use, damaged, foreign, newer or on a full disk, for service and command line."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.access.domain.models import AttemptState, Priority
from services.access.ledger import counts
from services.access.ledger.db.database import open_ledger
from services.common import errors
from tests.clock import Clock
from tests.contract.test_ledger import begun, due_at, in_state
from tests.eventually import eventually
from tests.integration.access_world import WATCHER, Callee, Dar, World, in_process, put_role, start, world
from tests.integration.operators import leasegate
from tests.servers import Servers


@pytest.fixture
def made(servers: Servers, tmp_path: Path) -> Iterator[World]:
    with world(servers, tmp_path) as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger with some rows, that nobody has open."""
    path = tmp_path / "ledger.db"
    ledger = open_ledger(path, clock=Clock())
    with ledger.write() as tx:
        for number in range(1, 40):
            begun(tx, number=number)
        tx.connection.exec_driver_sql("UPDATE access_requests SET last_sequence = 40")
    ledger.close()
    return path


def serve(ledger: Path, **limits: int) -> subprocess.CompletedProcess[str]:
    """Start the access service with this ledger, which it is expected to refuse."""

    def limit() -> None:
        for name, most in limits.items():
            resource.setrlimit(getattr(resource, name), (most, most))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does: a write beyond the limit fails with EFBIG

    command = [
        sys.executable,
        "-m",
        "services.access",
        f"--ledger={ledger}",
        "--allow-any-vault",
        "--plaintext-loopback",
        "--listen=127.0.0.1:0",
    ]
    done = subprocess.run(
        [*command, "--health-listen=127.0.0.1:0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        preexec_fn=limit,
    )
    assert "Traceback" not in done.stderr
    return done


def refused(ledger: Path, *words: str, **limits: int) -> None:
    """It does not start, and says why in one line that names the file; nothing is replaced."""
    before = ledger.read_bytes() if ledger.is_file() else None
    done = serve(ledger, **limits)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in (str(ledger), *words)), line
    assert (ledger.read_bytes() if ledger.is_file() else None) == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "ledger.db"
    foreign.write_text("dear diary\n" * 500)
    refused(foreign, "not a database")
    done = leasegate(None, None, "ledger", "check", str(foreign))
    assert (done.returncode, done.stderr) == (2, f"Error: {foreign} is no ledger: it is no SQLite file.\n")


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "ledger.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    refused(foreign, "no ledger")
    assert leasegate(None, None, "ledger", "check", str(foreign)).returncode == 2


def test_a_damaged_file_is_refused_and_the_check_says_what_is_wrong(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    for page in range(len(raw) // 4096 - 3, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.write_bytes(raw)
    refused(file, "corrupt", "restore a copy")
    done = leasegate(None, None, "ledger", "check", str(file))
    assert done.returncode == 1
    assert "WRONG     the file is damaged" in done.stdout
    assert "restore a copy" in done.stdout


def test_a_file_that_was_cut_off_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: 4096 * 5 + 100])
    refused(file)
    assert leasegate(None, None, "ledger", "check", str(file)).returncode in (1, 2)


def test_a_ledger_of_a_newer_version_is_refused(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refused(file, "newer version")
    done = leasegate(None, None, "ledger", "check", str(file))
    assert done.returncode == 2
    assert "newer version" in done.stderr


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere" / "ledger.db", "its folder cannot be written")


def test_a_disk_that_is_full_at_the_start_is_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    done = serve(path, RLIMIT_FSIZE=20_000)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "the ledger cannot be opened" in line
    assert serve_briefly(path), "it starts once there is room"


def serve_briefly(path: Path) -> bool:
    """Whether the service starts with this ledger."""
    address = path.with_name("address")
    command = [
        sys.executable,
        "-m",
        "services.access",
        f"--ledger={path}",
        "--allow-any-vault",
        "--plaintext-loopback",
        "--listen=127.0.0.1:0",
    ]
    process = subprocess.Popen(
        [*command, "--health-listen=127.0.0.1:0", f"--address-file={address}"], stderr=subprocess.DEVNULL
    )
    try:
        return bool(eventually(lambda: address.exists() or process.poll() is not None)) and address.exists()
    finally:
        process.terminate()
        process.wait(20)


def test_a_second_process_is_refused_and_the_first_goes_on(made: World) -> None:
    with in_process(made) as callee:
        put_role(made, callee)
        refused_by_owner = serve(made.ledger)
        assert refused_by_owner.returncode == 2
        assert f"another access service (pid {os.getpid()}) owns this ledger" in refused_by_owner.stderr
        dar = Dar(callee)
        credential = dar.issue()
        checked = leasegate(None, None, "ledger", "check", str(made.ledger), "-o", "json")  # beside the service
        assert checked.returncode == 0, checked.stdout + checked.stderr
        found = json.loads(checked.stdout)
        assert found["attempts"] == {"active": 1}
        assert found["owner"] == str(os.getpid())
        exported = leasegate(None, None, "ledger", "export", str(made.ledger)).stdout
        assert [attempt["handle"] for attempt in json.loads(exported)["attempts"]] == [credential.lease.handle]
        assert credential.lease.lease_id not in exported
        whole = leasegate(None, None, "ledger", "export", str(made.ledger), "--with-ids").stdout
        assert json.loads(whole)["attempts"][0]["lease_id"] == credential.lease.lease_id
        assert credential.password not in whole
        assert dar.ensure(secret_attempt=1).access_request.lease.handle == credential.lease.handle
        dar.end()
        eventually(lambda: credential.username not in made.database_users(), timeout_s=30)


class SmallDisk:
    """A file system of 2 MiB, which a neighbour fills. Mounting one needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._filler = folder, folder / "filler"
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "leasegate-test", str(folder)], check=True)

    def fill(self, _: int) -> None:
        with pytest.raises(OSError, match="No space"):
            fill(self._filler)

    def clear(self) -> None:
        self._filler.unlink()

    def close(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


class SmallFiles:
    """Limits the size of a process' files below where the ledger writes, above where the log does; needs no rights."""

    BYTES = 48 * 1024

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        assert (self.folder / "ledger.db-wal").stat().st_size > self.BYTES
        self._pid, self._before = pid, resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (self.BYTES, self._before[1]))

    def clear(self) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, self._before)

    def close(self) -> None:
        """Nothing is left of it once the process has ended."""


@pytest.mark.parametrize("kind", [SmallFiles, SmallDisk] if os.geteuid() == 0 else [SmallFiles])
def test_a_full_disk_refuses_new_credentials_and_loses_none(
    made: World, tmp_path: Path, kind: type[SmallDisk] | type[SmallFiles]
) -> None:
    """While nothing can be written, nothing is issued and what is in use works; with room again, all goes on."""
    folder = tmp_path / "small"
    folder.mkdir()
    disk = kind(folder)
    try:
        service = start(made, ledger=str(folder / "ledger.db"))
        try:
            put_role(made, service.callee)
            first = Dar(service.callee)
            credential = first.issue()
            disk.fill(service.process.pid)
            failures = _until_full(service.callee)
            assert {err.reason for err in failures} == {"LEDGER_UNAVAILABLE"}
            assert all(err.retry_after_s for err in failures)
            assert made.can_log_in(credential)
            disk.clear()
            second = Dar(service.callee)
            other = second.issue()
            assert made.can_log_in(other)
            for dar in (first, second):
                dar.end()
            eventually(lambda: not {credential.username, other.username} & made.database_users(), timeout_s=30)
        finally:
            service.close()
        assert leasegate(None, None, "ledger", "check", str(folder / "ledger.db")).returncode == 0
    finally:
        disk.close()


def fill(file: Path) -> None:
    """Take all the room that there is."""
    with file.open("wb", buffering=0) as out:
        while True:
            out.write(b"x" * 4096)


def _until_full(callee: Callee) -> list[errors.LeasegateError]:
    found: list[errors.LeasegateError] = []
    for _ in range(400):
        try:
            Dar(callee).ensure()
        except errors.LeasegateError as err:
            found.append(err)
            if len(found) == 3:
                return found
    raise AssertionError("the disk was never full")


def test_a_ledger_that_is_whole(file: Path) -> None:
    before = sorted(path.name for path in file.parent.iterdir())
    done = leasegate(None, None, "ledger", "check", str(file))
    assert done.returncode == 0, done.stdout
    assert "39 pending" in done.stdout
    assert done.stdout.endswith("It is whole.\n")
    assert sorted(path.name for path in file.parent.iterdir()) == before  # nothing is written beside it


def test_a_ledger_left_by_a_kill_is_checked_as_it_lies(file: Path) -> None:
    code = "import os,sys,time; from pathlib import Path; from services.access.ledger.db.database import open_ledger\n"
    code += "ledger = open_ledger(Path(sys.argv[1]), clock=time.time)\n"
    code += "with ledger.write() as tx: tx.connection.exec_driver_sql(\"UPDATE access_requests SET reason = 'x'\")\n"
    code += "os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert file.with_name("ledger.db-wal").stat().st_size
    done = leasegate(None, None, "ledger", "check", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        json.loads(leasegate(None, None, "ledger", "export", str(file)).stdout)["access_requests"][0]["reason"] == "x"
    )


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE attempts SET state = 'active' WHERE sequence = 1", "is in use but has no lease"),
        (
            "UPDATE attempts SET state = 'active', lease_id = 'x', ends_at = 1 WHERE sequence < 3",
            "two active credentials",
        ),
        ("UPDATE attempts SET state = 'revoking', due_at = NULL WHERE sequence = 1", "no work is due for it"),
        ("UPDATE attempts SET state = 'closed', accessor = 'x' WHERE sequence = 1", "still names a token"),
        ("UPDATE access_requests SET last_sequence = 1", "higher sequence than its last"),
        ("UPDATE access_requests SET approval = 'denied'", "is closed but an attempt of it goes on"),
        ("DELETE FROM meta", "it has no id"),
        ("DELETE FROM access_requests", "names one of access_requests that is not there"),
    ],
)
def test_rows_that_contradict_each_other_are_named(file: Path, sql: str, words: str) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute(sql)
    connection.close()
    done = leasegate(None, None, "ledger", "check", str(file))
    assert done.returncode == 1
    assert words in done.stdout


def test_files_that_are_not_there_or_empty(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.touch()
    for path, words in ((missing, "no such file"), (empty, "is empty"), (tmp_path, "is a directory")):
        for command in ("check", "export"):
            done = leasegate(None, None, "ledger", command, str(path))
            assert done.returncode == 2
            assert words in done.stderr
            assert done.stdout == ""
    assert not missing.exists()


def test_a_loss_is_seen_and_accepted_by_the_program(made: World) -> None:
    with in_process(made) as callee:
        done = leasegate(made, callee, "ledger", "status")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "issuance is not paused"), done.stderr
        callee.as_(WATCHER).watcher.WatchChanges(watcher.WatchChangesRequest(known_ledger_id="f" * 32))
        done = leasegate(made, callee, "ledger", "status")
        assert done.returncode == 1
        assert "f" * 32 in done.stdout
        unsure = leasegate(made, callee, "ledger", "accept-loss", "--reason", "burnt", typed="n\n")
        assert unsure.returncode == 1
        assert leasegate(made, callee, "ledger", "status").returncode == 1
        done = leasegate(made, callee, "ledger", "accept-loss", "--reason", "burnt", "--yes")
        assert done.returncode == 0, done.stderr
        assert "leasegate orphans --postgres" in done.stdout
        assert leasegate(made, callee, "ledger", "status").returncode == 0
        again = leasegate(made, callee, "ledger", "accept-loss", "--reason", "burnt", "--yes")
        assert (again.returncode, "issuance is not paused" in again.stdout) == (0, True)


def test_the_age_of_work_is_since_it_is_due(tmp_path: Path) -> None:
    clock = Clock()
    ledger = open_ledger(tmp_path / "l.db", clock=clock)
    with ledger.write() as tx:
        due_at(tx, 1, Priority.REVOKE, due_at=clock.now - 7)
        due_at(tx, 2, Priority.REVOKE, due_at=clock.now - 3)
        due_at(tx, 3, Priority.RENEW, due_at=clock.now + 1)
        assert counts.due_by_priority(tx) == {Priority.REVOKE: counts.Due(2, 7.0)}
        assert counts.next_lease_expiry_s(tx) is None
    with ledger.write() as tx:
        tx.connection.exec_driver_sql("DELETE FROM attempts")
        in_state(tx, AttemptState.ACTIVE)
        assert counts.next_lease_expiry_s(tx) == 60
    ledger.close()
