"""Proof that no lease or open attempt depends on what is about to change: ``leasegate.types.v1.QuiesceReport``, as access answered it."""

from __future__ import annotations

from dataclasses import dataclass

from leasegate.types.v1 import types_pb2
from services.common.errors import LeasesInUseError
from services.common.vault.address import Address, AddressError
from services.common.vault.target import VaultTarget

# access counts by its own clock.
_CLOCK_SKEW_S = 5.0


@dataclass(frozen=True, slots=True)
class QuiesceReport:
    """What access answered.

    Attributes:
        address: The Vault; None if it cannot be read, which fits no target.
        vault_namespace: Its namespace.
        mount: Path of the mount.
        connection: Name of the connection; empty for the whole mount.
        open_attempts: Number of attempts whose database user is not known to be dropped.
        counted_at: Unix time of the count, seconds.
        valid_for_s: How long the answer may be relied on.
    """

    address: Address | None
    vault_namespace: str
    mount: str
    connection: str
    open_attempts: int
    counted_at: float
    valid_for_s: float

    @classmethod
    def from_proto(cls, message: types_pb2.QuiesceReport) -> QuiesceReport:
        """Decode; what is wrong in it makes it fit nothing."""
        try:
            address = Address.parse(message.target.address)
        except AddressError:
            address = None
        return cls(
            address=address,
            vault_namespace=message.target.vault_namespace.strip("/"),
            mount=message.mount.strip("/"),
            connection=message.connection,
            open_attempts=message.open_attempts,
            counted_at=message.count_time.seconds + message.count_time.nanos / 1e9,
            valid_for_s=message.valid_for.seconds + message.valid_for.nanos / 1e9,
        )

    def covers(self, target: VaultTarget, *, mount: str, connection: str) -> bool:
        """Whether it speaks of this place, or of the whole mount that the place is part of."""
        place = (Address.parse(target.address), target.vault_namespace.strip("/"), mount)
        return (self.address, self.vault_namespace, self.mount) == place and self.connection in ("", connection)

    def fresh(self, now: float) -> bool:
        """Whether it may be relied on at a Unix time."""
        return -_CLOCK_SKEW_S <= now - self.counted_at <= self.valid_for_s


def require(
    quiesce_report: QuiesceReport | None,
    target: VaultTarget,
    *,
    mount: str,
    connection: str = "",
    now: float,
    what: str,
) -> None:
    """Refuse a change unless nothing depends on it.

    Args:
        quiesce_report: What the caller passed on.
        target: The Vault.
        mount: Path of the mount.
        connection: Name of the connection; empty when the whole mount is to go.
        now: Unix time, seconds.
        what: What would change, for the message.

    Raises:
        LeasesInUseError: There is no fresh answer for this place, or something is left.
    """
    if (
        quiesce_report is None
        or not quiesce_report.covers(target, mount=mount, connection=connection)
        or not quiesce_report.fresh(now)
    ):
        raise LeasesInUseError(
            f"{what} only once access says that no lease depends on it", mount=mount, open_attempts="unknown"
        )
    if quiesce_report.open_attempts:
        left = quiesce_report.open_attempts
        raise LeasesInUseError(
            f"{what} only once {left} leases or open attempts have ended", mount=mount, open_attempts=str(left)
        )
