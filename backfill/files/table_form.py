"""Owns tables: CSV with a header, or JSON objects, of which every row becomes a hash under a key made from it. Pure.

`--key 'beer:{id}'` names the key; `#{id}`, as RIOT-X writes it, means the same. An empty cell is no field. What is
nested in JSON becomes fields `a.b` and `a[0]`. All as `riot file-import FILE hset` does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import csv_form, json_read, records
from .json_text import JsonText
from .records import Bad, BadValue, FileError, Head, Piece

KeyOf = Callable[[dict[str, bytes]], bytes]
_PLACE = re.compile(r"#?\{([^{}]*)\}")


def key_template(text: str) -> tuple[KeyOf, frozenset[str]]:
    """What makes the key of a row, and the columns that it needs. Errors: FileError."""
    columns = frozenset(_PLACE.findall(text))
    if not columns:
        raise FileError("--key needs a column in braces, or all rows have the same key: --key 'beer:{id}'")

    def key_of(row: dict[str, bytes]) -> bytes:
        for name in columns:
            if not row.get(name):
                raise BadValue(f"there is nothing under {records.shown(name)}, which the key needs")
        parts = _PLACE.split(text)
        return b"".join(row[part] if index % 2 else part.encode() for index, part in enumerate(parts))

    return key_of, columns


def read_csv(chunks: Iterable[bytes], key: str, delimiter: str = ",") -> Iterator[Piece | Bad]:
    """A hash per row. Errors: FileError."""
    key_of, columns = key_template(key)
    rows = iter(csv_form.Rows(chunks, delimiter))
    line, header = next(rows, (1, []))
    if missing := columns - set(header):
        raise FileError(f"line {line}: the header has no {records.shown(min(missing))}, which --key names")
    for line, row in rows:
        if len(row) != len(header):
            yield Bad(line, f"{len(row)} cells, and the header has {len(header)}")
        else:
            yield _hash(line, key_of, {n: csv_form.data_of(v) for n, v in zip(header, row, strict=True) if v})


def read_json(chunks: Iterable[bytes], key: str) -> Iterator[Piece | Bad]:
    """A hash per object. Errors: FileError."""
    key_of, _ = key_template(key)

    def record(text: JsonText) -> Iterator[Piece | Bad]:
        text.peek()
        line, value = text.line, text.value()
        if not isinstance(value, dict):
            yield json_read.not_an_object(line, value)
            return
        try:
            fields = dict(_flat("", value))
        except BadValue as problem:
            yield Bad(line, str(problem))
        else:
            yield _hash(line, key_of, fields)

    return json_read.read(chunks, record)


def _flat(name: str, value: Any) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, dict):
        for inner, element in value.items():
            yield from _flat(f"{name}.{inner}" if name else inner, element)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _flat(f"{name}[{index}]", element)
    elif isinstance(value, bool):
        yield name, b"true" if value else b"false"
    elif value is not None:
        yield name, json_read.data_of(value)


def _hash(line: int, key_of: KeyOf, fields: dict[str, bytes]) -> Piece | Bad:
    try:
        head = Head(key_of(fields), b"hash", line=line)
        return Piece(head, [(csv_form.data_of(name), value, None) for name, value in fields.items()])
    except (BadValue, UnicodeEncodeError) as problem:
        return Bad(line, str(problem))
