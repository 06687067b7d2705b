"""How kubectl is run, and what is made of its output. The kubectl of these tests is a shell script."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from cli.kubectl_vault.errors import CommandError
from cli.kubectl_vault.kubectl import Kubectl, KubectlError, read_stderr
from cli.kubectl_vault.options import kubectl_flags


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kubectl on PATH; a test writes it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "kubectl"


def write_script(script: Path, body: str) -> Kubectl:
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return Kubectl(["--context=dev", "--as=bob"], print_stderr=lambda line: None)


def error_of(*lines: str) -> KubectlError:
    error = read_stderr(lines, pytest.fail).error
    assert error is not None
    assert "\n" not in str(error)
    return error


def test_kubectl_gets_the_flags_after_the_arguments(script: Path) -> None:
    assert write_script(script, 'echo "$@"').run("get", "--raw=/x") == "get --raw=/x --context=dev --as=bob\n"


def test_output_of_any_size_is_read(script: Path) -> None:
    kubectl = write_script(script, "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2")
    assert kubectl.run("get") == "x" * 300_000


def test_a_failed_run_raises_the_error_of_kubectl(script: Path) -> None:
    kubectl = write_script(script, 'echo "Error from server (NotFound): x not found" >&2; exit 1')
    with pytest.raises(KubectlError, match=r"^x not found$") as error:
        kubectl.run("get")
    assert error.value.reason == "NotFound"


def test_a_failed_run_without_an_error_says_how_it_ended(script: Path) -> None:
    with pytest.raises(KubectlError, match="kubectl get failed with exit code 7"):
        write_script(script, "exit 7").run("get")


def test_a_missing_kubectl_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match="there is no kubectl on PATH"):
        Kubectl([], print_stderr=pytest.fail)


def test_lines_before_the_error_are_printed_at_once(script: Path) -> None:
    printed: list[str] = []
    lines = ["To sign in, open this page\n", "\n", "error: You must be logged in to the server (Unauthorized)\n"]
    error = read_stderr(lines, printed.append).error
    assert printed == ["To sign in, open this page"]
    assert str(error) == "You must be logged in to the server (Unauthorized)"


def test_warnings_lose_what_kubernetes_puts_around_them() -> None:
    by_policy = (
        "Warning: Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': self-approved: \"yes\"\n"
    )
    stderr = read_stderr([by_policy, "Warning: odd\n"], pytest.fail)
    assert (stderr.warnings, stderr.error) == (['Warning: self-approved: "yes"', "Warning: odd"], None)


@pytest.mark.parametrize(("code", "printed"), [(0, ["Warning: odd"]), (1, [])])
def test_warnings_of_a_failed_run_are_not_printed(script: Path, code: int, printed: list[str]) -> None:
    found: list[str] = []
    write_script(script, f'echo "Warning: odd" >&2; exit {code}')
    with contextlib.suppress(KubectlError):
        Kubectl([], print_stderr=found.append).run("get")
    assert found == printed


@pytest.mark.parametrize(
    ("lines", "text", "reason"),
    [
        (["Error from server (Forbidden): no\n"], "no", "Forbidden"),
        (["Error from server: no\n"], "no", "Unknown"),
        (['The Thing "r" is invalid: \n', "* spec.a: wrong\n"], 'The Thing "r" is invalid: * spec.a: wrong', "Invalid"),
        (["Unable to connect to the server: dial tcp: refused\n"], "dial tcp: refused", ""),
        (
            ["The connection to the server x was refused - did you specify the right host or port?\n"],
            "The connection to the server x was refused - did you specify the right host or port?",
            "",
        ),
        (['E1129 21:27:11.88   152 memcache.go:381] "no API"\n', "error: no\n"], "no", ""),
    ],
)
def test_an_error_is_one_line_with_its_reason(lines: list[str], text: str, reason: str) -> None:
    error = error_of(*lines)
    assert (str(error), error.reason) == (text, reason)


def test_every_connection_flag_is_passed_on() -> None:
    values = {
        "context": "dev",
        "server": "https://there:6443",
        "act_as": "bob",
        "as_groups": ("a", "b"),
        "insecure": True,
        "request_timeout_s": 1.5,
    }
    assert set(kubectl_flags(values)) == {
        "--request-timeout=1500ms",
        "--server=https://there:6443",
        "--context=dev",
        "--as=bob",
        "--as-group=a",
        "--as-group=b",
        "--insecure-skip-tls-verify",
    }


def test_a_call_takes_thirty_seconds_at_most_unless_asked_otherwise() -> None:
    assert kubectl_flags({}) == ["--request-timeout=30000ms"]
