"""Owns what a file says of a key, in the one shape that all formats share, and what is wrong with it. Pure.

A key is a `Head` and its items, which may come in many pieces, so that no big key is ever one object in memory:

| type | an item |
|---|---|
| string | bytes: a part of the value |
| list, set | bytes |
| zset | (member, score) |
| hash | (field, value, ttl or None); value None: only the ttl of a field that came before |
| stream | (id, (field, value, field, value, ...)) |
| anything else | none: `payload` has what DUMP said |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import isinf
from typing import Any, TypeAlias

from backfill import streams
from backfill.errors import BackfillError
from backfill.values import MISSING, Group, Hash, Opaque, SortedSet, State, Stream, Value

Item: TypeAlias = Any  # see the table above
SIMPLE = (b"string", b"list", b"set", b"zset", b"hash", b"stream")  # what ordinary commands rebuild
PIECE_BYTES = 256 * 1024  # of items that are handed on together
PIECE_ITEMS = 1000
MAX_INT64 = 2**63 - 1


class FileError(BackfillError):
    """The file cannot be read (on); `text` says where and why."""


class BadValue(Exception):
    """A record is not what its type must be. The text has no line: the reader knows it."""


@dataclass(slots=True)
class Head:
    """All of a key but its items. `ttl`: milliseconds, an instant or what remains, as the file has it; None: for ever.
    `stream`: last id, counters and groups of a stream, without entries; None where the file does not have them.
    It may be completed while the pieces come: it is final with the last one."""

    key: bytes
    kind: bytes
    ttl: int | None = None
    db: int | None = None
    stream: Stream | None = None
    payload: bytes | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """The next items of a key; most keys are one piece, which is first and last."""

    head: Head
    items: list[Item] = field(default_factory=list)
    first: bool = True
    last: bool = True


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that cannot be imported. Pieces of it that were handed out before are void."""

    line: int
    text: str


def pieces(head: Head, items: Iterable[Item]) -> Iterator[Piece]:
    """The key in pieces of bounded size; at least one."""
    found: list[Item] = []
    first, size = True, 0
    for item in items:
        if size >= PIECE_BYTES or len(found) >= PIECE_ITEMS:
            yield Piece(head, found, first, last=False)
            found, first, size = [], False, 0
        found.append(item)
        size += item_size(item)
    yield Piece(head, found, first, last=True)


def item_size(item: Item) -> int:
    """About the bytes of an item."""
    if isinstance(item, bytes):
        return len(item)
    first, second, *_ = item
    if isinstance(second, tuple):
        return len(first) + sum(map(len, second))
    return len(first) + (len(second) if isinstance(second, bytes) else 8)


# --- what a record must be; errors: BadValue ---

_SCORE = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|infinity)\Z", re.ASCII | re.IGNORECASE)
_ID = re.compile(rb"(\d{1,20})(?:-(\d{1,20}))?\Z")
_INTEGER = re.compile(r"-?\d{1,19}\Z", re.ASCII)
MAX_ID_PART = 2**64 - 1


def kind_of(name: str) -> bytes:
    """A type as TYPE has it. RIOT before 3 wrote it in capitals."""
    lower = name.lower().encode("utf-8", "replace")
    return lower if lower in SIMPLE else name.encode("utf-8", "replace")


def integer(text: object, what: str) -> int:
    """A 64-bit integer."""
    if not isinstance(text, str) or not _INTEGER.match(text) or abs(int(text)) > MAX_INT64:
        raise BadValue(f"{what} is not an integer: {shown(text)}")
    return int(text)


def ttl_of(text: object) -> int | None:
    """A ttl; absent, 0 and -1 mean none."""
    if text is None or text == "":
        return None
    number = integer(text, "the ttl")
    return number if number > 0 else None


def score_of(text: object) -> float:
    if not isinstance(text, str) or not _SCORE.match(text):
        raise BadValue(f"the score is not a number: {shown(text)}")
    score = float(text)
    if isinf(score) and "n" not in text.lower():
        raise BadValue(f"the score is too large: {shown(text)}")
    return score


def score_text(score: float) -> str:
    """The shortest text that gives the same number; infinity as Java has it."""
    return repr(score).replace("inf", "Infinity")


def id_of(text: bytes) -> bytes:
    """A stream id in its full form."""
    found = _ID.match(text)
    parts = [int(part or 0) for part in found.groups()] if found else [MAX_ID_PART + 1]
    if max(parts) > MAX_ID_PART:
        raise BadValue(f"not a stream id: {shown(text)}")
    return b"%d-%d" % tuple(parts)


def shown(value: object) -> str:
    """A short printable form."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        return {dict: "an object", list: "an array", type(None): "null", bool: str(value).lower()}.get(
            type(value), "something else"
        )
    return ascii(text if len(text) <= 40 else text[:40] + "...")


class StreamOrder:
    """Checks entries in the order in which they come, over all pieces of a stream."""

    def __init__(self) -> None:
        self.last = (0, 0)

    def check(self, items: Iterable[Item]) -> None:
        for identity, fields in items:
            order = streams.id_order(identity)
            if order <= self.last:
                raise BadValue(f"stream id {shown(identity)} does not come after {self.last[0]}-{self.last[1]}")
            if not fields or len(fields) % 2:
                raise BadValue(f"stream entry {shown(identity)} has no fields")
            self.last = order


def complete_stream(known: Stream | None, last: tuple[int, int]) -> Stream:
    """What a stream has besides entries, when its last entry is `last`."""
    if known is None:
        return Stream({}, b"%d-%d" % last)
    if streams.id_order(known.last_id) < last:
        raise BadValue(f"the last id {shown(known.last_id)} is smaller than the last entry's, {last[0]}-{last[1]}")
    for group in known.groups:
        consumers = set(group.consumers)
        for entry in group.pending:
            if entry.consumer not in consumers:
                raise BadValue(f"a pending entry of group {shown(group.name)} belongs to nobody in it")
    return known


def state_of(piece: Piece) -> State:
    """The whole key, of a record that came in one piece. The ttl is left to the caller."""
    head = piece.head
    if head.kind == MISSING:
        raise BadValue("there was no such key when this was written (type none)")
    if head.kind not in SIMPLE:
        if head.payload is None:
            raise BadValue(f"type {shown(head.kind)} needs a module, and there is no dump of it")
        return State(head.key, head.kind, value=Opaque(head.payload), size=len(head.payload))
    if not piece.items and head.kind != b"stream":
        raise BadValue(f"a {head.kind.decode()} without {'a value' if head.kind == b'string' else 'elements'}")
    return State(head.key, head.kind, value=_value(piece), size=sum(map(item_size, piece.items)))


def _value(piece: Piece) -> Value:
    items = piece.items
    match piece.head.kind:
        case b"string":
            return b"".join(items)
        case b"list":
            return tuple(items)
        case b"set":
            return frozenset(items)
        case b"zset":
            return SortedSet(dict(items))
        case b"hash":
            fields = {name: value for name, value, _ in items if value is not None}
            ttls = {name: ttl for name, _, ttl in items if ttl is not None}
            if lonely := ttls.keys() - fields.keys():
                raise BadValue(f"there is a ttl for a field that is not there: {shown(min(lonely))}")
            return Hash(fields, ttls)
        case _:
            order = StreamOrder()
            order.check(items)
            return replace(complete_stream(piece.head.stream, order.last), entries=dict(items))


def parts_of(state: State, ttl: Callable[[int | None], int | None]) -> tuple[Head, list[Item]]:
    """What a file says of a key that was read whole, in form STRUCT; `ttl` makes one of a deadline."""
    head = Head(state.key, state.kind, ttl(state.deadline_ms))
    match state.value:
        case bytes() as value:
            return head, [value]
        case Hash(fields, deadlines):
            return head, [(name, value, ttl(deadlines.get(name))) for name, value in fields.items()]
        case SortedSet(scores):
            return head, list(scores.items())
        case Stream() as stream:
            head.stream = stream
            return head, list(stream.entries.items())
        case Opaque(payload):
            head.payload = payload
            return head, []
        case tuple() | frozenset() as members:
            return head, list(members)
        case _:
            raise ValueError("a state without a value is that of a missing key")


def group_of(name: bytes, last_id: bytes, entries_read: int | None, consumers: Iterable[bytes], pending: Any) -> Group:
    """A group; ids in their full form."""
    return Group(name, id_of(last_id), entries_read, tuple(consumers), tuple(pending))
