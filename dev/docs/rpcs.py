"""Every RPC: who may call it, its comment, its fields and a grpcurl line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from dev.docs.markdown import code, page, table
from dev.docs.protos import Commented, read

PORTS = {"leasegate.engine.v1": 7701, "leasegate.roles.v1": 7702, "leasegate.access.v1": 7703}
INTRO = """The three services speak gRPC over mutual TLS. Who may call a service is said by its option `--allow`
([configuration](configuration.md)); errors are `google.rpc.Status` ([errors](errors.md)). The lines below assume

```sh
grpcurl() { command grpcurl -cacert ca.pem -cert client.pem -key client.key "$@"; }
```

with the PEM files of your certificate and of the authority of the services' certificates. The services support
reflection, so `grpcurl 127.0.0.1:7703 describe` works as well."""
_WELL_KNOWN: dict[str, Any] = {
    "google.protobuf.Duration": "3600s",
    "google.protobuf.Timestamp": "2030-01-01T00:00:00Z",
    "google.protobuf.Any": {},
}
_DEPTH = 2


def render(root: Path) -> str:
    """One section a service; the messages and enums that requests and responses share follow."""
    found = read(root)
    services = sorted(found.services, key=lambda name: (list(PORTS).index(name.rpartition(".")[0]), name))
    parts = [INTRO, *(part for name in services for part in _service(found, name))]
    own = {method.input_type[1:] for each in found.services.values() for method in each.method}
    own |= {method.output_type[1:] for each in found.services.values() for method in each.method}
    parts.append("## Messages")
    parts += [part for name in sorted(set(found.messages) - own) for part in _message(found, name, f"### {name}")]
    parts.append("## Enums")
    parts += [part for name in sorted(found.enums) if "ErrorReason" not in name for part in _enum(found, name)]
    return page("gRPC", source="`protos/leasegate`", parts=parts)


def _service(found: Commented, name: str) -> Iterator[str]:
    service = found.services[name]
    yield f"## {name}"
    yield found.comments[name]
    yield table(
        ("RPC", "called by", "what it does"),
        (
            (
                f"[{method.name}](#{(service.name + method.name).lower()})",
                _called_by(comment),
                comment.partition("\n\n")[0],
            )
            for method in service.method
            for comment in [found.comments[f"{name}.{method.name}"]]
        ),
    )
    for method in service.method:
        yield f"### {service.name}.{method.name}"
        yield found.comments[f"{name}.{method.name}"]
        example = json.dumps(_example(found, method.input_type[1:], _DEPTH))
        port = PORTS[name.rpartition(".")[0]]
        yield code(f"grpcurl -d '{example}' 127.0.0.1:{port} {name}/{method.name}", "sh")
        yield from _message(found, method.input_type[1:], "Request:")
        yield from _message(found, method.output_type[1:], "Response:")


def _called_by(comment: str) -> str:
    called = re.search(r"Called by ([^.]*)\.", comment)
    return called[1] if called else ""


def _message(found: Commented, name: str, heading: str) -> Iterator[str]:
    message = found.messages[name]
    if message.options.map_entry:
        return
    fields = [
        (f"`{field.name}`", _type(found, field), found.comments[f"{name}.{field.name}"]) for field in message.field
    ]
    yield heading if fields or heading.startswith("#") else f"{heading} no fields."
    if heading.startswith("#"):
        yield found.comments[name]
    yield table(("field", "type", "description"), fields)


def _enum(found: Commented, name: str) -> Iterator[str]:
    yield f"### {name}"
    yield found.comments[name]
    values = found.enums[name].value
    yield table(("value", "meaning"), ((f"`{value.name}`", found.comments[f"{name}.{value.name}"]) for value in values))


def _type(found: Commented, field: FieldDescriptorProto) -> str:
    if field.type_name:
        name = field.type_name[1:]
        entry = found.messages.get(name, DescriptorProto())
        if entry.options.map_entry:
            key, value = entry.field
            return f"map of {_type(found, key)} to {_type(found, value)}"
        known = name in found.messages or name in found.enums
        kind = f"[{name.rpartition('.')[2]}](#{name.lower().replace('.', '')})" if known else f"`{name}`"
    else:
        kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = f"repeated {kind}" if field.label == FieldDescriptorProto.LABEL_REPEATED else kind
    return f"optional {kind}" if field.proto3_optional else kind


def _example(found: Commented, name: str, depth: int) -> Any:
    """A request as JSON whose values are placeholders named after the fields; of a oneof the first member."""
    if name in _WELL_KNOWN:
        return _WELL_KNOWN[name]
    shown: dict[str, Any] = {}
    oneofs: set[int] = set()
    for field in found.messages[name].field:
        if field.HasField("oneof_index") and not field.proto3_optional:
            if field.oneof_index in oneofs:
                continue
            oneofs.add(field.oneof_index)
        value = _value(found, field, depth)
        if value is not None:
            shown[field.json_name] = [value] if field.label == FieldDescriptorProto.LABEL_REPEATED else value
    return shown


def _value(found: Commented, field: FieldDescriptorProto, depth: int) -> Any:
    name = field.type_name[1:]
    if name in found.enums:
        return found.enums[name].value[1].name
    if name:
        is_map = name in found.messages and found.messages[name].options.map_entry
        return None if depth == 1 or is_map else _example(found, name, depth - 1)
    if field.type == FieldDescriptorProto.TYPE_BOOL:
        return False
    if field.type == FieldDescriptorProto.TYPE_STRING:
        return field.name.upper()
    return "" if field.type == FieldDescriptorProto.TYPE_BYTES else 0
