"""The tracked files of the repository, and the parts of them that the guards look at."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = "protos/gen/"


@cache
def tracked(*suffixes: str) -> tuple[Path, ...]:
    """Tracked files that still exist, generated code aside, by suffix."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name and not name.startswith(GENERATED)]
    found = (ROOT / name for name in names if not suffixes or name.endswith(suffixes))
    return tuple(file for file in found if file.is_file())


def name_of(file: Path) -> str:
    """Path of a file in the repository."""
    return file.relative_to(ROOT).as_posix()


@cache
def text_of(file: Path) -> str:
    """Text of a file."""
    return file.read_text(encoding="utf-8")


@cache
def tokens_of(file: Path) -> tuple[tokenize.TokenInfo, ...]:
    """Tokens of a Python file."""
    return tuple(tokenize.generate_tokens(io.StringIO(text_of(file)).readline))


@cache
def prose_of(file: Path) -> tuple[tuple[int, str], ...]:
    """Line number and text of each comment and docstring of a Python file; of any other file each line."""
    if file.suffix != ".py":
        return tuple(enumerate(text_of(file).splitlines(), 1))
    comments = [(token.start[0], token.string) for token in tokens_of(file) if token.type == tokenize.COMMENT]
    texts = [
        (node.lineno, node.value.value)
        for node in ast.walk(ast.parse(text_of(file)))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return (*comments, *texts)


def find_in_prose(pattern: re.Pattern[str], files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Place and text of each match in comments, docstrings and documents; of a group, if the pattern has one."""
    for file in files:
        if pattern.search(text_of(file)):
            for line, text in prose_of(file):
                for match in pattern.finditer(text):
                    yield f"{name_of(file)}:{line}", match[pattern.groups]
