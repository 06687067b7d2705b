"""The command line, as far as it goes without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.kubectl_vault.commands import cli


@pytest.fixture(autouse=True)
def kubectl_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="kubectl vault")


@pytest.mark.parametrize("command", ["approve", "deny", "get", "describe"])
def test_help_explains_every_option(command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    for option in (
        "--kubeconfig",
        "--context",
        "--cluster",
        "--user",
        "--namespace",
        "--server",
        "--token",
        "--as",
        "--as-group",
    ):
        assert option in done.output
    for option in ("--insecure-skip-tls-verify", "--request-timeout"):
        assert option in done.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["approve"], "error: say what is meant: databaseaccessrequest NAME..., or -f FILE"),
        (["approve", "dar"], "error: say which ones: dar NAME..., or -f FILE"),
        (
            ["deny", "secret", "x"],
            'error: unknown resource "secret": this command knows databaseaccessrequest (in short dar)',
        ),
        (["approve", "dar", "x", "-f", "y"], "error: give names or -f FILE, not both"),
        (["approve", "-f", "none.yaml"], "error: cannot read none.yaml: No such file or directory"),
        (["approve", "dar", "x", "--reason", "y" * 1025], "error: --reason has at most 1024 characters"),
        (
            ["approve", "dar", "x", "--kubeconfig", "none", "--context", "dev"],
            "error: the kubeconfig cannot be used: cannot locate context dev",
        ),
        (
            ["approve", "dar", "x", "y", "--digest", "2:d1"],
            "error: a digest is that of one access request: with --digest name one",
        ),
        (["describe", "dar"], "error: say which ones: dar NAME..."),
        (["get", "dar", "x", "-A"], "error: a name belongs to one namespace: leave out -A or the name"),
        (
            ["get", "secrets"],
            'error: unknown resource "secrets": this command knows databaseaccessrequest (in short dar)',
        ),
    ],
)
def test_problems_are_one_line_on_standard_error_and_exit_1(args: list[str], says: str) -> None:
    done = run(*args)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"{says}\n")


@pytest.mark.parametrize(
    "args",
    [["nope"], ["get"], ["approve", "--nope"], ["get", "dar", "-o", "wide"], ["get", "dar", "--request-timeout", "x"]],
)
def test_wrong_usage_exits_2(args: list[str]) -> None:
    assert run(*args).exit_code == 2


@pytest.mark.parametrize(
    ("code", "said", "shown"),
    [
        (1, r"Error from server (Forbidden): \033]0;t\007f\n", r"\x1b]0;t\x07f"),
        (0, r"Warning: \033[2Jw\342\200\256\n", r"Warning: \x1b[2Jw\u202e"),
    ],
    ids=["error", "warning"],
)
def test_no_terminal_carries_out_what_a_server_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, said: str, shown: str
) -> None:
    """L: an admission policy, a webhook or an object words an error or a warning."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\nprintf '{said}' >&2\necho '{{\"metadata\": {{}}, \"items\": []}}'\nexit {code}\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done = run("get", "dar", "-n", "demo")
    assert shown in done.stderr
    assert done.exit_code == code
    assert not {"\x1b", "\x07", "\u202e"} & set(done.output)


def test_an_empty_file_decides_nothing(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing\n")
    done = run("approve", "-f", str(file))
    assert (done.exit_code, done.stdout) == (0, "No resources found\n")


def test_a_file_in_another_namespace_than_n_is_refused(tmp_path: Path) -> None:
    file, config = tmp_path / "request.yaml", tmp_path / "config"
    file.write_text(
        "{apiVersion: engine.kubevault.com/v1alpha1, kind: DatabaseAccessRequest, "
        "metadata: {name: a, namespace: other}}"
    )
    config.write_text(
        "{clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], "
        "contexts: [{name: x, context: {cluster: c}}], current-context: x}"
    )
    done = run("approve", "-f", str(file), "-n", "demo", "--kubeconfig", str(config))
    assert (done.exit_code, done.stderr) == (
        1,
        'error: a has namespace "other" in the file, but -n names "demo"\n',
    )


def test_no_library_but_click_is_loaded_for_help() -> None:
    heavy = ("kubernetes", "yaml", "urllib3", "grpc", "psycopg")
    program = f"import sys, cli.kubectl_vault.commands; print([m for m in sys.modules if m.split('.')[0] in {heavy}])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "[]"
