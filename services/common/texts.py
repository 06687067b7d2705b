r"""Foreign text made harmless for a terminal, a log line or a status, in one place. Pure, and imports nothing heavy.

A remote error text, an object's name or a member of a status may hold what a terminal carries out (ANSI escapes, C0 and
C1 controls), what shows text in another order (bidi controls), and what is not seen at all (zero-width and tag
characters). Each of these characters is shown as the escape that Python and JSON have for it, such as ``\u202e``.
"""

from __future__ import annotations

import re

_UNSEEN = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: line breaks, ESC and CSI among them
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # Default_Ignorable_Code_Point
    "\u2028-\u202e"  # line and paragraph separator, bidi embeddings and overrides
    "\ud800-\udfff"  # halves of a pair, as no encoding has them
)
_HARMFUL = re.compile(f"[{_UNSEEN}]")
_HARMFUL_IN_LINES = re.compile(rf"(?!\n)[{_UNSEEN}]")


def escaped(text: str) -> str:
    """Return one line in which every control, bidi and zero-width character is shown as an escape.

    A text that was escaped before stays as it is.
    """
    return _HARMFUL.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """The same for a text of several lines, whose line breaks are its writer's own."""
    return _HARMFUL_IN_LINES.sub(_escape, text)


def escaped_json(document: str) -> str:
    """The same for a JSON document: its strings keep their value, as JSON reads these escapes."""
    return _HARMFUL_IN_LINES.sub(_json_escape, document)


def is_harmless(text: str) -> bool:
    """Whether a text of several lines can be printed as it is."""
    return _HARMFUL_IN_LINES.search(text) is None


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in _SHORT:
        return _SHORT[found[0]]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
