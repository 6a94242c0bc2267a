"""Owns reading XML in the shape that `xml_form` describes: what RIOT wrote, and what we did. Pure.

The parser is expat, fed in chunks: only one element of a value is held at a time, if the key's type stands before the
value. A DTD is refused: it could define what the file does not show.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from backfill.values import Group, Pending, Stream

from . import records
from .records import PIECE_BYTES, PIECE_ITEMS, Bad, BadValue, FileError, Head, Item, Piece


@dataclass(slots=True)
class Node:
    tag: str
    attributes: dict[str, str]
    parts: list[str] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def data(self) -> bytes:
        """The bytes that the text stands for. Errors: BadValue."""
        return _base64(self.text) if self.attributes.get("encoding") == "base64" else self.text.encode()

    def child(self, tag: str) -> Node:
        """The first of this name. Errors: BadValue."""
        for child in self.children:
            if child.tag == tag:
                return child
        raise BadValue(f"<{self.tag}> has no <{tag}>")

    def find(self, tag: str) -> Node | None:
        return next((child for child in self.children if child.tag == tag), None)


def read(chunks: Iterable[bytes]) -> Iterator[Piece | Bad]:
    """The records. Errors: FileError."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    tree = _Tree(parser)
    try:
        for chunk in chunks:
            parser.Parse(chunk, False)
            yield from tree.take()
        parser.Parse(b"", True)
    except expat.ExpatError as problem:
        yield from tree.take()
        raise FileError(f"line {problem.lineno}: not XML: {expat.ErrorString(problem.code)}") from None
    except (LookupError, ValueError) as problem:  # from Python's handler for encodings that expat has not
        raise FileError(f"line 1: not XML that can be read: {problem}") from None
    yield from tree.take()


class _Tree:
    """From expat's events to records. `_open` are the elements that are not closed yet, below the record."""

    def __init__(self, parser: expat.XMLParserType) -> None:
        self._parser = parser
        self._found: list[Piece | Bad] = []
        self._depth = 0
        self._open: list[Node] = []
        self._record = _Record(0)
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype

    def take(self) -> list[Piece | Bad]:
        """What has been found since."""
        found, self._found = self._found, []
        return found

    def _doctype(self, *_: object) -> None:
        raise FileError(f"line {self._parser.CurrentLineNumber}: a DTD is not supported")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 2:
            self._record = _Record(self._parser.CurrentLineNumber)
        elif self._depth > 2:
            self._open.append(Node(tag, attributes))

    def _characters(self, text: str) -> None:
        if self._open:
            self._open[-1].parts.append(text)
        elif text.strip() and self._depth:
            self._record.problem = self._record.problem or f"text where an element is expected: {records.shown(text)}"

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if self._depth == 1:
            self._found.append(self._record.end())
        elif self._depth > 1:
            node = self._open.pop()
            if self._depth == 2:
                self._record.member(node)
            elif self._depth == 3 and self._open[-1].tag == "value" and self._record.streams_fields:
                self._record.field(node)
            else:
                self._open[-1].children.append(node)
            self._found.extend(self._record.full())


class _Record:
    """One record as its elements are closed, one after the other."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._members: dict[str, Node] = {}
        self._groups: list[Node] = []
        self._values: list[Node] = []  # while the type is not known
        self._head: Head | None = None
        self._shape: Callable[[Node], Item] | None = None
        self._items: list[Item] = []
        self._size = 0
        self._first = True
        self.problem: str | None = None

    @property
    def streams_fields(self) -> bool:
        """Whether the elements of a <value> are items by themselves."""
        return self._head is not None and self._head.kind == b"hash"

    def member(self, node: Node) -> None:
        """A closed child of the record."""
        if node.tag == "value":
            if self._head is None:
                self._values.append(node)
            elif not self.streams_fields:
                self._add(node)
        elif node.tag == "group":
            self._groups.append(node)
        else:
            self._members[node.tag] = node
            if self._head is None and {"key", "type"} <= self._members.keys():
                self._begin()

    def field(self, node: Node) -> None:
        """A closed element of a hash's value."""
        self._add(node)

    def _begin(self) -> None:
        try:
            kind = records.kind_of(self._members["type"].text)
            self._head = Head(self._members["key"].data, kind, line=self._line)
        except BadValue as problem:
            self._head = Head(b"", b"")
            self.problem = self.problem or str(problem)
            return
        self._shape = _SHAPES.get(kind)
        for value in self._values:
            for node in value.children if kind == b"hash" else [value]:
                self._add(node)
        self._values = []

    def _add(self, node: Node) -> None:
        if self.problem is not None or self._shape is None:
            return
        try:
            item = self._shape(node)
        except BadValue as problem:
            self.problem = str(problem)
            return
        if isinstance(item, bytes) and self._items and self._head is not None and self._head.kind == b"string":
            self.problem = "a string has one value"
        self._items.append(item)
        self._size += records.item_size(item)

    def full(self) -> Iterator[Piece]:
        """A piece, when there is enough for one."""
        if self._size >= PIECE_BYTES or len(self._items) >= PIECE_ITEMS:
            if self.problem is None and self._complete():
                yield self._piece(last=False)
            self._items, self._size = [], 0

    def end(self) -> Piece | Bad:
        """The last piece."""
        if self._head is None:
            self.problem = self.problem or f"there is no {'type' if 'key' in self._members else 'key'}"
        if self.problem is None:
            self._complete()
        return self._piece(last=True) if self.problem is None else Bad(self._line, self.problem)

    def _piece(self, *, last: bool) -> Piece:
        assert self._head is not None
        piece = Piece(self._head, self._items, self._first, last)
        self._first, self._items, self._size = False, [], 0
        return piece

    def _complete(self) -> bool:
        assert self._head is not None
        members = self._members
        try:
            self._head.ttl = records.ttl_of(members["ttl"].text.strip()) if "ttl" in members else None
            self._head.db = records.integer(members["db"].text.strip(), "the db") if "db" in members else None
            self._head.payload = _base64(members["dump"].text) if "dump" in members else None
            if "lastId" in members:
                self._head.stream = _stream(members, self._groups)
        except BadValue as problem:
            self.problem = str(problem)
        return self.problem is None


# --- what elements mean; errors: BadValue ---


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise BadValue("what should be base64 is not") from None


def _data(node: Node) -> bytes:
    if node.children:
        raise BadValue(f"<{node.tag}> has elements in it, and should have text only")
    return node.data


def _name(node: Node) -> bytes:
    if (encoded := node.attributes.get("name64")) is not None:
        return _base64(encoded)
    return node.attributes.get("name", node.tag).encode()


def _field(node: Node) -> Item:
    ttl = node.attributes.get("ttl")
    return _name(node), _data(node), None if ttl is None else records.ttl_of(ttl)


def _scored(node: Node) -> Item:
    return _data(node.child("value")), records.score_of(node.child("score").text.strip())


def _message(node: Node) -> Item:
    pairs = ((_name(child), _data(child)) for child in node.child("body").children)
    return _id(node.child("id")), tuple(part for pair in pairs for part in pair)


_SHAPES: dict[bytes, Callable[[Node], Item]] = {
    b"string": _data,
    b"list": _data,
    b"set": _data,
    b"zset": _scored,
    b"hash": _field,
    b"stream": _message,
}


def _id(node: Node) -> bytes:
    return records.id_of(node.text.strip().encode())


def _whole(node: Node) -> int:
    return records.integer(node.text.strip(), node.tag)


def _stream(members: dict[str, Node], groups: list[Node]) -> Stream:
    added, deleted = members.get("entriesAdded"), members.get("maxDeletedId")
    return Stream(
        {},
        _id(members["lastId"]),
        None if added is None else _whole(added),
        None if deleted is None else _id(deleted),
        tuple(map(_group, groups)),
    )


def _group(node: Node) -> Group:
    read = node.find("entriesRead")
    return Group(
        _data(node.child("name")),
        _id(node.child("lastId")),
        None if read is None else _whole(read),
        tuple(_data(child) for child in node.children if child.tag == "consumer"),
        tuple(
            Pending(
                _id(child.child("id")),
                _data(child.child("consumer")),
                _whole(child.child("delivered")),
                _whole(child.child("count")),
            )
            for child in node.children
            if child.tag == "pending"
        ),
    )
