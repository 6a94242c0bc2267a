"""Owns which keys are meant: patterns, types, dbs, slots. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from resp.slots import SLOTS, key_slot

from ..errors import BackfillError
from .patterns import compile_pattern

TYPES = (b"string", b"list", b"set", b"zset", b"hash", b"stream")


@dataclass(frozen=True, slots=True)
class Selection:
    """A key is meant if it matches any of `match` (or there is none), none of `exclude`... Empty: all keys are."""

    match: tuple[bytes, ...] = ()
    exclude: tuple[bytes, ...] = ()
    types: frozenset[bytes] = frozenset()
    dbs: frozenset[int] = frozenset()
    slots: tuple[tuple[int, int], ...] = ()  # first and last
    _wanted: tuple[re.Pattern[bytes], ...] = field(default=(), init=False, repr=False)
    _unwanted: tuple[re.Pattern[bytes], ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_wanted", tuple(map(compile_pattern, self.match)))
        object.__setattr__(self, "_unwanted", tuple(map(compile_pattern, self.exclude)))

    @property
    def everything(self) -> bool:
        return not (self.match or self.exclude or self.types or self.dbs or self.slots)

    def has_db(self, db: int) -> bool:
        return not self.dbs or db in self.dbs

    def admits(self, key: bytes) -> bool:
        """Whether a key of this name is meant, whatever its type."""
        if self._wanted and not any(pattern.fullmatch(key) for pattern in self._wanted):
            return False
        if any(pattern.fullmatch(key) for pattern in self._unwanted):
            return False
        if self.slots:
            slot = key_slot(key)
            return any(first <= slot <= last for first, last in self.slots)
        return True

    def filter(self, keys: list[bytes]) -> list[bytes]:
        """The keys that are meant, out of what a scan with `scan_options` gave."""
        if not (self.match or self.exclude or self.slots):
            return keys
        return [key for key in keys if self.admits(key)]

    def scan_options(self) -> list[bytes]:
        """What SCAN can do of it, to spare the way."""
        options = [b"MATCH", self.match[0]] if len(self.match) == 1 else []
        if len(self.types) == 1:
            options += [b"TYPE", *self.types]
        return options

    def describe(self) -> dict[str, object]:
        """For a checkpoint: two selections are the same if this is."""
        return {
            "match": [pattern.hex() for pattern in self.match],
            "exclude": [pattern.hex() for pattern in self.exclude],
            "types": sorted(kind.decode() for kind in self.types),
            "dbs": sorted(self.dbs),
            "slots": [list(pair) for pair in self.slots],
        }


def parse_slots(texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """ "0-5460" or "7" -> first and last. Errors: BackfillError."""
    found = []
    for text in texts:
        first, dash, last = text.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise BackfillError(f"{text!r} is not a range of slots: write 0-5460")
        pair = int(first), int(last or first)
        if not pair[0] <= pair[1] < SLOTS:
            raise BackfillError(f"slots go from 0 to {SLOTS - 1}, the first before the last: {text!r}")
        found.append(pair)
    return tuple(found)
