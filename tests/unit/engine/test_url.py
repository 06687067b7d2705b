"""The URL of a database, row by row as kubevault.md 2.4 lists them, the broken ones as clear errors."""

from __future__ import annotations

import pytest

from services.common.errors import SpecInvalidError
from services.common.logs import scrub
from services.common.rpc.status import DESCRIPTION_BYTES
from services.engine.url import DatabaseUrl, ServiceAddress, url_of

SVC = "postgres.demo.svc"


def service(
    scheme: str = "postgresql", host: str = SVC, port: int = 5432, path: str = "", query: str = ""
) -> ServiceAddress:
    return ServiceAddress(scheme=scheme, host=host, port=port, path=path, query=query)


@pytest.mark.parametrize(
    ("parts", "template"),
    [
        (
            service(path="postgres", query="sslmode=disable"),
            "postgresql://{{username}}:{{password}}@postgres.demo.svc:5432/postgres?sslmode=disable&lock_timeout=3000",
        ),
        (
            service(path="/", query="sslmode=disable"),
            "postgresql://{{username}}:{{password}}@postgres.demo.svc:5432/?sslmode=disable&lock_timeout=3000",
        ),
        (
            service(path="/postgres"),
            "postgresql://{{username}}:{{password}}@postgres.demo.svc:5432/postgres?lock_timeout=3000",
        ),
        (service(), "postgresql://{{username}}:{{password}}@postgres.demo.svc:5432?lock_timeout=3000"),
        (
            service(scheme="POSTGRESQL", query="?sslmode=allow"),
            "postgresql://{{username}}:{{password}}@postgres.demo.svc:5432?sslmode=allow&lock_timeout=3000",
        ),
        (
            service(path="a%20b", query="application_name=%25"),
            "postgresql://{{username}}:{{password}}@postgres.demo.svc:5432/a%20b?application_name=%25&lock_timeout=3000",
        ),
        (service(host="::1"), "postgresql://{{username}}:{{password}}@[::1]:5432?lock_timeout=3000"),
    ],
)
def test_a_service(parts: ServiceAddress, template: str) -> None:
    assert DatabaseUrl.of_service(parts, field="service").template == template


@pytest.mark.parametrize(
    ("url", "template"),
    [
        (
            "postgresql://h:1/db?sslmode=disable",
            "postgresql://{{username}}:{{password}}@h:1/db?sslmode=disable&lock_timeout=3000",
        ),
        ("Postgres://h/db%2Fx", "postgres://{{username}}:{{password}}@h/db%2Fx?lock_timeout=3000"),
        ("postgresql://a:1,b:2,c/db", "postgresql://{{username}}:{{password}}@a:1,b:2,c/db?lock_timeout=3000"),
        ("postgresql://h:1", "postgresql://{{username}}:{{password}}@h:1?lock_timeout=3000"),
        ("postgresql://h/db?lock_timeout=500", "postgresql://{{username}}:{{password}}@h/db?lock_timeout=500"),
    ],
)
def test_a_url(url: str, template: str) -> None:
    assert DatabaseUrl.parse(url, field="url").template == template


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:5432/db",
        "//h:5432/db",
        "mysql://h/db",
        "postgresql://",
        "postgresql:///db",
        "postgresql://u@h/db",
        "postgresql://u:hunter2@h/db",
        "postgresql://{{username}}:{{password}}@h/db",
        "postgresql://h:0/db",
        "postgresql://h:70000/db",
        "postgresql://h:x/db",
        "postgresql://h h/db",
        "postgresql://h,/db",
        "postgresql://h/d b",
        "postgresql://h/db\n",
        "postgresql://h/a/b",
        "postgresql://h/db?a=b c",
        "postgresql://h/db?a=%g0",
        "postgresql://h/db#hunter2",
        "postgresql://h/db?password=hunter2",
        "postgresql://h/db?sslmode=disable&USER=x",
        "postgresql://h/db?sslmode=disable;host=other",
        "postgresql://h/db?h%6fst=other",
        "postgresql://h/db?options=-c%20role%3Dpostgres",
        "postgresql://h/db?role=postgres",
        "postgresql://h/db?session_authorization=postgres",
        "postgresql://h/db?search_path=mine",
        "postgresql://h/db?sslcert=/etc/vault/tls.crt",
        "postgresql://h/db?sslkey=/etc/vault/tls.key",
        "postgresql://h/db?sslrootcert=/etc/passwd",
        "postgresql://h/db?sslpassword=hunter2",
        "postgresql://h/db?SSLMODE=disable",
        "postgresql://h/db?sslmode=verify-full&sslmode=disable",
        "postgresql://h/db?=x",
        "postgresql://h/db?lock_timeout=0",
        "postgresql://h/db?lock_timeout=3001",
        "postgresql://h/db?lock_timeout=9999999999",
        "postgresql://h/db?lock_timeout=-1",
        "postgresql://h/db?lock_timeout=1h",
        "postgresql://h/db?lock_timeout=",
        "postgresql://h/db?l%6fck_timeout=0",
    ],
)
def test_what_cannot_be_used_names_the_field_and_quotes_nothing(url: str) -> None:
    with pytest.raises(SpecInvalidError) as invalid:
        DatabaseUrl.parse(url, field="postgres.database.url")
    assert {violation.field for violation in invalid.value.violations} == {"postgres.database.url"}
    assert "hunter2" not in invalid.value.message
    for violation in invalid.value.violations:
        assert scrub(violation.description) == violation.description, "nothing of it is hidden"
        assert len(violation.description) <= DESCRIPTION_BYTES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://h:5432/db", "postgres://H/db?sslmode=require", True),
        ("postgresql://a,b/db", "postgresql://b,a/db", True),
        ("postgresql://h/d%62", "postgresql://h/db", True),
        ("postgresql://h/db", "postgresql://h/other", False),
        ("postgresql://h/db", "postgresql://h2/db", False),
        ("postgresql://h:1/db", "postgresql://h:2/db", False),
        ("postgresql://h/db", "postgresql://h", False),
    ],
)
def test_which_database_it_is(one: str, other: str, same: bool) -> None:
    wanted, there = DatabaseUrl.parse(one, field="u"), DatabaseUrl.parse(other, field="u")
    known = url_of(there.template)
    assert known is not None
    assert (known.place == wanted.place) is same


@pytest.mark.parametrize("query", ["", "?sslmode=require", "?lock_timeout=3000", "?lock_timeout=0&sslmode=require"])
def test_a_lock_timeout_in_vault_tells_no_database_from_another(query: str) -> None:
    known = url_of(f"postgresql://{{{{username}}}}:{{{{password}}}}@h/db{query}")
    assert known is not None
    assert known.place == DatabaseUrl.parse("postgresql://h/db", field="u").place


def test_a_url_in_vault_that_we_would_not_write_is_another_place() -> None:
    assert url_of("") is None
    assert url_of("host=h port=1") is None
    assert url_of("postgresql://u:p@h/db") is None


def test_parameters_that_change_neither_place_nor_session_are_allowed() -> None:
    query = "sslmode=require&connect_timeout=5&application_name=vault&target_session_attrs=read-write&lock_timeout=2000"
    assert DatabaseUrl.parse(f"postgresql://h/db?{query}", field="u").query == query


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ("?sslmode=disable", "?sslmode=allow"),
        ("?sslmode=allow", ""),
        ("?sslmode=allow", "?sslmode="),
        ("", "?sslmode=require"),
        ("?sslmode=require", "?sslmode=verify-ca"),
        ("?sslmode=verify-ca", "?sslmode=verify-full"),
        ("?sslmode=nonsense", "?sslmode=disable"),
        ("?sslmode=VERIFY-FULL", "?sslmode=disable"),
    ],
)
def test_how_well_tls_protects_the_password(weaker: str, stronger: str) -> None:
    one, other = (DatabaseUrl.parse(f"postgresql://h/db{query}", field="u") for query in (weaker, stronger))
    assert one.tls_rank < other.tls_rank
