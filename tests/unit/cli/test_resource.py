"""Words and files that name requests."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cli.kubectl_vault.errors import CommandError
from cli.kubectl_vault.resource import Named, parse_names, read_file

ONE = "apiVersion: engine.kubevault.com/v1alpha1\nkind: DatabaseAccessRequest\nmetadata: {name: a, namespace: demo}\n"
TWO = "apiVersion: engine.kubevault.com/v1alpha1\nkind: DatabaseAccessRequest\nmetadata: {name: b}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["databaseaccessrequest", "a", "b"],
        ["databaseaccessrequests", "a", "b"],
        ["dar", "a", "b"],
        ["DatabaseAccessRequest", "a", "b"],
        ["databaseaccessrequests.engine.kubevault.com", "a", "b"],
        ["databaseaccessrequest.v1alpha1.engine.kubevault.com", "a", "b"],
        ["databaseaccessrequest/a", "dar/b"],
        ["databaseaccessrequests.engine.kubevault.com/a", "dar/b"],
    ],
)
def test_all_ways_to_name_requests(words: list[str]) -> None:
    assert parse_names(words) == ["a", "b"]


def test_a_type_alone_names_none() -> None:
    assert parse_names(["dar"]) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "databaseaccessrequest NAME"),
        (["awsaccesskeyrequest", "a"], 'unknown resource "awsaccesskeyrequest"'),
        (["secrets/a"], 'unknown resource "secrets"'),
        (["databaseaccessrequests.other.group", "a"], "unknown resource"),
        (["dar", "dar/a"], "dar/a: after a type come names alone"),
        (["dar/a", "b"], "b: write each one as databaseaccessrequest/NAME"),
        (["dar/"], "dar/: write each one as"),
    ],
)
def test_what_is_meant_by_nobody_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        parse_names(words)


def test_a_file_names_requests_in_documents_and_lists(tmp_path: Path) -> None:
    file = tmp_path / "requests.yaml"
    indented = ONE.replace("\n", "\n    ").rstrip()
    file.write_text(f"{ONE}---\n---\n{TWO}---\napiVersion: v1\nkind: List\nitems:\n  - {indented}\n")
    assert read_file(str(file)) == [Named("a", "demo"), Named("b"), Named("a", "demo")]


def test_an_empty_file_names_none(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing\n")
    assert read_file(str(file)) == []


def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(ONE))
    assert read_file("-") == [Named("a", "demo")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "is no YAML"),
        (b"\xff\xfe\xff", "cannot read"),
        (b"just words", "holds a str"),
        (b"[1, 2]", "holds a list"),
        (b"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n", "holds a Secret"),
        (
            b"apiVersion: other/v1\nkind: DatabaseAccessRequest\nmetadata: {name: s}\n",
            "only a DatabaseAccessRequest of engine.kubevault.com",
        ),
        (b"apiVersion: engine.kubevault.com/v1alpha1\nkind: DatabaseAccessRequest\n", "without metadata.name"),
        (
            b"apiVersion: engine.kubevault.com/v1alpha1\nkind: DatabaseAccessRequest\nmetadata: {name: 7}\n",
            "without metadata.name",
        ),
        (
            b"apiVersion: engine.kubevault.com/v1alpha1\nkind: DatabaseAccessRequest\nmetadata: x\n",
            "without metadata.name",
        ),
        (b"{}", "thing without a kind"),
    ],
)
def test_a_file_with_anything_else_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    with pytest.raises(CommandError, match=says):
        read_file(str(file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot read .*/none.yaml: No such file"):
        read_file(str(tmp_path / "none.yaml"))
