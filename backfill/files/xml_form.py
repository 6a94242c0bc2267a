"""Owns XML in the shape of RIOT's, and writes it; `xml_read` reads. Pure.

    <root>
    <record><key>k</key><type>hash</type><ttl>-1</ttl><value><field>value</field></value></record>
    </root>

A list or set has one <value> per element, a zset <value><value>member</value><score>1.0</score></value>, a stream
<value><stream>k</stream><id>1-0</id><body><field>value</field></body></value>. What RIOT does not have stands in
attributes, which it never writes: text that XML cannot hold (control characters, bytes that are no UTF-8) is
<value encoding="base64">, a field whose name is no XML name <field name="a b">, or <field name64="..."> where that is
not enough, and the ttl of a field <f ttl="...">. Further elements: <db>; <lastId>, <entriesAdded>, <maxDeletedId> and
<group> of a stream, <dump> (base64) of other types.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator

from backfill.values import Group, Stream

from .records import PIECE_BYTES, Head, Item, score_text

_IMPOSSIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # XML 1.0, not even as a character reference
_MARKUP = re.compile("[&<>\r]")
_ATTRIBUTE_MARKUP = re.compile('[&<>"\r\n\t]')
_NAME = re.compile(r"(?![xX][mM][lL])[A-Za-z_][A-Za-z0-9_.-]*\Z")
SLICE = 3 * 256 * 1024  # of base64: a multiple of 3


def _reference(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def _text(data: bytes) -> str | None:
    """As XML text, None where that is impossible."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    if _IMPOSSIBLE.search(text):
        return None
    return _MARKUP.sub(_reference, text) if _MARKUP.search(text) else text


def element(tag: str, data: bytes, attributes: str = "") -> str:
    """An element with these bytes as its text."""
    text = _text(data)
    if text is None:
        return f'<{tag}{attributes} encoding="base64">{base64.b64encode(data).decode()}</{tag}>'
    return f"<{tag}{attributes}>{text}</{tag}>"


def field(name: bytes, value: bytes, ttl: int | None = None) -> str:
    """An element whose name is a field's."""
    until = "" if ttl is None else f' ttl="{ttl}"'
    text = _text(name)
    if text is None:
        return element("field", value, f' name64="{base64.b64encode(name).decode()}"{until}')
    if _NAME.match(text):
        return element(text, value, until)
    return element("field", value, f' name="{_ATTRIBUTE_MARKUP.sub(_reference, name.decode())}"{until}')


class XmlWriter:
    def head(self) -> bytes:
        return b'<?xml version="1.0" encoding="UTF-8"?>\n<root>\n'

    def go_on(self, keys: int) -> None:
        """There is nothing between two records."""

    def tail(self) -> bytes:
        return b"</root>\n"

    def record(self, head: Head, items: Iterable[Item]) -> Iterator[bytes]:
        """The bytes of one key."""
        ttl = -1 if head.ttl is None else head.ttl
        waiting = [f"<record>{element('key', head.key)}{element('type', head.kind)}<ttl>{ttl}</ttl>"]
        if head.db:
            waiting.append(f"<db>{head.db}</db>")
        if head.stream is not None:
            waiting.append(_stream(head.stream))
        size = 0
        for part in _body(head, items):
            waiting.append(part)
            size += len(part)
            if size >= PIECE_BYTES:
                yield "".join(waiting).encode()
                waiting, size = [], 0
        waiting.append("</record>\n")
        yield "".join(waiting).encode()


def _body(head: Head, items: Iterable[Item]) -> Iterator[str]:
    match head.kind:
        case b"string":
            yield from _long(b"".join(items))
        case b"list" | b"set":
            for item in items:
                yield element("value", item)
        case b"zset":
            for member, score in items:
                yield f"<value>{element('value', member)}<score>{score_text(score)}</score></value>"
        case b"hash":
            yield "<value>"
            for name, value, ttl in items:
                yield field(name, value, ttl)
            yield "</value>"
        case b"stream":
            name = element("stream", head.key)
            for identity, fields in items:
                body = "".join(map(field, fields[::2], fields[1::2]))
                yield f"<value>{name}<id>{identity.decode()}</id><body>{body}</body></value>"
        case _:
            yield f"<dump>{base64.b64encode(head.payload or b'').decode()}</dump>"


def _long(data: bytes) -> Iterator[str]:
    """A string's <value>, in parts when it is binary: text is one part, as it is one string already."""
    if _text(data) is not None:
        yield element("value", data)
        return
    yield '<value encoding="base64">'
    for start in range(0, len(data), SLICE):
        yield base64.b64encode(data[start : start + SLICE]).decode()
    yield "</value>"


def _stream(stream: Stream) -> str:
    parts = [f"<lastId>{stream.last_id.decode()}</lastId>"]
    if stream.entries_added is not None:
        parts.append(f"<entriesAdded>{stream.entries_added}</entriesAdded>")
    if stream.max_deleted_id is not None:
        parts.append(f"<maxDeletedId>{stream.max_deleted_id.decode()}</maxDeletedId>")
    return "".join(parts) + "".join(map(_group, stream.groups))


def _group(group: Group) -> str:
    parts = [element("name", group.name), f"<lastId>{group.last_id.decode()}</lastId>"]
    if group.entries_read is not None:
        parts.append(f"<entriesRead>{group.entries_read}</entriesRead>")
    parts += [element("consumer", name) for name in group.consumers]
    parts += [
        f"<pending><id>{entry.id.decode()}</id>{element('consumer', entry.consumer)}"
        f"<delivered>{entry.delivered_ms}</delivered><count>{entry.count}</count></pending>"
        for entry in group.pending
    ]
    return f"<group>{''.join(parts)}</group>"
