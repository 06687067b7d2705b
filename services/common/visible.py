"""Shows texts of others to people, so that nothing in them hides or reorders what stands beside. Pure."""

from __future__ import annotations

_SELECTORS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(number) for numbers in _SELECTORS for number in numbers
}
"""Characters that Python counts as printable although they show nothing."""


def visible(text: str, *, keep: str = "") -> str:
    r"""Escape the control, bidirectional and invisible characters of a text, such as ``\u202e``.

    Args:
        text: Of any origin.
        keep: Characters that stay although they would be escaped, such as a line end.
    """
    return "".join(each if each in keep or is_visible(each) else _escaped(each) for each in text)


def is_visible(character: str) -> bool:
    """Whether a character shows as itself: letters, digits, marks, punctuation, symbols and the space."""
    return character.isprintable() and character not in _INVISIBLE


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
