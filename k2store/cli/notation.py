r"""Bytes on a command line: printable UTF-8 as it is, any other byte as ``\xNN``, ``\\`` for ``\``.

The notation is exact in both directions: ``parse(show(data)) == data`` for any bytes.
"""

from __future__ import annotations

import re
from typing import Final

from k2store.errors import Rejected

_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(\\))|(\\)")


def show(data: bytes) -> str:
    """Bytes as text."""
    parts = []
    # Undecodable bytes come out as lone surrogates U+DC80..U+DCFF, which are not printable.
    for character in data.decode("utf-8", "surrogateescape"):
        if character == "\\":
            parts.append("\\\\")
        elif character.isprintable():
            parts.append(character)
        else:
            raw = character.encode("utf-8", "surrogateescape")
            parts.append("".join(f"\\x{byte:02x}" for byte in raw))
    return "".join(parts)


def parse(text: str) -> bytes:
    """Text as bytes; raises :class:`Rejected` on a backslash that escapes nothing."""

    def unescape(match: re.Match[str]) -> str:
        digits, backslash, stray = match.groups()
        if stray is not None:
            raise Rejected(
                rf"a backslash must be followed by another or by xNN: {text!r} at {match.start()}",
                field="key",
            )
        if backslash is not None:
            return "\\"
        byte = int(digits, 16)
        return bytes([byte]).decode("latin-1") if byte < 0x80 else chr(0xDC00 + byte)

    return _ESCAPE.sub(unescape, text).encode("utf-8", "surrogateescape")
