"""Owns reading JSON and JSON lines in the shapes that `json_form` describes: what RIOT wrote, and what we did. Pure.

A record of ordinary size is decoded at once. A longer one is read item by item, if its key and type stand before its
value (as everywhere but in files of RIOT before 3). A line of JSON lines that is wrong does not spoil the next one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from backfill.values import Group, Pending, Stream

from . import records
from .json_text import JsonError, JsonText
from .records import PIECE_BYTES, PIECE_ITEMS, Bad, BadValue, FileError, Head, Item, Piece

WHOLE_CHARS = 1024 * 1024  # a longer record is read item by item


Reader = Callable[[JsonText], Iterator[Piece | Bad]]  # takes one record


def read(chunks: Iterable[bytes], record: Reader | None = None, *, array: bool = False) -> Iterator[Piece | Bad]:
    """The records of either form, whichever it is. `array`: it should be an array, so it cannot be empty. Errors:
    FileError."""
    text = JsonText(chunks)
    try:
        if not text.peek() and array:
            raise JsonError(text.line, "the file is empty")
        yield from (_array if text.peek() == "[" else _lines)(text, record or _record)
    except JsonError as error:
        raise FileError(f"line {error.line}: {error.text}") from None


def _array(text: JsonText, record: Reader) -> Iterator[Piece | Bad]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
    else:
        yield from record(text)
        while text.take(",", "]") == ",":
            yield from record(text)
    if text.peek():
        raise JsonError(text.line, "something stands behind the end of the array")


def _lines(text: JsonText, record: Reader) -> Iterator[Piece | Bad]:
    while text.peek():
        try:
            yield from record(text)
        except JsonError as error:
            yield Bad(error.line, error.text)
            text.skip_line()


def _record(text: JsonText) -> Iterator[Piece | Bad]:
    opening, line = text.peek(), text.line
    if opening != "{":
        yield not_an_object(line, text.value())
        return
    complete, members = text.small(WHOLE_CHARS)
    yield from [_whole(line, members)] if complete else _Streamed(text, line).pieces()


def not_an_object(line: int, value: Any) -> Bad:
    return Bad(line, f"a record is an object, and this is {records.shown(value)}")


def _whole(line: int, members: dict[str, Any]) -> Piece | Bad:
    try:
        head = Head(data_of(_member(members, "key")), records.kind_of(_text(members, "type")), line=line)
        complete(head, members)
        items = list(_items(head.kind, members.get("value")))
        items += [(data_of(name), None, records.ttl_of(ttl)) for name, ttl in _field_ttls(head.kind, members)]
        return Piece(head, items)
    except BadValue as problem:
        return Bad(line, str(problem))


class _Streamed:
    """A record that is too long to be held: its value is handed on while it is read, once key and type are known."""

    def __init__(self, text: JsonText, line: int) -> None:
        self._text = text
        self._line = line
        self._members: dict[str, Any] = {}
        self._head: Head | None = None
        self._first = True
        self._waiting: list[Item] = []
        self._size = 0
        self._problem: str | None = None

    def pieces(self) -> Iterator[Piece | Bad]:
        text = self._text
        text.take("{")
        while text.peek() == '"':
            name = text.value()
            text.take(":")
            yield from self._member(name)
            if text.take(",", "}") == "}":
                break
        else:
            text.take("}")
        yield self._end()

    def _member(self, name: str) -> Iterator[Piece]:
        opening = self._text.peek()
        if name == "value" and opening in ("[", "{") and {"key", "type"} <= self._members.keys():
            yield from self._collect(self._elements(opening), self._begin(opening))
        elif name == "fieldTtl" and opening == "{" and self._head is not None:
            if self._head.kind != b"hash":
                self._problem = self._problem or f"fieldTtl of a {self._head.kind.decode()}"
            yield from self._collect(self._elements(opening), _field_ttl)
        else:
            self._members[name] = self._text.value()

    def _begin(self, opening: str) -> Callable[[Any], Item]:
        try:
            key, kind = data_of(self._members["key"]), records.kind_of(_text(self._members, "type"))
            shape = _shape(kind, opening == "{")
            self._head = Head(key, kind, line=self._line)
            complete(self._head, self._members)
        except BadValue as problem:
            self._problem = str(problem)
            return str
        return shape

    def _elements(self, opening: str) -> Iterator[Any]:
        """Of an array, or (name, value) of an object."""
        text, closing = self._text, "]" if opening == "[" else "}"
        text.take(opening)
        if text.peek() == closing:
            text.take(closing)
            return
        while True:
            if opening == "[":
                yield text.value()
            else:
                if text.peek() != '"':
                    text.take('"')
                name = text.value()
                text.take(":")
                yield name, text.value()
            if text.take(",", closing) == closing:
                return

    def _collect(self, elements: Iterator[Any], shape: Callable[[Any], Item]) -> Iterator[Piece]:
        """What is wrong with an item ends the record, but all of it is still read: the next one comes behind it."""
        for element in elements:
            if self._problem is not None:
                continue
            try:
                item = shape(element)
            except BadValue as problem:
                self._problem = str(problem)
                continue
            self._waiting.append(item)
            self._size += records.item_size(item)
            if self._size >= PIECE_BYTES or len(self._waiting) >= PIECE_ITEMS:
                yield self._piece(last=False)

    def _piece(self, *, last: bool) -> Piece:
        assert self._head is not None
        piece = Piece(self._head, self._waiting, self._first, last)
        self._first, self._waiting, self._size = False, [], 0
        return piece

    def _end(self) -> Piece | Bad:
        if self._problem is None and self._head is not None:
            try:
                complete(self._head, self._members)
            except BadValue as problem:
                self._problem = str(problem)
        if self._problem is not None:
            return Bad(self._line, self._problem)
        return _whole(self._line, self._members) if self._head is None else self._piece(last=True)


# --- members; errors: BadValue ---


def data_of(value: Any) -> bytes:
    """The bytes that a JSON string or number stands for."""
    if not isinstance(value, str):
        raise BadValue(f"{records.shown(value)} stands where a string is expected")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadValue("a string has a lone surrogate that stands for no byte (only \\udc80 to \\udcff do)") from None


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise BadValue(f"there is no {name}" if value is None else f"the {name} is {records.shown(value)}")
    return value


def _number(value: Any, what: str) -> int:
    return records.integer(value, what)


def complete(head: Head, members: dict[str, Any]) -> None:
    """What may stand in front of the value or behind it."""
    head.ttl = records.ttl_of(members.get("ttl"))
    if (db := members.get("db")) is not None:
        head.db = _number(db, "the db")
    if (dump := members.get("dump")) is not None:
        head.payload = base64_of(dump)
    if "lastId" in members:
        head.stream = _stream_of(members)


def base64_of(text: Any) -> bytes:
    try:
        return base64.b64decode(data_of(text), validate=True)
    except ValueError:
        raise BadValue("what should be base64 is not") from None


def _field_ttls(kind: bytes, members: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    ttls = members.get("fieldTtl")
    if ttls is None:
        return ()
    if not isinstance(ttls, dict) or kind != b"hash":
        raise BadValue(f"fieldTtl is {records.shown(ttls)}, of a {kind.decode('utf-8', 'replace')}")
    return ttls.items()


def _field_ttl(pair: tuple[str, Any]) -> Item:
    return data_of(pair[0]), None, records.ttl_of(pair[1])


def _items(kind: bytes, value: Any) -> Iterable[Item]:
    if kind not in records.SIMPLE:
        return ()
    if kind == b"string":
        # A string of RIOT's readers may be any scalar.
        return [b"%s" % str(value).lower().encode() if isinstance(value, bool) else data_of(value)]
    if not isinstance(value, dict | list):
        raise BadValue("there is no value" if value is None else f"the value of a {kind.decode()} is a scalar")
    return map(_shape(kind, isinstance(value, dict)), value.items() if isinstance(value, dict) else value)


def _shape(kind: bytes, is_object: bool) -> Callable[[Any], Item]:
    shape = _SHAPES.get(kind)
    if shape is None:
        raise BadValue(f"type {records.shown(kind)} needs a module, and there is no dump of it")
    if (kind == b"hash") != is_object or kind == b"string":
        raise BadValue(f"the value of a {kind.decode()} is {'an object' if is_object else 'an array'}")
    return shape


def _pair(pair: tuple[str, Any]) -> Item:
    return data_of(pair[0]), data_of(pair[1]), None


def _scored(element: Any) -> Item:
    if not isinstance(element, dict):
        raise BadValue(f"an element of a zset is an object with value and score, and this is {records.shown(element)}")
    return data_of(_member(element, "value")), records.score_of(_member(element, "score"))


def _message(element: Any) -> Item:
    if not isinstance(element, dict):
        raise BadValue(f"an entry of a stream is an object with id and body, and this is {records.shown(element)}")
    identity = records.id_of(data_of(_member(element, "id")))
    if (fields := element.get("fields")) is not None:
        return identity, tuple(map(data_of, _list(fields, "fields")))
    body = _member(element, "body")
    if not isinstance(body, dict):
        raise BadValue(f"the body of a stream entry is {records.shown(body)}")
    return identity, tuple(data_of(part) for pair in body.items() for part in pair)


_SHAPES: dict[bytes, Callable[[Any], Item]] = {
    b"string": data_of,
    b"list": data_of,
    b"set": data_of,
    b"zset": _scored,
    b"hash": _pair,
    b"stream": _message,
}


def _member(element: dict[str, Any], name: str) -> Any:
    if name not in element:
        raise BadValue(f"there is no {name}")
    return element[name]


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadValue(f"{what} is {records.shown(value)}")
    return value


def _stream_of(members: dict[str, Any]) -> Stream:
    added, deleted = members.get("entriesAdded"), members.get("maxDeletedId")
    return Stream(
        {},
        records.id_of(data_of(members["lastId"])),
        None if added is None else _number(added, "entriesAdded"),
        None if deleted is None else records.id_of(data_of(deleted)),
        tuple(map(_group_of, _list(members.get("groups", []), "groups"))),
    )


def _group_of(group: Any) -> Group:
    if not isinstance(group, dict):
        raise BadValue(f"a group is {records.shown(group)}")
    read = group.get("entriesRead")
    return records.group_of(
        data_of(_member(group, "name")),
        data_of(_member(group, "lastId")),
        None if read is None else _number(read, "entriesRead"),
        map(data_of, _list(group.get("consumers", []), "consumers")),
        map(_pending_of, _list(group.get("pending", []), "pending")),
    )


def _pending_of(entry: Any) -> Pending:
    if not isinstance(entry, dict):
        raise BadValue(f"a pending entry is {records.shown(entry)}")
    return Pending(
        records.id_of(data_of(_member(entry, "id"))),
        data_of(_member(entry, "consumer")),
        _number(_member(entry, "delivered"), "delivered"),
        _number(_member(entry, "count"), "count"),
    )
