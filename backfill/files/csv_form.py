"""Owns CSV: our own form, which holds keys of every type, and tables of which every row becomes a hash. Pure.

Ours has one row per element, under the header db,key,type,ttl,id,field,value,score,fieldTtl,detail:

| type | rows | columns used |
|---|---|---|
| string | one | value |
| list, set | one per element | value |
| zset | one per member | value, score |
| hash | one per field | field, value, fieldTtl |
| stream | one per field of an entry, after one for the stream | id, field, value; detail: JSON as in `json_form` |
| others | one | detail: {"dump": base64} |

A CSV file is bytes, and so are keys and values: what is no UTF-8 stands in it as it is, between quotes.
"""

from __future__ import annotations

import base64
import csv
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from typing import Any

from . import json_read, records
from .json_form import stream_members
from .json_text import JsonError, JsonText
from .records import PIECE_BYTES, Bad, BadValue, FileError, Head, Item, Piece

COLUMNS = ("db", "key", "type", "ttl", "id", "field", "value", "score", "fieldTtl", "detail")


class CsvWriter:
    def __init__(self, delimiter: str = ",") -> None:
        self._delimiter = delimiter.encode()
        self._special = re.compile(rb'[\r\n"' + re.escape(self._delimiter) + rb"]")

    def head(self) -> bytes:
        return self._delimiter.join(name.encode() for name in COLUMNS) + b"\n"

    def go_on(self, keys: int) -> None:
        """There is nothing between two keys."""

    def tail(self) -> bytes:
        return b""

    def record(self, head: Head, items: Iterable[Item]) -> Iterator[bytes]:
        """The rows of one key, in portions that are worth a write."""
        ttl = b"" if head.ttl is None else b"%d" % head.ttl
        start = self._delimiter.join((b"%d" % (head.db or 0), self._cell(head.key), self._cell(head.kind), ttl))
        waiting: list[bytes] = []
        size = 0
        for cells in _rows(head, items):
            row = self._delimiter.join((start, *map(self._cell, cells))) + b"\n"
            waiting.append(row)
            size += len(row)
            if size >= PIECE_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
        yield b"".join(waiting)

    def _cell(self, data: bytes) -> bytes:
        return b'"' + data.replace(b'"', b'""') + b'"' if self._special.search(data) else data


Cells = tuple[bytes, bytes, bytes, bytes, bytes, bytes]  # id, field, value, score, fieldTtl, detail


def _rows(head: Head, items: Iterable[Item]) -> Iterator[Cells]:
    match head.kind:
        case b"string":
            yield b"", b"", b"".join(items), b"", b"", b""
        case b"list" | b"set":
            for item in items:
                yield b"", b"", item, b"", b"", b""
        case b"zset":
            for member, score in items:
                yield b"", b"", member, repr(score).encode(), b"", b""
        case b"hash":
            for name, value, ttl in items:
                yield b"", name, value, b"", b"" if ttl is None else b"%d" % ttl, b""
        case b"stream":
            detail = b"" if head.stream is None else f"{{{stream_members(head.stream)[1:]}}}".encode()
            yield b"", b"", b"", b"", b"", detail
            for identity, fields in items:
                for name, value in zip(fields[::2], fields[1::2], strict=True):
                    yield identity, name, value, b"", b"", b""
        case _:
            yield b"", b"", b"", b"", b"", b'{"dump":"%s"}' % base64.b64encode(head.payload or b"")


# --- reading ---


class Rows:
    """The rows of a file, each with the line on which it begins. Errors: FileError."""

    def __init__(self, chunks: Iterable[bytes], delimiter: str) -> None:
        csv.field_size_limit(sys.maxsize)  # the module's default, 128 KB, is less than many a value
        text = io.TextIOWrapper(io.BufferedReader(_Chunks(chunks)), "utf-8-sig", "surrogateescape", newline="")
        self._csv = csv.reader(text, delimiter=delimiter, strict=True)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            line = self._csv.line_num + 1
            try:
                row = next(self._csv, None)
            except csv.Error as problem:
                raise FileError(f"line {line}: not CSV: {problem}") from None
            if row is None:
                return
            if row:  # not an empty line
                yield line, row


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a raw file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or next(self._chunks, b"")
        count = min(len(data), len(buffer))
        buffer[:count] = data[:count]
        self._rest = data[count:]
        return count


def data_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def read(chunks: Iterable[bytes], delimiter: str = ",") -> Iterator[Piece | Bad]:
    """The records of our own form. Errors: FileError."""
    rows = iter(Rows(chunks, delimiter))
    line, header = next(rows, (1, []))
    if "key" not in header or "type" not in header:
        raise FileError(
            f"line {line}: the header has no key and type: for a table of which every row becomes a hash, "
            "say --key 'PREFIX:{COLUMN}'"
        )
    if unknown := set(header) - set(COLUMNS):
        raise FileError(f"line {line}: unknown column {records.shown(min(unknown))}")
    dicts = ((line, _row(header, row)) for line, row in rows)
    for _, group in groupby(dicts, lambda row: (row[1].get("db", ""), row[1].get("key"), row[1].get("type"))):
        yield from _key(group)


def _row(header: list[str], row: list[str]) -> dict[str, str]:
    found = dict(zip(header, row, strict=False))
    if len(row) != len(header):
        found["problem"] = f"{len(row)} cells, and the header has {len(header)}"
    return found


def _key(rows: Iterator[tuple[int, dict[str, str]]]) -> Iterator[Piece | Bad]:
    """The pieces of one key, or at last a Bad; all of its rows are taken."""
    begin, first = next(rows)
    line = begin

    def every() -> Iterator[dict[str, str]]:
        nonlocal line
        for number, row in chain([(begin, first)], rows):
            line = number
            if "problem" in row:
                raise BadValue(row["problem"])
            yield row

    try:
        if "problem" in first:
            raise BadValue(first["problem"])
        head = _head(begin, first)
        yield from records.pieces(head, _items(head.kind, every()))
    except BadValue as problem:
        for _ in rows:
            pass
        yield Bad(line, str(problem))


def _head(line: int, row: dict[str, str]) -> Head:
    head = Head(data_of(row["key"]), records.kind_of(row["type"]), records.ttl_of(row.get("ttl")), line=line)
    if row.get("db"):
        head.db = records.integer(row["db"], "the db")
    if detail := row.get("detail"):
        json_read.complete(head, {"ttl": row.get("ttl"), **_object(detail)})
    return head


def _object(text: str) -> dict[str, Any]:
    try:
        found = JsonText([text.encode("utf-8", "surrogateescape")]).value()
    except JsonError as problem:
        raise BadValue(f"the detail is {problem.text}") from None
    if not isinstance(found, dict):
        raise BadValue("the detail is not an object")
    return found


def _items(kind: bytes, rows: Iterator[dict[str, str]]) -> Iterator[Item]:
    if kind == b"stream":
        for identity, group in groupby(rows, lambda row: row.get("id", "")):
            if identity:
                pairs = ((data_of(row.get("field", "")), data_of(row.get("value", ""))) for row in group)
                yield records.id_of(data_of(identity)), tuple(part for pair in pairs for part in pair)
        return
    shape = _SHAPES.get(kind)
    for index, row in enumerate(rows):
        if index and (kind == b"string" or shape is None):
            raise BadValue(f"a {kind.decode('utf-8', 'replace')} has one row, and this is another")
        if shape is not None:
            yield shape(row)


_SHAPES: dict[bytes, Callable[[dict[str, str]], Item]] = {
    b"string": lambda row: data_of(row.get("value", "")),
    b"list": lambda row: data_of(row.get("value", "")),
    b"set": lambda row: data_of(row.get("value", "")),
    b"zset": lambda row: (data_of(row.get("value", "")), records.score_of(row.get("score", ""))),
    b"hash": lambda row: (
        data_of(row.get("field", "")),
        data_of(row.get("value", "")),
        records.ttl_of(row.get("fieldTtl")),
    ),
}
