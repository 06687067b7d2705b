"""What is written to Vault for a connection, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.common.errors import SpecInvalidError
from services.engine.connection import USERNAME_TEMPLATE, Connection, Existing
from services.engine.url import DatabaseUrl

URL = DatabaseUrl.parse("postgresql://h:1/db", field="u")
BASE = Connection(name="c", url=URL, username="u", password="hunter2")
SHOWN = {
    "plugin_name": "postgresql-database-plugin",
    "allowed_roles": ["*"],
    "connection_url": URL.template,
    "username": "u",
    "username_template": USERNAME_TEMPLATE,
}


def test_fields_are_sent_only_when_set() -> None:
    assert BASE.payload(None) == {**SHOWN, "password": "hunter2", "verify_connection": True}
    assert "password" not in replace(BASE, password="").payload(None)
    assert "username" not in replace(BASE, username="").payload(None)
    limited = replace(BASE, max_open_connections=5, max_idle_connections=-1, max_connection_lifetime_s=90)
    assert limited.payload(None) == BASE.payload(None) | {
        "max_open_connections": 5,
        "max_idle_connections": -1,
        "max_connection_lifetime": "90s",
    }


def test_what_is_taken_out_goes_back_to_vaults_default() -> None:
    existing = Existing(
        {**SHOWN, "max_open_connections": 5, "max_idle_connections": -1, "max_connection_lifetime": "90s"}
    )
    assert BASE.differs(existing)
    cleared = {"max_open_connections": 0, "max_idle_connections": 0, "max_connection_lifetime": "0s"}
    assert BASE.payload(existing) == BASE.payload(None) | cleared
    assert not BASE.differs(Existing({**SHOWN, **cleared}))
    assert not BASE.differs(Existing(SHOWN))


@pytest.mark.parametrize(
    "change",
    [
        {"plugin_name": "other"},
        {"allowed_roles": ["a"]},
        {"connection_url": "x"},
        {"username": "other"},
        {"username_template": ""},
        {"max_open_connections": 1},
    ],
)
def test_whatever_differs_is_seen(change: dict[str, object]) -> None:
    assert BASE.differs(Existing({**SHOWN, **change}))


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ((), ["*"]),
        (("*",), ["*"]),
        (("a", "*"), ["*"]),
        (("a", "b*"), ["a", "b*", "leasegate-cleanup.*"]),
        (("a", "leasegate-cleanup.*"), ["a", "leasegate-cleanup.*"]),
    ],
)
def test_cleanup_roles_may_always_use_it(given: tuple[str, ...], sent: list[str]) -> None:
    assert replace(BASE, allowed_roles=given).payload(None)["allowed_roles"] == sent


def test_a_user_is_needed_unless_vault_has_one() -> None:
    nobody = replace(BASE, username="")
    nobody.check_user(Existing(SHOWN))
    for existing in (None, Existing({})):
        with pytest.raises(SpecInvalidError, match="username and password"):
            nobody.check_user(existing)


def test_it_prints_no_password() -> None:
    assert "hunter2" not in repr(BASE)
