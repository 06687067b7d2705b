"""Policies are rendered for what an operator names, and for nothing that would open more."""

from __future__ import annotations

import pytest

from deploy.vault.policies import ACCESS, ENGINE, ISSUER, NAMES, MountError, Mounts, render


def _paths(text: str) -> list[str]:
    return [line.split('"')[1] for line in text.splitlines() if line.startswith("path ")]


def test_each_mount_and_prefix_has_its_own_rules() -> None:
    text = render(ISSUER, Mounts(("database", "my-postgres-se"), ("team/",)))
    assert _paths(text) == ["database/creds/*", "my-postgres-se/creds/*", "team/+/creds/*"]


def test_a_mount_that_is_named_twice_is_rendered_once() -> None:
    assert _paths(render(ISSUER, Mounts(("database", "database")))) == ["database/creds/*"]


def test_rules_without_a_mount_are_there_once() -> None:
    text = render(ACCESS, Mounts(("a", "b")))
    assert _paths(text).count("auth/token/create/leasegate") == 1
    assert _paths(text)[2:6] == [f"sys/leases/{verb}/{mount}/creds/*" for verb in ("renew", "revoke") for mount in "ab"]


@pytest.mark.parametrize("name", NAMES)
def test_no_path_has_a_star_but_at_its_end(name: str) -> None:
    """Vault matches nothing by a star in the middle."""
    assert all("*" not in path[:-1] for path in _paths(render(name, Mounts(("a",), ("team/",)))))


def test_every_rule_says_what_it_is_for() -> None:
    blocks = render(ENGINE, Mounts(("a",))).split("\n\n")
    assert (
        sum(block.startswith("#") for block in blocks) == len(blocks) - 1
    )  # revoke-self shares the words of renew-self


@pytest.mark.parametrize(
    "path",
    ["", "a*", "a/+", "/a", "a/", "a//b", 'a" {', "a b", "sys/mounts", "auth", "identity", "team/creds", "a/config/b"],
)
def test_a_path_that_would_open_more_is_refused(path: str) -> None:
    with pytest.raises(MountError):
        Mounts((path,))


@pytest.mark.parametrize("prefix", ["team-", "team", "/", "", "sys/", "team/*/", "team/creds/"])
def test_a_prefix_is_whole_segments(prefix: str) -> None:
    with pytest.raises(MountError):
        Mounts((), (prefix,))


def test_nothing_named_is_refused() -> None:
    with pytest.raises(MountError, match="no mount and no prefix"):
        Mounts(())
