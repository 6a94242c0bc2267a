"""Owns which keys are wanted: patterns as KEYS has them, types and dbs. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key is wanted if it matches one of `match` (or there is none), none of `exclude`, and is of one of the
    `kinds` and `dbs` (empty: all)."""

    match: tuple[re.Pattern[bytes], ...] = ()
    exclude: tuple[re.Pattern[bytes], ...] = ()
    kinds: frozenset[bytes] = frozenset()
    dbs: frozenset[int] = frozenset()

    def key(self, key: bytes) -> bool:
        if self.match and not any(pattern.match(key) for pattern in self.match):
            return False
        return not any(pattern.match(key) for pattern in self.exclude)

    def kind(self, kind: bytes) -> bool:
        return not self.kinds or kind in self.kinds

    def db(self, db: int) -> bool:
        return not self.dbs or db in self.dbs


def wanted(
    match: Sequence[str] = (), exclude: Sequence[str] = (), kinds: Collection[str] = (), dbs: Collection[int] = ()
) -> Wanted:
    """From what was said on the command line."""
    patterns = [tuple(glob(text.encode("utf-8", "surrogateescape")) for text in texts) for texts in (match, exclude)]
    return Wanted(patterns[0], patterns[1], frozenset(kind.encode() for kind in kinds), frozenset(dbs))


def glob(pattern: bytes) -> re.Pattern[bytes]:
    """A pattern of KEYS and SCAN as a regular expression: `*`, `?`, `[ab]`, `[^a-z]`, and a backslash before what
    stands for itself."""
    parts = []
    position = 0
    while position < len(pattern):
        char = pattern[position : position + 1]
        position += 1
        if char == b"*":
            parts.append(b".*")
        elif char == b"?":
            parts.append(b".")
        elif char == b"[":
            part, position = _set(pattern, position)
            parts.append(part)
        else:
            if char == b"\\" and position < len(pattern):
                char = pattern[position : position + 1]
                position += 1
            parts.append(re.escape(char))
    return re.compile(b"".join(parts) + rb"\Z", re.DOTALL)


def _set(pattern: bytes, position: int) -> tuple[bytes, int]:
    """What follows a `[`: the expression, and where the pattern goes on. Without its `]` the set ends with the
    pattern; an empty one matches nothing, as in Redis."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    members = []
    while position < len(pattern) and pattern[position : position + 1] != b"]":
        if pattern[position : position + 1] == b"\\" and position + 1 < len(pattern):
            position += 1
            members.append(re.escape(pattern[position : position + 1]))
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            low, high = sorted((pattern[position : position + 1], pattern[position + 2 : position + 3]))
            members.append(re.escape(low) + b"-" + re.escape(high))
            position += 2
        else:
            members.append(re.escape(pattern[position : position + 1]))
        position += 1
    if not members:
        return (b"." if negated else b"(?!)"), position + 1
    return b"[" + b"^" * negated + b"".join(members) + b"]", position + 1
