"""Owns what a key's state is: plain values, read at one point of a server's history. No command, no reply format.

Times are Unix milliseconds of the clock of the server that was read, as no other clock is exact about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

MISSING = b"none"  # as TYPE has it


@dataclass(frozen=True, slots=True)
class Hash:
    """Fields, and the deadlines of those that have one of their own (HPEXPIRETIME)."""

    fields: Mapping[bytes, bytes]
    deadlines: Mapping[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SortedSet:
    scores: Mapping[bytes, float]


@dataclass(frozen=True, slots=True)
class Pending:
    """A delivered entry that is not acknowledged. Its message may have been deleted meanwhile."""

    id: bytes
    consumer: bytes
    delivered_ms: int
    count: int


@dataclass(frozen=True, slots=True)
class Group:
    """`entries_read` is None where the server does not know it (6.2, or after XGROUP SETID)."""

    name: bytes
    last_id: bytes
    entries_read: int | None
    consumers: tuple[bytes, ...]
    pending: tuple[Pending, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """`entries`: id -> field, value, field, value... in order of ids. The counters are None on 6.2, which has none."""

    entries: Mapping[bytes, tuple[bytes, ...]]
    last_id: bytes
    entries_added: int | None = None
    max_deleted_id: bytes | None = None
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True, slots=True)
class Opaque:
    """The DUMP payload of a type that ordinary commands do not rebuild (modules, vector sets)."""

    payload: bytes


Value: TypeAlias = bytes | tuple[bytes, ...] | frozenset[bytes] | Hash | SortedSet | Stream | Opaque


@dataclass(frozen=True, slots=True)
class State:
    """One key. `payload` is set in form DUMP, `value` in form STRUCT; neither for a missing key.
    `size` is about the bytes read; `read_ms` the server's clock at the read."""

    key: bytes
    kind: bytes
    deadline_ms: int | None = None
    read_ms: int = 0
    payload: bytes | None = None
    value: Value | None = None
    size: int = 0

    @property
    def missing(self) -> bool:
        return self.kind == MISSING

    def __repr__(self) -> str:
        deadline = "" if self.deadline_ms is None else f" until {self.deadline_ms}"
        return f"<State {self.key!r} {self.kind.decode()}{deadline} {self.size} bytes>"
