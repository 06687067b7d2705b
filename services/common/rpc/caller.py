"""The caller of the current call: one name of its client certificate, which the interceptors found permitted."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PRINTABLE = re.compile(r"[!-~]+")
_CALLER: ContextVar[tuple[str, Callable[[str], bool]]] = ContextVar("caller")


def current() -> str:
    """The caller's subject alternative name, such as ``spiffe://leasegate/watcher``, or ``plaintext``.

    Raises:
        LookupError: No call is being handled.
    """
    return _CALLER.get()[0]


def may_call(service: str) -> bool:
    """Whether the caller may call another service of this process, for a call that includes one of that service.

    Args:
        service: Its full name.

    Raises:
        LookupError: No call is being handled.
    """
    return _CALLER.get()[1](service)


@contextmanager
def acting(name: str, *, may: Callable[[str], bool] = lambda _service: False) -> Iterator[None]:
    """Make ``name`` the caller of what happens inside; ``may`` says which services it may call."""
    token = _CALLER.set((name, may))
    try:
        yield
    finally:
        _CALLER.reset(token)


@functools.lru_cache(maxsize=1024)
def names(certificate: bytes) -> tuple[str, ...]:
    """Return the subject alternative names of a client's certificate: URIs, DNS names, IP addresses, in this order.

    The common name is ignored.

    Read from the certificate itself: gRPC's own list cuts each name at a zero byte, so that a certificate for the
    watcher's name, a zero and more would pass for the watcher. Names with unprintable characters are left out, and DNS
    names that look like URIs.

    Args:
        certificate: PEM, already verified by TLS.
    """
    from cryptography import x509  # 8 MiB, which a process without TLS, or without a caller, does not need

    try:
        found = (
            x509.load_pem_x509_certificate(certificate)
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value
        )
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    dns = [name for name in found.get_values_for_type(x509.DNSName) if ":" not in name]
    ips = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return tuple(
        name
        for name in [*found.get_values_for_type(x509.UniformResourceIdentifier), *dns, *ips]
        if _PRINTABLE.fullmatch(name)
    )
