"""The contracts with their comments, as protoc reads them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from google.protobuf import descriptor_pb2 as pb

_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # field numbers of FileDescriptorProto, which a comment's path is made of
_FIELD, _NESTED_MESSAGE, _NESTED_ENUM, _VALUE, _METHOD = 2, 3, 4, 2, 2
_Path: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Commented:
    """All messages, enums and services by full name, and the comment of each, and of its members, by full name."""

    messages: dict[str, pb.DescriptorProto]
    enums: dict[str, pb.EnumDescriptorProto]
    services: dict[str, pb.ServiceDescriptorProto]
    comments: dict[str, str]


@cache
def read(root: Path) -> Commented:
    """Compile the contracts.

    Raises:
        subprocess.CalledProcessError: protoc refuses them.
    """
    protos = root / "protos"
    names = sorted(str(file.relative_to(protos)) for file in (protos / "leasegate").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.pb"
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I.",
            "--include_source_info",
            f"--descriptor_set_out={out}",
        ]
        subprocess.run([*command, *names], cwd=protos, check=True)
        files = pb.FileDescriptorSet.FromString(out.read_bytes())
    found = Commented({}, {}, {}, {})
    for file in files.file:
        by_path = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
        for name, path, kind in _definitions(file):
            _keep(found, name, kind)
            found.comments[name] = _clean(by_path.get(path, ""))
    return found


_Kind: TypeAlias = pb.DescriptorProto | pb.EnumDescriptorProto | pb.ServiceDescriptorProto | None


def _keep(found: Commented, name: str, kind: _Kind) -> None:
    if isinstance(kind, pb.DescriptorProto):
        found.messages[name] = kind
    elif isinstance(kind, pb.EnumDescriptorProto):
        found.enums[name] = kind
    elif isinstance(kind, pb.ServiceDescriptorProto):
        found.services[name] = kind


def _definitions(file: pb.FileDescriptorProto) -> Iterator[tuple[str, _Path, _Kind]]:
    """Full name and path of each definition and each member, with the definition itself."""
    for number, message in enumerate(file.message_type):
        yield from _message(message, file.package, (_MESSAGE, number))
    for number, enum in enumerate(file.enum_type):
        yield from _enum(enum, file.package, (_ENUM, number))
    for number, service in enumerate(file.service):
        name, path = f"{file.package}.{service.name}", (_SERVICE, number)
        yield name, path, service
        for index, method in enumerate(service.method):
            yield f"{name}.{method.name}", (*path, _METHOD, index), None


def _message(message: pb.DescriptorProto, scope: str, path: _Path) -> Iterator[tuple[str, _Path, _Kind]]:
    name = f"{scope}.{message.name}"
    yield name, path, message
    for index, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _FIELD, index), None
    for index, nested in enumerate(message.nested_type):
        yield from _message(nested, name, (*path, _NESTED_MESSAGE, index))
    for index, enum in enumerate(message.enum_type):
        yield from _enum(enum, name, (*path, _NESTED_ENUM, index))


def _enum(enum: pb.EnumDescriptorProto, scope: str, path: _Path) -> Iterator[tuple[str, _Path, _Kind]]:
    name = f"{scope}.{enum.name}"
    yield name, path, enum
    for index, value in enumerate(enum.value):
        yield f"{name}.{value.name}", (*path, _VALUE, index), None


def _clean(comment: str) -> str:
    """A comment as paragraphs of one line each."""
    paragraphs = "\n".join(line.strip() for line in comment.splitlines()).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()
