"""Owns the lossless form: JSON lines of bounded length, which tell when something is missing. Pure.

    {"crossfade": "export", "version": 1}
    {"db": 0, "key": "k", "type": "hash", "ttl": null, "value": ["field", "value", "other", "x"], "ttls": ["other", 9]}
    {"db": 0, "key": "big", "type": "list", "ttl": 1790000000000, "value": ["a", "b"], "more": true}
    {"value": ["c"], "more": false}
    {"crossfade": "end", "keys": 2}

No line is much longer than 1 MB but for a single element that is, so neither writer nor reader ever holds a big key; a
file without its last line was cut off. A string that is no UTF-8 is {"b": base64}. A value is a flat list: of a string
its parts, of a zset member, score, ...; of a stream [id, field, value, ...] per entry. "stream" has a stream's last id,
counters and groups, "dump" the DUMP of a type that ordinary commands cannot rebuild.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from backfill.values import Group, Pending, Stream

from . import records
from .json_form import quoted
from .records import Bad, BadValue, FileError, Head, Item, Piece, pieces

VERSION = 1
HEAD = b'{"crossfade": "export", "version": 1}\n'
PART_BYTES = 1024 * 1024  # of a string, in one line
MAX_LINE_BYTES = 2 * 1024 * 1024 * 1024  # 512 MB, the largest string of Redis, in base64, and reserve


def text_of(data: bytes) -> str:
    """A JSON value that stands for these bytes."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return f'{{"b":"{base64.b64encode(data).decode()}"}}'
    return quoted(data)


class LosslessWriter:
    def __init__(self) -> None:
        self._keys = 0

    def head(self) -> bytes:
        return HEAD

    def go_on(self, keys: int) -> None:
        self._keys = keys

    def tail(self) -> bytes:
        return b'{"crossfade": "end", "keys": %d}\n' % self._keys

    def record(self, head: Head, items: Iterable[Item]) -> Iterator[bytes]:
        """The lines of one key."""
        self._keys += 1
        ttl = "null" if head.ttl is None else head.ttl
        start = f'"db":{head.db or 0},"key":{text_of(head.key)},"type":{quoted(head.kind)},"ttl":{ttl},'
        if head.stream is not None:
            start += f'"stream":{_stream(head.stream)},'
        if head.payload is not None:
            start += f'"dump":"{base64.b64encode(head.payload).decode()}",'
        for piece in pieces(head, _parts(items) if head.kind == b"string" else items):
            more = "" if piece.first and piece.last else f',"more":{"false" if piece.last else "true"}'
            value = ",".join(_flat(head.kind, piece.items))
            yield f'{{{start}"value":[{value}]{_ttls(head.kind, piece)}{more}}}\n'.encode()
            start = ""


def _parts(items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        for start in range(0, len(item) or 1, PART_BYTES):
            yield item[start : start + PART_BYTES]


def _flat(kind: bytes, items: list[Item]) -> Iterator[str]:
    match kind:
        case b"hash":
            return chain.from_iterable((text_of(name), text_of(value)) for name, value, _ in items)
        case b"zset":
            return chain.from_iterable((text_of(member), f'"{score!r}"') for member, score in items)
        case b"stream":
            return (f"[{quoted(identity)},{','.join(map(text_of, fields))}]" for identity, fields in items)
        case _:
            return map(text_of, items)


def _ttls(kind: bytes, piece: Piece) -> str:
    if kind != b"hash":
        return ""
    ttls = [f"{text_of(name)},{ttl}" for name, _, ttl in piece.items if ttl is not None]
    return f',"ttls":[{",".join(ttls)}]' if ttls else ""


def _stream(stream: Stream) -> str:
    added = "null" if stream.entries_added is None else stream.entries_added
    deleted = "null" if stream.max_deleted_id is None else quoted(stream.max_deleted_id)
    groups = ",".join(map(_group, stream.groups))
    return f'{{"last":{quoted(stream.last_id)},"added":{added},"deleted":{deleted},"groups":[{groups}]}}'


def _group(group: Group) -> str:
    """[name, last id, entries read, [consumers], [[id, index of its consumer, delivered, count]]]"""
    number = {name: index for index, name in enumerate(group.consumers)}
    read = "null" if group.entries_read is None else group.entries_read
    pending = ",".join(
        f"[{quoted(entry.id)},{number[entry.consumer]},{entry.delivered_ms},{entry.count}]" for entry in group.pending
    )
    consumers = ",".join(map(text_of, group.consumers))
    return f"[{text_of(group.name)},{quoted(group.last_id)},{read},[{consumers}],[{pending}]]"


# --- reading ---


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, without holding more than one. Errors: FileError."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        waiting.append(first)
        size += len(first)
        if rest:
            yield b"".join(waiting)
            yield from rest[:-1]
            waiting, size = [rest[-1]], len(rest[-1])
        if size > MAX_LINE_BYTES:
            raise FileError("a line is longer than any export has")
    if last := b"".join(waiting):
        yield last


def read(chunks: Iterable[bytes]) -> Iterator[Piece | Bad]:
    """The records. Errors: FileError."""
    reader = _Reader()
    for line in lines_of(chunks):
        yield from reader.line(line)
    reader.end()


class _Reader:
    def __init__(self) -> None:
        self._number = 0
        self._open: Head | None = None  # the key that goes on
        self._spoilt = False  # ... and is bad
        self._keys = 0
        self._ended = False

    def line(self, line: bytes) -> Iterator[Piece | Bad]:
        self._number += 1
        if not line.strip():
            return
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise FileError(f"line {self._number}: not JSON") from None
        if not isinstance(found, dict) or self._ended or (self._number == 1 and found.get("crossfade") != "export"):
            raise FileError(f"line {self._number}: not a line of a lossless export")
        if "crossfade" in found:
            self._frame(found)
            return
        try:
            yield from self._record(found)
        except BadValue as problem:
            if not self._spoilt:
                yield Bad(self._number, str(problem))
            self._spoilt = True

    def _frame(self, found: dict[str, Any]) -> None:
        if found["crossfade"] == "export":
            if found.get("version") != VERSION:
                raise FileError(f"version {found.get('version')} of the lossless form: a newer crossfade wrote it")
        elif self._open is not None or found.get("keys") != self._keys:
            raise FileError(f"line {self._number}: {found.get('keys')} keys were exported, and {self._keys} are here")
        else:
            self._ended = True

    def end(self) -> None:
        if not self._ended:
            raise FileError(f"line {self._number or 1}: the file ends early: its last line is missing")

    def _record(self, found: dict[str, Any]) -> Iterator[Piece]:
        first = "key" in found
        more = found.get("more") is True
        if first == (self._open is not None):
            raise FileError(f"line {self._number}: a part of a key is missing")
        if first:
            self._keys += 1
            self._spoilt = False
        head = Head(b"", b"") if self._open is None else self._open
        try:
            if first:
                head = _head(found, self._number)
        finally:
            self._open = head if more else None
        if not self._spoilt:
            yield Piece(head, _read_items(head.kind, found), first, not more)


def bytes_of(value: Any) -> bytes:
    """The bytes that a JSON value stands for. Errors: BadValue."""
    try:
        if isinstance(value, str):
            return value.encode()
        return base64.b64decode(value["b"], validate=True)
    except (KeyError, TypeError, ValueError):
        raise BadValue(f"{records.shown(value)} stands where a string is expected") from None


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > records.MAX_INT64:
        raise BadValue(f"{what} is not an integer")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadValue(f"{what} is not an array")
    return value


def _head(found: dict[str, Any], line: int) -> Head:
    kind, ttl, dump = found.get("type"), found.get("ttl"), found.get("dump")
    if not isinstance(kind, str):
        raise BadValue("there is no type")
    head = Head(bytes_of(found["key"]), kind.encode(), db=_whole(found.get("db"), "the db"), line=line)
    head.ttl = None if ttl is None else _whole(ttl, "the ttl")
    head.payload = None if dump is None else bytes_of({"b": dump})
    if (stream := found.get("stream")) is not None:
        head.stream = _read_stream(stream)
    return head


def _read_items(kind: bytes, found: dict[str, Any]) -> list[Item]:
    value = _list(found.get("value"), "the value")
    if kind == b"stream":
        return [_entry(_list(entry, "an entry")) for entry in value]
    flat = list(map(bytes_of, value))
    if kind not in (b"hash", b"zset"):
        return flat
    if len(flat) % 2:
        raise BadValue("the value has an odd number of elements")
    pairs = zip(flat[::2], flat[1::2], strict=True)
    if kind == b"zset":
        return [(member, records.score_of(score.decode("ascii", "replace"))) for member, score in pairs]
    items: list[Item] = [(name, field, None) for name, field in pairs]
    ttls = _list(found.get("ttls", []), "ttls")
    return items + [
        (bytes_of(name), None, _whole(ttl, "a ttl")) for name, ttl in zip(ttls[::2], ttls[1::2], strict=False)
    ]


def _entry(entry: list[Any]) -> Item:
    if not entry:
        raise BadValue("an entry of a stream is empty")
    return records.id_of(bytes_of(entry[0])), tuple(map(bytes_of, entry[1:]))


def _read_stream(found: Any) -> Stream:
    try:
        added, deleted = found["added"], found["deleted"]
        return Stream(
            {},
            records.id_of(bytes_of(found["last"])),
            None if added is None else _whole(added, "added"),
            None if deleted is None else records.id_of(bytes_of(deleted)),
            tuple(map(_read_group, found["groups"])),
        )
    except (KeyError, TypeError, ValueError, IndexError):
        raise BadValue("what stands under stream is incomplete") from None


def _read_group(found: Any) -> Group:
    name, last, read, names, entries = found
    consumers = [bytes_of(name) for name in names]
    pending = [
        Pending(
            records.id_of(bytes_of(identity)), consumers[owner], _whole(delivered, "delivered"), _whole(count, "count")
        )
        for identity, owner, delivered, count in entries
    ]
    read = None if read is None else _whole(read, "entries read")
    return records.group_of(bytes_of(name), bytes_of(last), read, consumers, pending)
