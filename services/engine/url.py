"""The URL by which Vault reaches a database, from an AppBinding's ``url`` or from the parts of its ``service``.

Vault wants ``{{username}}:{{password}}@`` in it, which goes right after the scheme; everything else stays as the owner
wrote it, ``%`` too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from services.common.errors import FieldViolation, SpecInvalidError

LOCK_TIMEOUT_MS = 3000
"""How long a statement of Vault waits for a lock, at most.

Vault runs what belongs to one connection one after the other, and a revocation without a deadline: without this, a
holder with an open transaction stops every credential and every revocation of that connection
(docs/adr/0080-no-holder-stops-a-connection.md).
"""
_LOCK_TIMEOUT = "lock_timeout"
_TEMPLATE = "{{username}}:{{password}}@"
_DEFAULT_PORT = 5432
_PARTS = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<hosts>[^/?#]*)"
    r"(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)
_SCHEMES = ("postgresql", "postgres")
_HOST = re.compile(r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>\d{1,5}))?")
_PATH = re.compile(r"/?(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_WEAKEST_FIRST = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_DEFAULT_SSLMODE = "prefer"
# Not allowed are parameters by which the driver would go elsewhere than the URL says, that name a file of Vault's host,
# or that set what a session is and runs, such as options, role and search_path
# (https://www.postgresql.org/docs/current/libpq-connect.html).
_ALLOWED = frozenset(
    {
        "application_name",
        "client_encoding",
        "connect_timeout",
        "idle_in_transaction_session_timeout",
        "lock_timeout",
        "sslmode",
        "sslsni",
        "statement_timeout",
        "target_session_attrs",
    }
)


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """The parts of a URL, as an AppBinding of a Kubernetes Service gives them."""

    scheme: str
    host: str
    port: int
    path: str = ""
    query: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A checked URL of a PostgreSQL database.

    Attributes:
        scheme: ``postgresql`` or ``postgres``.
        hosts: ``host:port``, several with commas.
        path: Empty, or the database's name with its slash.
        query: Without the question mark.
    """

    scheme: str
    hosts: str
    path: str = ""
    query: str = ""

    @property
    def template(self) -> str:
        """What Vault is given: with a lock_timeout, whatever the owner wrote."""
        own = "" if self._lock_timeout() else f"{_LOCK_TIMEOUT}={LOCK_TIMEOUT_MS}"
        query = "&".join(part for part in (self.query, own) if part)
        return f"{self.scheme}://{_TEMPLATE}{self.hosts}{self.path}?{query}"

    @property
    def place(self) -> tuple[frozenset[str], str]:
        """Which database it is: what must not change under live leases."""
        hosts = (host if _port(host) else f"{host}:{_DEFAULT_PORT}" for host in self.hosts.lower().split(","))
        return frozenset(hosts), unquote(self.path.strip("/"))

    @property
    def places(self) -> list[tuple[str, int]]:
        """Each host in lower case, without brackets, and its port."""
        found = (_HOST.fullmatch(host) for host in self.hosts.lower().split(","))
        return [(each["host"].strip("[]"), int(each["port"] or _DEFAULT_PORT)) for each in found if each]

    @property
    def where(self) -> str:
        """The same as one text, ``host:port/name``, in which two URLs of one database are equal."""
        hosts, name = self.place
        return f"{','.join(sorted(hosts))}/{name}"

    @property
    def tls_rank(self) -> int:
        """How well the connection's TLS protects the password, by ``sslmode``; -1 for a mode that no driver knows."""
        given = (unquote(value) for name, value in self._parameters() if name == "sslmode")
        sslmode = next(given, "") or _DEFAULT_SSLMODE
        return _WEAKEST_FIRST.index(sslmode) if sslmode in _WEAKEST_FIRST else -1

    def __str__(self) -> str:
        return f"{self.hosts}{self.path}"

    @classmethod
    def parse(cls, text: str, *, field: str) -> DatabaseUrl:
        """Read the whole URL.

        Args:
            text: ``postgresql://host:port/database?query``.
            field: Name of the field, for errors.

        Raises:
            SpecInvalidError: It cannot be used; the text says why and never quotes it, as it may hold a password.
        """
        found = _PARTS.fullmatch(text)
        if not found or not found["scheme"]:
            raise SpecInvalidError.of(
                FieldViolation(field, "has no scheme: write it like postgresql://host:5432/database")
            )
        if found["fragment"] is not None:
            raise SpecInvalidError.of(FieldViolation(field, "has a fragment ('#'), which a database's URL cannot have"))
        url = cls(
            scheme=found["scheme"].lower(), hosts=found["hosts"], path=found["path"] or "", query=found["query"] or ""
        )
        return url._checked(dict.fromkeys(("scheme", "host", "path", "query"), field))

    @classmethod
    def of_service(cls, service: ServiceAddress, *, field: str) -> DatabaseUrl:
        """Build the URL from its parts.

        A missing slash before the path or question mark before the query is added.

        Args:
            service: The parts.
            field: Name of the field that holds them, for errors.

        Raises:
            SpecInvalidError: A part cannot be used.
        """
        if not 1 <= service.port <= 65535:
            raise SpecInvalidError.of(FieldViolation(f"{field}.port", "must be between 1 and 65535"))
        host = f"[{service.host}]" if ":" in service.host and not service.host.startswith("[") else service.host
        if _port(host) or "," in host:
            raise SpecInvalidError.of(FieldViolation(f"{field}.host", "must be one host, without a port"))
        url = cls(
            scheme=service.scheme.lower(),
            hosts=f"{host}:{service.port}",
            path=f"/{service.path.removeprefix('/')}" if service.path else "",
            query=service.query.removeprefix("?"),
        )
        return url._checked({part: f"{field}.{part}" for part in ("scheme", "host", "path", "query")})

    def _checked(self, fields: dict[str, str]) -> DatabaseUrl:
        wrong = [FieldViolation(fields[part], text) for part, text in self._problems()]
        if wrong:
            raise SpecInvalidError.of(*wrong)
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        if self.scheme not in _SCHEMES:
            yield "scheme", "is missing: postgresql" if not self.scheme else "must be postgresql or postgres"
        if "@" in self.hosts:
            yield (
                "host",
                "holds a user or a password; they belong into the AppBinding's Secret (keys username and password)",
            )
        elif not all(_is_host(host) for host in self.hosts.split(",")):
            yield "host", "needs a host, and a port between 1 and 65535 if any"
        if not _PATH.fullmatch(self.path):
            yield "path", "has characters that a URL cannot hold as they are: write them like %20"
        yield from self._query_problems()

    def _query_problems(self) -> Iterator[tuple[str, str]]:
        if not _QUERY.fullmatch(self.query):
            yield "query", "has characters that a URL cannot hold as they are: write them like %20"
        names = [name for name, _ in self._parameters()]
        if set(names) - _ALLOWED:
            yield "query", f"may have only {', '.join(sorted(_ALLOWED))}: user and password belong into the Secret"
        elif len(names) > len(set(names)):
            yield "query", "has a parameter twice"
        elif not all(_is_lock_timeout(value) for value in self._lock_timeout()):
            yield "query", f"may have a lock_timeout of 1 to {LOCK_TIMEOUT_MS} milliseconds, without a unit"

    def _lock_timeout(self) -> list[str]:
        return [value for name, value in self._parameters() if name == _LOCK_TIMEOUT]

    def _parameters(self) -> list[tuple[str, str]]:
        pairs = [pair.partition("=") for pair in re.split("[&;]", self.query) if pair]
        return [(unquote(name), value) for name, _, value in pairs]


def url_of(template: str) -> DatabaseUrl | None:
    """Return the URL of a connection in Vault, without lock_timeout; None where Leasegate does not write such a one."""
    url, question_mark, query = template.replace(_TEMPLATE, "", 1).partition("?")
    left = "&".join(part for part in query.split("&") if not part.startswith(f"{_LOCK_TIMEOUT}="))
    try:
        return DatabaseUrl.parse(f"{url}{question_mark}{left}", field="connection_url")
    except SpecInvalidError:
        return None


def _is_lock_timeout(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= LOCK_TIMEOUT_MS and len(text) < 9


def _is_host(text: str) -> bool:
    found = _HOST.fullmatch(text)
    return found is not None and (found["port"] is None or 1 <= int(found["port"]) <= 65535)


def _port(host: str) -> str | None:
    found = _HOST.fullmatch(host)
    return found["port"] if found else None
