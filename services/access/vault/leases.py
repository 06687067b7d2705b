"""Calls to Vault about one lease, and what their refusals mean."""

from __future__ import annotations

from services.common.errors import LeasegateError, VaultRefusedError
from services.common.vault import error_texts
from services.common.vault.client import Vault
from services.common.vault.error_texts import Drop
from services.common.vault.response import Answer, VaultNotFoundError


def revoke(vault: Vault, lease_id: str) -> None:
    """Revoke a lease synchronously: its database user is dropped when this returns.

    A lease that Vault does not know counts as revoked.

    Raises:
        LeasegateError: Vault or PostgreSQL refused or failed; the database user may exist.
    """
    try:
        vault.write(f"sys/leases/revoke/{lease_id}", {"sync": True})
    except VaultNotFoundError as err:
        raise VaultRefusedError("Vault knows no such way to revoke", path="sys/leases/revoke") from err


def forget(vault: Vault, lease_id: str) -> None:
    """Have Vault remove a lease whose revocation statements fail, once its database user is known to be dropped.

    Vault would run them again, at the lease's TTL at the latest, with whatever its role says then.

    Raises:
        LeasegateError: Vault refused or failed.
    """
    try:
        vault.write(f"sys/leases/revoke-force/{lease_id}", {})
    except VaultNotFoundError as err:
        raise VaultRefusedError("Vault knows no such way to revoke", path="sys/leases/revoke-force") from err


def renew(vault: Vault, lease_id: str, *, increment_s: float) -> Answer:
    """Renew a lease.

    Raises:
        LeasegateError: Vault or PostgreSQL refused or failed.
    """
    try:
        return vault.write(f"sys/leases/renew/{lease_id}", {"increment": max(1, int(increment_s))})
    except VaultNotFoundError as err:
        raise VaultRefusedError("Vault knows no such way to renew", path="sys/leases/renew") from err


def is_gone(err: LeasegateError) -> bool:
    """Whether a renewal failed because Vault does not have the lease: it was revoked, or its token was."""
    return isinstance(err, VaultRefusedError) and error_texts.is_lease_unknown(err.vault_text)


def drop_failure(err: LeasegateError) -> Drop:
    """What a failed revocation says about the drop of the database user.

    Vault answers 400 for a refused drop and for a database that cannot be reached; the SQLSTATE tells them apart.
    """
    return error_texts.drop_failure(err.vault_text) if isinstance(err, VaultRefusedError) else Drop.UNREACHED
