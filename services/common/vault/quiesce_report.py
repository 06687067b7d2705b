"""How many leases depend on a mount or connection that is about to change: ``leasegate.types.v1.QuiesceReport``.

access counts them and the watcher passes the report on. It is not signed: engine and roles trust the watcher for it
(docs/security/threat-model.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from leasegate.types.v1 import types_pb2
from services.common.errors import LeasesInUseError
from services.common.vault.target import VaultTarget
from services.common.vault_config.entries import vault_identity

# access counts by its own clock.
_CLOCK_SKEW_S = 5.0


@dataclass(frozen=True, slots=True)
class QuiesceReport:
    """The report of access, decoded.

    Attributes:
        vault: What tells the Vault from others (``VaultTarget.identity``).
        mount: Path of the mount.
        connection: Name of the connection; empty for the whole mount.
        open_attempts: Number of attempts whose database user is not known to be dropped.
        counted_at: Unix time of the count, seconds.
        valid_for_s: How long the report may be used, seconds.
    """

    vault: str
    mount: str
    connection: str
    open_attempts: int
    counted_at: float
    valid_for_s: float

    @classmethod
    def from_proto(cls, message: types_pb2.QuiesceReport) -> QuiesceReport:
        """Decode a report; a wrong field makes it match no target."""
        ref = message.target
        return cls(
            vault=vault_identity(vault=ref.vault, address=ref.address, vault_namespace=ref.vault_namespace),
            mount=message.mount.strip("/"),
            connection=message.connection,
            open_attempts=message.open_attempts,
            counted_at=message.count_time.seconds + message.count_time.nanos / 1e9,
            valid_for_s=message.valid_for.seconds + message.valid_for.nanos / 1e9,
        )

    def covers(self, target: VaultTarget, *, mount: str, connection: str) -> bool:
        """Whether the report is about this connection or its whole mount."""
        return (self.vault, self.mount) == (target.identity, mount) and self.connection in ("", connection)

    def is_fresh(self, now: float) -> bool:
        """Whether the report may be used at a Unix time."""
        return -_CLOCK_SKEW_S <= now - self.counted_at <= self.valid_for_s


def require_quiesce_report(
    quiesce_report: QuiesceReport | None,
    target: VaultTarget,
    *,
    mount: str,
    connection: str = "",
    now: float,
    what: str,
) -> None:
    """Refuse a change unless a report says that no lease depends on it.

    Args:
        quiesce_report: The report that the caller passed on.
        target: The Vault server.
        mount: Path of the mount.
        connection: Name of the connection; empty for the whole mount.
        now: Unix time, seconds.
        what: What would change, as the start of the message.

    Raises:
        LeasesInUseError: There is no fresh report, or it has open attempts.
    """
    if (
        quiesce_report is None
        or not quiesce_report.covers(target, mount=mount, connection=connection)
        or not quiesce_report.is_fresh(now)
    ):
        raise LeasesInUseError(
            f"{what} only once access reports that no lease depends on it", mount=mount, open_attempts="unknown"
        )
    if quiesce_report.open_attempts:
        left = quiesce_report.open_attempts
        raise LeasesInUseError(
            f"{what} only once {left} leases or open attempts are closed", mount=mount, open_attempts=str(left)
        )
