"""Who makes the call that is being handled: one name of the client's certificate, set by the interceptors after they found it allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_CALLER: ContextVar[str] = ContextVar("caller")


def current() -> str:
    """The caller's subject alternative name, such as ``spiffe://leasegate/watcher``, or ``plaintext``.

    Raises:
        LookupError: No call is being handled.
    """
    return _CALLER.get()


@contextmanager
def acting(name: str) -> Iterator[None]:
    """Make ``name`` the caller of what happens inside."""
    token = _CALLER.set(name)
    try:
        yield
    finally:
        _CALLER.reset(token)


def names(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """Every name that grpc found in the client's certificate, URIs first.

    gRPC has one property for each type of subject alternative name. A DNS or IP name that looks like a URI is left out, so that no
    certificate passes for another by writing a name under the wrong type; the common name is never looked at.
    """
    found = [name.decode(errors="replace") for name in auth_context.get("x509_uri", ())]
    others = [name.decode(errors="replace") for key in ("x509_dns", "x509_ip") for name in auth_context.get(key, ())]
    return tuple(found + [name for name in others if ":/" not in name])
