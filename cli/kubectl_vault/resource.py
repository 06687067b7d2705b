"""Which access requests are meant: by words of the command line, or by files. Pure except for reading the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.kubectl_vault.errors import CommandError

GROUP, VERSION, PLURAL, KIND = "engine.kubevault.com", "v1alpha1", "databaseaccessrequests", "DatabaseAccessRequest"
SINGULAR = "databaseaccessrequest"
_TYPES = {
    f"{name}{suffix}" for name in (SINGULAR, PLURAL, "dar") for suffix in ("", f".{GROUP}", f".{VERSION}.{GROUP}")
}


@dataclass(frozen=True, slots=True)
class Named:
    """One access request by name; the namespace is empty where the file has none."""

    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f'{SINGULAR} "{self.name}" in namespace "{self.namespace}"'


def parse_names(words: Sequence[str]) -> list[str]:
    """Read ``TYPE NAME...`` or ``TYPE/NAME...`` as kubectl does.

    Raises:
        CommandError: The type is another one, or the two forms are mixed.
    """
    if not words:
        raise CommandError(f"say what is meant: {SINGULAR} NAME..., or -f FILE")
    if "/" not in words[0]:
        _check_type(words[0])
        if mixed := [word for word in words[1:] if "/" in word]:
            raise CommandError(f"{mixed[0]}: after a type come names alone")
        return list(words[1:])
    return [_split(word) for word in words]


def _split(word: str) -> str:
    kind, slash, name = word.partition("/")
    if not slash or not name:
        raise CommandError(f"{word}: write each one as {SINGULAR}/NAME")
    _check_type(kind)
    return name


def _check_type(word: str) -> None:
    if word.lower() not in _TYPES:
        raise CommandError(f'unknown resource "{word}": this command knows {SINGULAR} (in short dar)')


def read_file(path: str) -> list[Named]:
    """Read the access requests of a YAML or JSON file, ``-`` for standard input; of several documents and Lists too.

    Raises:
        CommandError: The file cannot be read, or names something else.
    """
    import yaml  # only this needs it

    try:
        text = _text(path)
        return [_named(item, path) for document in yaml.safe_load_all(text) for item in _items(document)]
    except (OSError, UnicodeDecodeError) as err:
        raise CommandError(f"cannot read {path}: {getattr(err, 'strerror', None) or err}") from err
    except yaml.YAMLError as err:
        raise CommandError(f"{path} is no YAML: {' '.join(str(err).split())}") from err


def _text(path: str) -> str:
    if path != "-":
        return Path(path).read_text(encoding="utf-8")
    return sys.stdin.read()


def _items(document: Any) -> Iterator[Any]:
    if isinstance(document, dict) and isinstance(document.get("items"), list):
        yield from document["items"]
    elif document is not None:
        yield document


def _named(item: Any, path: str) -> Named:
    if (
        not isinstance(item, dict)
        or item.get("kind") != KIND
        or not str(item.get("apiVersion", "")).startswith(f"{GROUP}/")
    ):
        found = item.get("kind") if isinstance(item, dict) else type(item).__name__
        raise CommandError(f"{path} holds a {found or 'thing without a kind'}: only a {KIND} of {GROUP} can be decided")
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        raise CommandError(f"{path} holds a {KIND} without metadata.name")
    return Named(name, str(metadata.get("namespace") or ""))
