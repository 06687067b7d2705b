"""No retired word is left in identifiers, documents, Events, conditions, protos, CRDs and command line texts."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.docs.retired_words import ALLOWED, LOGIN, NAMES, WORDS
from tests.docs.sources import name_of, text_of, tokens_of, tracked

TEXTS = tracked(".md", ".proto", ".py", ".yaml", ".tmpl", ".console", ".toml", "Makefile")
_FORMS = [form for retired in WORDS for form in retired.words]
_WORD = re.compile(rf"(?<![A-Za-z])({'|'.join(_FORMS)})(?![a-z])", re.IGNORECASE)
_NAME = re.compile(rf"(?<![A-Za-z])({'|'.join(NAMES)})(?![A-Za-z])")
_EXEMPT = re.compile(LOGIN)
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def _allowed(file: Path, word: str) -> bool:
    words, _ = ALLOWED.get(name_of(file), ("", ""))
    return words == "*" or word.lower() in words.split(", ")


def _use(word: str) -> str:
    return NAMES.get(word) or next(each.use for each in WORDS if " ".join(word.lower().split()) in each.words)


def _identifiers(file: Path) -> Iterator[tuple[int, str, str]]:
    """Line, identifier and retired word of each identifier that has one."""
    single = {form for form in _FORMS if " " not in form}
    former = ""
    for token in tokens_of(file):
        if token.type == tokenize.NAME:
            words = [part for part in _PARTS.findall(token.string) if part.lower() in single]
            if token.string in NAMES:
                words.append(token.string)
            exempt = token.string in ("LOGIN", "NOLOGIN") or (token.string == "login" and former == ".")
            exempt = exempt or "LoginHasPolicies" in token.string or "LOGIN_HAS_POLICIES" in token.string
            yield from ((token.start[0], token.string, word) for word in words if not exempt)
        former = token.string


def _texts(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of what people read: of code its comments and strings, of anything else all."""
    if file.suffix != ".py":
        yield from enumerate(text_of(file).splitlines(), 1)
        return
    for token in tokens_of(file):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield token.start[0], token.string


def _found() -> Iterator[str]:
    for file in TEXTS:
        if not (_WORD.search(text_of(file)) or _NAME.search(text_of(file))):
            continue
        for line, text in _texts(file):
            for match in [*_WORD.finditer(_EXEMPT.sub("", text)), *_NAME.finditer(text)]:
                if not _allowed(file, match[0]):
                    yield f"{name_of(file)}:{line}: {match[0]} (use: {_use(match[0])})"
        if file.suffix == ".py":
            for line, identifier, word in _identifiers(file):
                if not _allowed(file, word):
                    yield f"{name_of(file)}:{line}: {identifier} (use: {_use(word)})"


def test_no_retired_word_is_left() -> None:
    found = list(_found())
    assert found == [], f"{len(found)} retired words"


def test_every_allowance_is_needed() -> None:
    for name in ALLOWED:
        file = next(each for each in TEXTS if name_of(each) == name)
        assert _WORD.search(text_of(file)) or _NAME.search(text_of(file)), name
