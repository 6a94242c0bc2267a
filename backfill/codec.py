"""Owns how a key's whole state is read from a server, in two forms; `rebuild` is the other half. Pure.

DUMP: the server's own payload; exact and cheap, but accepted only upward in version (`refused` tells). STRUCT: read and
rebuilt with ordinary commands; works between all versions. The caller runs the commands of one read inside one
MULTI/EXEC, so that they show one point of the history, and the commands of one write likewise.

What ordinary commands cannot rebuild (module types, vector sets) is carried as its DUMP payload in form STRUCT too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Any

import hiredis

from . import streams
from .rebuild import Command, batches, losses, write_commands
from .values import MISSING, Hash, Opaque, SortedSet, State, Stream, Value

__all__ = [
    "Believed",
    "Command",
    "Form",
    "Unreadable",
    "WrongType",
    "head_commands",
    "losses",
    "parse",
    "payload_kind",
    "read_commands",
    "refused",
    "times",
    "write_commands",
]


class Form(Enum):
    DUMP = "dump"
    STRUCT = "struct"


@dataclass(frozen=True, slots=True)
class WrongType:
    """The read did not fit: read again with this in place of `believed`. `fields`: whose deadlines to ask for as well.
    A hash that gains fields faster than it is read never ends this: the caller bounds the attempts."""

    actual: bytes
    fields: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The server refused to show the key."""

    reason: str


Believed = bytes | WrongType | None


def read_commands(
    key: bytes, form: Form, believed: Believed = None, *, known: frozenset[bytes] = frozenset()
) -> list[Command]:
    """What to run inside one MULTI/EXEC. `believed` (form STRUCT only): the type the key is thought to have, or the
    WrongType that the last attempt gave. `known`: upper-case names of the server's commands; with PEXPIRETIME the
    deadline is exact to the millisecond, with HPEXPIRETIME deadlines of hash fields are read."""
    head = head_commands(key, known)
    if form is Form.DUMP:
        return [*head, [b"DUMP", key]]
    head.append([b"TYPE", key])
    kind, fields = (believed.actual, believed.fields) if isinstance(believed, WrongType) else (believed, ())
    if kind is None or kind == MISSING:
        return head
    if kind == b"hash" and b"HPEXPIRETIME" in known:
        return [*head, *_hash_read(key, fields)]
    read = READS.get(kind)
    # EXISTS only makes the number of replies differ: a payload must never be taken for a string, nor a string for one.
    return [*head, read(key)] if read is not None else [*head, [b"DUMP", key], [b"EXISTS", key]]


def head_commands(key: bytes, known: frozenset[bytes]) -> list[Command]:
    """Clock and deadline, for `times`."""
    # The clock stands next to the deadline: since 7.0 PTTL counts from the start of the EXEC, and DUMP can take long.
    return [[b"PEXPIRETIME", key], [b"TIME"]] if b"PEXPIRETIME" in known else [[b"TIME"], [b"PTTL", key]]


READS: Mapping[bytes, Callable[[bytes], Command]] = {
    b"string": lambda key: [b"GET", key],
    b"list": lambda key: [b"LRANGE", key, b"0", b"-1"],
    b"set": lambda key: [b"SMEMBERS", key],
    b"zset": lambda key: [b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
    b"hash": lambda key: [b"HGETALL", key],
    b"stream": streams.read,
}


def _hash_read(key: bytes, fields: Sequence[bytes]) -> list[Command]:
    """The encoding tells at once that a small hash has no field deadlines; for others the fields are asked for by name,
    in a second read."""
    commands = [[b"HGETALL", key], [b"OBJECT", b"ENCODING", key]]
    for batch in batches(fields):
        commands.append([b"HPEXPIRETIME", key, b"FIELDS", b"%d" % len(batch), *batch])
    return commands


ENCODINGS_WITHOUT_DEADLINES = (b"listpack", b"ziplist")


def parse(key: bytes, form: Form, replies: Sequence[Any], believed: Believed = None) -> State | WrongType | Unreadable:
    """The state in the decoded replies (of either protocol version) to `read_commands` with the same `believed`.
    `believed` matters only after a WrongType with fields."""
    for reply in replies[:3]:
        if isinstance(reply, hiredis.ReplyError):
            return Unreadable(str(reply))
    read_ms, deadline_ms = times(replies[0], replies[1])
    if form is Form.DUMP:
        payload: bytes | None = replies[2]
        if payload is None:
            return State(key, MISSING, read_ms=read_ms)
        return State(key, payload_kind(payload), deadline_ms, read_ms, payload=payload, size=len(payload))
    kind = _text(replies[2])
    if kind == MISSING:
        return State(key, MISSING, read_ms=read_ms)
    if len(replies) == 3:
        return WrongType(kind)
    value = _value(kind, replies[3:], believed)
    if value is None:  # 6.2 expires keys also in the middle of an EXEC: TYPE saw it, the next command did not
        return State(key, MISSING, read_ms=read_ms)
    if isinstance(value, WrongType | Unreadable):
        return value
    try:
        size = _size(value)
    except TypeError:
        return Unreadable(f"the elements of this {kind.decode()} are not strings")
    return State(key, kind, deadline_ms, read_ms, value=value, size=size)


def times(first: Any, second: Any) -> tuple[int, int | None]:
    """The clock and the deadline, from the replies to `head_commands`."""
    if isinstance(first, int):
        return _clock(second), first if first >= 0 else None
    now = _clock(first)
    return now, now + second if second >= 0 else None


def _clock(reply: Sequence[bytes]) -> int:
    return int(reply[0]) * 1000 + int(reply[1]) // 1000


def _text(reply: Any) -> bytes:
    return reply if isinstance(reply, bytes) else str(reply).encode()


def _value(kind: bytes, replies: Sequence[Any], believed: Believed) -> Value | WrongType | Unreadable | None:
    reply = replies[0]
    if isinstance(reply, hiredis.ReplyError):
        text = str(reply)
        if text.startswith("ERR no such key"):  # XINFO, of a stream that expired in between
            return None
        return WrongType(kind) if text.startswith("WRONGTYPE") else Unreadable(text)
    try:
        if kind == b"hash":
            return _parse_hash(replies, believed)
        parser = PARSERS.get(kind)
        if len(replies) != (2 if parser is None else 1):
            return WrongType(kind)
        return _parse_opaque(reply) if parser is None else parser(reply)
    except (KeyError, TypeError, ValueError):
        return WrongType(kind)  # a reply of another shape: the read was for another type


def _parse_string(reply: Any) -> Value | None:
    value: bytes | None = _expect(reply, bytes, type(None))
    return value


def _expect(reply: Any, *shape: type) -> Any:
    if not isinstance(reply, shape):
        raise TypeError
    return reply


def _parse_opaque(reply: Any) -> Value | None:
    return None if reply is None else Opaque(_expect(reply, bytes))


def _parse_zset(reply: Any) -> Value | None:
    """RESP2: member, score text... RESP3: [member, double]..."""
    rows = _expect(reply, list)
    if rows and isinstance(rows[0], bytes):
        rows = zip(rows[::2], rows[1::2], strict=True)
    scores = {member: float(score) for member, score in rows}
    return SortedSet(scores) if scores else None


def _parse_stream(reply: Any) -> Value | None:
    return streams.parse(_expect(reply, list, dict))


PARSERS: Mapping[bytes, Callable[[Any], Value | None]] = {
    b"string": _parse_string,
    b"list": lambda reply: tuple(_expect(reply, list)) or None,
    b"set": lambda reply: frozenset(_expect(reply, list, set, frozenset)) or None,
    b"zset": _parse_zset,
    b"stream": _parse_stream,
}


def _parse_hash(replies: Sequence[Any], believed: Believed) -> Value | WrongType | None:
    fields = streams.pairs(_expect(replies[0], list, dict))
    if not fields:
        return None
    if len(replies) == 1 or replies[1] in ENCODINGS_WITHOUT_DEADLINES:
        return Hash(fields)
    asked = believed.fields if isinstance(believed, WrongType) else ()
    if len(replies) == 2 or not fields.keys() <= set(asked):
        return WrongType(b"hash", tuple(fields))
    deadlines = dict(zip(asked, chain.from_iterable(replies[2:]), strict=True))
    return Hash(fields, {name: deadlines[name] for name in fields if deadlines[name] >= 0})


def _size(value: Value) -> int:
    match value:
        case bytes():
            return len(value)
        case Opaque():
            return len(value.payload)
        case Stream():
            return streams.size(value)
        case Hash():
            return sum(map(len, value.fields)) + sum(map(len, value.fields.values()))
        case SortedSet():
            return sum(map(len, value.scores)) + 8 * len(value.scores)
        case _:
            return sum(map(len, value))


# RDB type byte, the first of a payload -> TYPE. Numbers of Redis up to 8.2 and Valkey up to 9.1.
PAYLOAD_KINDS: Mapping[int, bytes] = {
    number: kind
    for kind, numbers in {
        b"string": (0,),
        b"list": (1, 10, 14, 18),
        b"set": (2, 11, 20),
        b"zset": (3, 5, 12, 17),
        b"hash": (4, 9, 13, 16, 22, 23, 24, 25),
        b"stream": (15, 19, 21),
    }.items()
    for number in numbers
}
UNKNOWN = b"unknown"


def payload_kind(payload: bytes) -> bytes:
    """The type of a DUMP payload, b"unknown" for modules' and newer ones."""
    return PAYLOAD_KINDS.get(payload[0], UNKNOWN) if payload else UNKNOWN


REFUSALS = (
    "DUMP payload version or checksum are wrong",
    "Bad data format",
    "unknown command",  # services that disable RESTORE
    "NOPERM",
)


def refused(reply: Any) -> bool:
    """Whether this reply to a RESTORE means that the payload will never be accepted there: use form STRUCT."""
    return isinstance(reply, hiredis.ReplyError) and any(words in str(reply) for words in REFUSALS)
