"""Whether access has paused the database roles that are about to change: ``leasegate.types.v1.PauseReport``.

access makes it and the watcher passes it on; it is trusted as far as a quiesce report is.
"""

from __future__ import annotations

from dataclasses import dataclass

from leasegate.types.v1 import types_pb2
from services.common.errors import ChangeDueError
from services.common.vault.database_statements import as_stored
from services.common.vault.quiesce_report import QuiesceReport
from services.common.vault.target import VaultTarget


@dataclass(frozen=True, slots=True)
class LeaseRevocation:
    """How the leases of a database role end.

    Vault takes both from the role as it is at that time, also for the leases of before, and runs the statements as the
    managing user (``secretCredsRevoke`` of its database engine).

    Attributes:
        connection: Name of the connection.
        statements: SQL that drops the database user, as the role's owner wrote it; empty for Vault's default.
    """

    connection: str
    statements: tuple[str, ...] = ()

    @classmethod
    def from_proto(cls, message: types_pb2.LeaseRevocation) -> LeaseRevocation:
        """Decode it."""
        return cls(message.connection, as_stored(message.statements))

    def to_proto(self) -> types_pb2.LeaseRevocation:
        """Encode it."""
        return types_pb2.LeaseRevocation(connection=self.connection, statements=self.statements)


@dataclass(frozen=True, slots=True)
class PauseReport:
    """The report of access, decoded.

    Attributes:
        count: Where the roles are, how many calls are under way there, and how long the report may be used.
        vault_role: Name in Vault of the one role that is paused; empty for all roles there.
        revocation: What ``revoked_otherwise`` was counted for; None if it was not.
        revoked_otherwise: Open attempts at the role that were begun with another revocation.
    """

    count: QuiesceReport
    vault_role: str
    revocation: LeaseRevocation | None = None
    revoked_otherwise: int = 0

    @classmethod
    def from_proto(cls, message: types_pb2.PauseReport) -> PauseReport:
        """Decode a report; a wrong field makes it match no target."""
        count = types_pb2.QuiesceReport(
            target=message.target,
            mount=message.mount,
            connection=message.connection,
            open_attempts=message.calls_under_way,
            count_time=message.count_time,
            valid_for=message.valid_for,
        )
        revocation = LeaseRevocation.from_proto(message.revocation) if message.HasField("revocation") else None
        return cls(QuiesceReport.from_proto(count), message.vault_role, revocation, message.leases_revoked_otherwise)

    def covers(self, target: VaultTarget, *, mount: str, connection: str, vault_role: str) -> bool:
        """Whether this role is paused; an empty ``vault_role`` stands for all roles of the connection."""
        return self.vault_role in ("", vault_role) and self.count.covers(target, mount=mount, connection=connection)


def require_pause_report(
    report: PauseReport | None,
    target: VaultTarget,
    *,
    mount: str,
    connection: str = "",
    vault_role: str = "",
    revocation: LeaseRevocation | None = None,
    now: float,
    what: str,
) -> None:
    """Refuse a change unless a report says that what would change is paused, and that no earlier call is under way.

    Args:
        report: The report that the caller passed on.
        target: The Vault server.
        mount: Path of the mount.
        connection: Name of the connection whose roles have to be paused; empty for one role.
        vault_role: Name in Vault of the role that has to be paused; empty for all of the connection.
        revocation: How leases of the role end after the change; None where that is not what changes.
        now: Unix time, seconds.
        what: What would change, as the start of the message.

    Raises:
        ChangeDueError: There is no fresh report, calls are under way, or leases would be revoked otherwise than when
            they were issued.
    """
    if (
        report is None
        or not report.covers(target, mount=mount, connection=connection, vault_role=vault_role)
        or not report.count.is_fresh(now)
        or (revocation is not None and report.revocation != revocation)
    ):
        raise ChangeDueError(f"{what} only once access has paused it", mount=mount, calls_under_way="unknown")
    if left := report.count.open_attempts:
        raise ChangeDueError(
            f"{what} only once {left} calls to Vault that are under way have ended",
            mount=mount,
            calls_under_way=str(left),
        )
    if revocation is not None and report.revoked_otherwise:
        raise ChangeDueError(
            f"{what} only once {report.revoked_otherwise} lease(s) of before have ended: Vault would revoke them with"
            " other statements, or at another connection, than they were issued with",
            mount=mount,
            calls_under_way="0",
        )
