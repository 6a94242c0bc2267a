"""Owns JSON and JSON lines, with RIOT's names and shapes, and writes them; `json_read` reads. Pure.

    {"key": "k", "type": "hash", "ttl": -1, "value": {"field": "value"}}

list and set are arrays; a zset is [{"value": "member", "score": 1.0}], a stream
[{"stream": "k", "id": "1-0", "body": {"field": "value"}}]. What RIOT does not have goes into further members, which it
does not read: `db`; `fieldTtl` {field: ttl}; `lastId`, `entriesAdded`, `maxDeletedId` and `groups` of a stream, and
`fields` [field, value, ...] of an entry that has a field twice; `dump` (base64) of other types.

Bytes that are no UTF-8 are written as \\udc80 to \\udcff, one each: lone surrogates, which no UTF-8 text decodes to, so
nothing else is ever taken for them (Python calls it surrogateescape).
"""

from __future__ import annotations

import base64
import codecs
import json.encoder
from collections.abc import Iterable, Iterator

from backfill.values import Group, Stream

from .records import PIECE_BYTES, Head, Item, score_text

_quote = json.encoder.encode_basestring
_quote_ascii = json.encoder.encode_basestring_ascii
SLICE = 1024 * 1024  # of a long string, encoded at a time


def quoted(data: bytes) -> str:
    """A JSON string."""
    try:
        return _quote(data.decode())
    except UnicodeDecodeError:
        return _quote_ascii(data.decode("utf-8", "surrogateescape"))


def _long(data: bytes) -> Iterator[str]:
    """A JSON string in parts."""
    if len(data) <= SLICE:
        yield quoted(data)
        return
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    yield '"'
    for start in range(0, len(data), SLICE):
        yield quoted_part(decoder.decode(data[start : start + SLICE], start + SLICE >= len(data)))
    yield '"'


def quoted_part(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return _quote_ascii(text)[1:-1]
    return _quote(text)[1:-1]


class JsonWriter:
    """`lines`: JSON lines; otherwise one array."""

    def __init__(self, *, lines: bool) -> None:
        self._lines = lines
        self._any = False

    def head(self) -> bytes:
        return b"" if self._lines else b"["

    def go_on(self, keys: int) -> None:
        self._any = keys > 0

    def tail(self) -> bytes:
        return b"" if self._lines else b"\n]\n"

    def record(self, head: Head, items: Iterable[Item]) -> Iterator[bytes]:
        """The bytes of one key. `items` may be walked twice."""
        before = b"" if self._lines else b",\n" if self._any else b"\n"
        self._any = True
        start = [f'{{"key":{quoted(head.key)},"type":{quoted(head.kind)},"ttl":{-1 if head.ttl is None else head.ttl}']
        if head.db:
            start.append(f',"db":{head.db}')
        if head.stream is not None:
            start.append(stream_members(head.stream))
        if head.payload is not None:
            start.append(f',"dump":"{base64.b64encode(head.payload).decode()}"}}')
            yield before + "".join(start).encode()
        else:
            start.append(',"value":')
            yield before + "".join(start).encode()
            for part in _BODIES[head.kind](head.key, items):
                yield part.encode()
            yield b"}"
        if self._lines:
            yield b"\n"


def _joined(opening: str, parts: Iterable[str], closing: str) -> Iterator[str]:
    """With commas, in portions that are worth a write."""
    yield opening
    waiting: list[str] = []
    first, size = True, 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield ("" if first else ",") + ",".join(waiting)
            waiting, first, size = [], False, 0
    if waiting:
        yield ("" if first else ",") + ",".join(waiting)
    yield closing


def _write_string(key: bytes, items: Iterable[Item]) -> Iterator[str]:
    return _long(b"".join(items))


def _write_array(key: bytes, items: Iterable[Item]) -> Iterator[str]:
    return _joined("[", map(quoted, items), "]")


def _write_zset(key: bytes, items: Iterable[Item]) -> Iterator[str]:
    return _joined("[", (f'{{"value":{quoted(member)},"score":{_score(score)}}}' for member, score in items), "]")


def _score(score: float) -> str:
    text = score_text(score)
    return f'"{text}"' if text[-1] == "y" else text  # JSON has no infinity: quoted, as Jackson does it


def _write_hash(key: bytes, items: Iterable[Item]) -> Iterator[str]:
    yield from _joined("{", (f"{quoted(name)}:{quoted(value)}" for name, value, _ in items), "}")
    if any(ttl is not None for _, _, ttl in items):
        ttls = (f"{quoted(name)}:{ttl}" for name, _, ttl in items if ttl is not None)
        yield from _joined(',"fieldTtl":{', ttls, "}")


def _write_stream(key: bytes, items: Iterable[Item]) -> Iterator[str]:
    name = quoted(key)
    return _joined("[", (_entry(name, identity, fields) for identity, fields in items), "]")


def _entry(stream: str, identity: bytes, fields: tuple[bytes, ...]) -> str:
    body = dict(zip(fields[::2], fields[1::2], strict=True))
    members = ",".join(f"{quoted(name)}:{quoted(value)}" for name, value in body.items())
    again = f',"fields":[{",".join(map(quoted, fields))}]' if len(body) * 2 < len(fields) else ""
    return f'{{"stream":{stream},"id":"{identity.decode()}","body":{{{members}}}{again}}}'


_BODIES = {
    b"string": _write_string,
    b"list": _write_array,
    b"set": _write_array,
    b"zset": _write_zset,
    b"hash": _write_hash,
    b"stream": _write_stream,
}


def stream_members(stream: Stream) -> str:
    parts = [f',"lastId":"{stream.last_id.decode()}"']
    if stream.entries_added is not None:
        parts.append(f',"entriesAdded":{stream.entries_added}')
    if stream.max_deleted_id is not None:
        parts.append(f',"maxDeletedId":"{stream.max_deleted_id.decode()}"')
    if stream.groups:
        parts.append(f',"groups":[{",".join(map(_group, stream.groups))}]')
    return "".join(parts)


def _group(group: Group) -> str:
    read = "" if group.entries_read is None else f',"entriesRead":{group.entries_read}'
    pending = ",".join(
        f'{{"id":"{entry.id.decode()}","consumer":{quoted(entry.consumer)},"delivered":{entry.delivered_ms},'
        f'"count":{entry.count}}}'
        for entry in group.pending
    )
    consumers = ",".join(map(quoted, group.consumers))
    return (
        f'{{"name":{quoted(group.name)},"lastId":"{group.last_id.decode()}"{read},"consumers":[{consumers}],'
        f'"pending":[{pending}]}}'
    )
