"""Numbers as Redis reads them from an argument: strict, and bounded before they are converted. Pure."""

from __future__ import annotations

MAX_DIGITS = 20  # of a signed 64-bit integer, sign included
INT64_MAX = 2**63 - 1


def integer(text: bytes) -> int | None:
    """A 64-bit integer in Redis' only spelling (no sign "+", no blanks, no leading zeros), or None."""
    if not text or len(text) > MAX_DIGITS:
        return None
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or (digits[:1] == b"0" and text != b"0"):
        return None
    value = int(text)
    return value if -INT64_MAX - 1 <= value <= INT64_MAX else None
