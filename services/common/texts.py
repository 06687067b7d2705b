r"""Foreign text made harmless for a terminal, a log line or a status, in one place. Pure, and imports nothing heavy.

A remote error text, an object's name or a member of a status may hold what a terminal carries out (ANSI escapes, C0 and
C1 controls), what shows text in another order (bidi controls), and what is not seen at all (zero-width and tag
characters). Each of these characters is shown as the escape that Python and JSON have for it, such as ``\u202e``.
"""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that show nothing although Python counts them as printable."""


def escaped(text: str, *, keep: str = "") -> str:
    """Escape what is no letter, digit, mark, punctuation, symbol or space.

    A text that was escaped before stays as it is.

    Args:
        text: Of any origin.
        keep: Characters that stay although they would be escaped, such as a line end that the writer's own code made.
    """
    if _is_seen(text):
        return text
    return "".join(each if each in keep or _is_seen(each) else _escape(each) for each in text)


def escaped_lines(text: str) -> str:
    """The same for a text of several lines, whose line ends are its writer's own."""
    return escaped(text, keep="\n")


def escaped_json(document: str) -> str:
    """The same for a JSON document: its strings keep their value, as JSON reads these escapes."""
    if _is_seen(document.replace("\n", "")):
        return document
    return "".join(each if each == "\n" or _is_seen(each) else _json_escape(each) for each in document)


def is_harmless(text: str) -> bool:
    """Whether a text of several lines can be printed as it is."""
    return _is_seen(text.replace("\n", ""))


def _is_seen(text: str) -> bool:
    return text.isprintable() and (text.isascii() or not _UNSEEN.search(text))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
