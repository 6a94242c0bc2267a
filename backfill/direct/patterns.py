"""Owns Redis' glob patterns (KEYS, SCAN MATCH), for what no server filters for us. Pure.

`*` any bytes, `?` one byte, `[abc]`, `[^a]`, `[a-z]`, `\\x` the byte x; an open bracket at the end closes by itself, as
in Redis' own stringmatchlen. That function finds an empty name with an empty pattern only; SCAN and KEYS do not ask it
about `*`, but about `**` they do.
"""

from __future__ import annotations

import re


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """What `fullmatch` finds is what SCAN MATCH finds."""
    if len(pattern) > 1 and not pattern.strip(b"*"):
        return re.compile(b".+", re.DOTALL)
    parts: list[bytes] = []
    position = 0
    while position < len(pattern):
        char = pattern[position : position + 1]
        if char == b"*":
            if not parts or parts[-1] != b".*":  # "**" is "*", and a regular expression would take for ever
                parts.append(b".*")
        elif char == b"?":
            parts.append(b".")
        elif char == b"[":
            text, position = _bracket(pattern, position + 1)
            parts.append(text)
        else:
            if char == b"\\" and position + 1 < len(pattern):
                position += 1
                char = pattern[position : position + 1]
            parts.append(re.escape(char))
        position += 1
    return re.compile(b"".join(parts), re.DOTALL)


def _bracket(pattern: bytes, position: int) -> tuple[bytes, int]:
    """The class that begins behind a "[", and where it ends."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    ranges: list[tuple[int, int]] = []
    while position < len(pattern) and pattern[position] != ord("]"):
        if pattern[position] == ord("\\") and position + 1 < len(pattern):
            position += 1
            ranges.append((pattern[position], pattern[position]))
        elif position + 2 < len(pattern) and pattern[position + 1] == ord("-"):
            ranges.append(
                (min(pattern[position], pattern[position + 2]), max(pattern[position], pattern[position + 2]))
            )
            position += 2
        else:
            ranges.append((pattern[position], pattern[position]))
        position += 1
    if not ranges:
        return (b"." if negated else b"(?!)"), position
    inside = b"".join(re.escape(bytes([low])) + b"-" + re.escape(bytes([high])) for low, high in ranges)
    return b"[" + (b"^" if negated else b"") + inside + b"]", position
