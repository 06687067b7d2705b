"""The little jq prints what jq would for the filters of the guide."""

from __future__ import annotations

import io
import json

import pytest

from dev.stack.jq import FilterError, main, select

REQUEST = {
    "status": {"lease": {"renewable": True, "id": "a/b"}, "conditions": [{"type": "Approved"}, {"type": "Available"}]},
    "a.b": None,
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".", [REQUEST]),
        (".status.lease.id", ["a/b"]),
        (".status.conditions[0].type", ["Approved"]),
        (".status.conditions[-1].type", ["Available"]),
        (".status.conditions[].type", ["Approved", "Available"]),
        (".status.conditions[7]", [None]),
        ('."a.b"', [None]),
        ('.["a.b"]', [None]),
        (".nothing.below", [None]),
    ],
)
def test_a_path_finds_what_it_names(path: str, found: list[object]) -> None:
    assert list(select(REQUEST, path)) == found


@pytest.mark.parametrize("path", [".status | keys", "length", ".status.lease.id.more", ".status[0]"])
def test_what_is_no_path_or_does_not_fit_is_an_error(path: str) -> None:
    with pytest.raises(FilterError):
        list(select(REQUEST, path))


def _printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str, given: str
) -> tuple[int, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    code = main(list(arguments))
    return code, capsys.readouterr().out


def test_it_prints_with_two_blanks_as_the_guide_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = _printed(monkeypatch, capsys, ".status.lease", given=json.dumps(REQUEST))
    assert (code, out) == (0, '{\n  "renewable": true,\n  "id": "a/b"\n}\n')


def test_raw_output_has_no_quotes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _printed(monkeypatch, capsys, "-r", ".status.lease.id", given=json.dumps(REQUEST)) == (0, "a/b\n")


@pytest.mark.parametrize(("path", "given"), [(".a", "no json"), ("keys", "{}")])
def test_an_error_is_told_by_exit_code_5(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: str, given: str
) -> None:
    assert _printed(monkeypatch, capsys, path, given=given) == (5, "")
