"""The Go programs of the local stack, each with a folder of its own that has its go.mod and go.sum."""

from __future__ import annotations

import re
from pathlib import Path

from dev.stack.errors import StackError
from dev.stack.go_build import GoProgram, Say, build_program, say_on_stderr

_HERE = Path(__file__).parent


def kube_binary(say: Say = say_on_stderr) -> Path:
    """The control plane: etcd, kube-apiserver and kube-controller-manager in one program."""
    return build_program(_kube(), say)


def grpcurl_binary(say: Say = say_on_stderr) -> Path:
    """grpcurl, which calls the gRPC API from a shell. Releases before 1.9.2 cannot read protobuf editions."""
    return build_program(_go_tool("grpcurl", "github.com/fullstorydev/grpcurl", estimate="1 to 2 minutes"), say)


def vale_binary(say: Say = say_on_stderr) -> Path:
    """Vale, which checks prose against the project's vocabulary (.vale.ini)."""
    return build_program(_go_tool("vale", "github.com/vale-cli/vale/v3", estimate="1 minute"), say)


def _kube() -> GoProgram:
    source = _HERE / "kube"
    version = _required_version(source, "k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    named = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}  # what kube-apiserver says it is
    variables = {f"k8s.io/component-base/version.{key}": value for key, value in named.items()}
    return GoProgram("kube", source, ".", variables, estimate="5 to 10 minutes")


def _go_tool(name: str, module: str, *, estimate: str) -> GoProgram:
    source = _HERE / name
    variables = {"main.version": _required_version(source, module)}
    return GoProgram(name, source, f"{module}/cmd/{name}", variables, estimate)


def _required_version(source: Path, module: str) -> str:
    found = re.search(rf"{re.escape(module)} (v\d+\.\d+\.\S+)", (source / "go.mod").read_text())
    if found is None:
        raise StackError(f"{source}/go.mod does not require {module}")
    return found.group(1)
