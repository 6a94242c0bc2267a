"""Every format gives back exactly what was written, for every type, in any chunking, whole and piece by piece."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill.files import json_form, json_read, json_text, records, xml_read
from backfill.files.formats import FORMATS, Format, format_of
from backfill.files.opening import Input, reading, writing
from backfill.files.records import Bad, BadValue, FileError, Head, Item, Piece, parts_of, state_of
from backfill.values import Hash, SortedSet, State, Stream
from tests.backfill.strategies import states

FORMS = sorted(FORMATS)
PARTS = (records, json_read, xml_read)  # who decides how much is one piece


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def written(form: Format, keys: Iterable[tuple[Head, list[Item]]]) -> bytes:
    writer = form.writer()
    parts = [writer.head()]
    for head, items in keys:
        parts += writer.record(head, items)
    return b"".join([*parts, writer.tail()])


def joined(found: Iterable[Piece | Bad]) -> list[State]:
    """The states of all records, which may come in pieces."""
    result = []
    items: list[Item] = []
    for piece in found:
        assert isinstance(piece, Piece), piece
        assert piece.first == (not items) or not piece.items, "a piece is first, or it is not"
        items += piece.items
        if piece.last:
            state = state_of(Piece(piece.head, items))
            result.append(replace(state, deadline_ms=piece.head.ttl, size=0))
            items = []
    return result


def expected(state: State) -> State:
    return replace(state, read_ms=0, size=0)


@pytest.mark.parametrize("name", [name for name in FORMS if name != "tsv"])
@settings(max_examples=25)
@given(
    some=st.lists(st.binary(max_size=6).flatmap(states), max_size=5, unique_by=lambda state: state.key),
    chunk=st.sampled_from([1, 7, 1000]),
    pieces=st.booleans(),
)
def test_what_is_written_is_read(name: str, some: list[State], chunk: int, pieces: bool) -> None:
    form = FORMATS[name]
    with pytest.MonkeyPatch.context() as patch:
        if pieces:  # as if all of them were big
            patch.setattr(json_read, "WHOLE_CHARS", 1)
            patch.setattr(json_text, "CHUNK_CHARS", 8)
            patch.setattr(json_form, "SLICE", 3)
            for module in PARTS:
                patch.setattr(module, "PIECE_ITEMS", 2)
        data = written(form, (parts_of(state, lambda deadline: deadline) for state in some))
        assert joined(form.read(chunked(data, chunk))) == [expected(state) for state in some], data


@pytest.mark.parametrize("name", FORMS)
def test_big_keys_are_handed_on_in_bounded_pieces(name: str) -> None:
    items: list[Item] = [(b"field %d" % number, b"value" * 20, None) for number in range(20_000)]
    data = written(FORMATS[name], [(Head(b"big", b"hash"), items), (Head(b"k", b"string"), [b"v"])])
    found = list(FORMATS[name].read(chunked(data, 65536)))
    assert all(isinstance(piece, Piece) and len(piece.items) <= 2 * records.PIECE_ITEMS for piece in found)
    assert len(found) > 10
    assert [piece.head.key for piece in found if isinstance(piece, Piece) and piece.last] == [b"big", b"k"]
    assert [item for piece in found[:-1] if isinstance(piece, Piece) for item in piece.items] == items


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("value", [b"", b"\xff" * 3_000_000, "€".encode() * 1_000_001, bytes(range(256)) * 5000])
def test_long_strings(name: str, value: bytes) -> None:
    data = written(FORMATS[name], [(Head(b"k", b"string"), [value])])
    (state,) = joined(FORMATS[name].read(chunked(data, 65536)))
    assert state.value == value


@given(st.binary(max_size=30))
def test_the_escape_of_json_is_only_taken_for_bytes_that_are_no_utf8(data: bytes) -> None:
    text = json_form.quoted(data)
    assert json_read.data_of(json_text.JsonText([text.encode()]).value()) == data
    try:
        data.decode()
    except UnicodeDecodeError:
        assert "\\udc" in text
    else:
        assert "\\u" not in text.replace("\\u00", "").replace("\\\\u", "")  # only control characters


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.json", "json"),
        ("dir.csv/A.JSONL.GZ", "jsonl"),
        ("x.ndjson", "jsonl"),
        ("x.tsv", "tsv"),
        ("x.psv.gz", "psv"),
        ("x.xml", "xml"),
        ("x.crossfade.gz", "lossless"),
    ],
)
def test_names(file: str, name: str) -> None:
    assert format_of(file, None).name == name
    assert format_of(file, "csv").name == "csv"


@pytest.mark.parametrize("file", ["-", "x", "x.gz", "json"])
def test_names_that_say_nothing(file: str) -> None:
    with pytest.raises(FileError, match="say --format"):
        format_of(file, None)


# --- what is wrong, with its line ---

LOSSLESS = '{"crossfade": "export", "version": 1}\n'
BAD = [
    ("json", "", "line 1: the file is empty"),
    ("json", "[\n{}\n,\n{}]", "line 2: there is no key"),
    ("json", "nonsense", "line 1: not JSON: expecting value"),
    ("json", '[\n{"key":"k","type":"list","value":["a"]},\n{"key":', "line 3: not JSON: expecting value"),
    ("json", '[\n{"key":"k","type":"list","value":["a"]}\n', "line 3: the file ends where , or ] is expected"),
    ("json", '[{"key":"k","type":"string","value":"v"}] []', "something stands behind the end"),
    ("json", '[\n\n"text"]', "line 3: a record is an object, and this is 'text'"),
    (
        "json",
        '[{"key":"k",\n"type":"zset","value":[{"value":"m","score":"high"}]}]',
        "the score is not a number: 'high'",
    ),
    ("json", '[{"key":"k","type":"zset","value":[{"value":"m","score":1e999}]}]', "the score is too large"),
    ("json", '[{"key":"k","type":"zset","value":[{"value":"m"}]}]', "there is no score"),
    ("json", '[{"key":"k","type":"hash","value":["a"]}]', "the value of a hash is an array"),
    ("json", '[{"key":"k","type":"hash","value":{"a":{}}}]', "an object stands where a string is expected"),
    ("json", '[{"key":"k","type":"set","value":{"a":"b"}}]', "the value of a set is an object"),
    ("json", '[{"key":"k","type":"hash","ttl":"soon","value":{"a":"b"}}]', "the ttl is not an integer: 'soon'"),
    ("json", '[{"key":"k","type":"list"}]', "there is no value"),
    ("json", '[{"key":"k","value":"v"}]', "there is no type"),
    ("json", '[{"type":"string","value":"v"}]', "there is no key"),
    ("json", '[{"key":"\\ud800","type":"string","value":"v"}]', "lone surrogate"),
    ("json", '[{"key":"k","type":"stream","value":[{"id":"x","body":{"a":"b"}}]}]', "not a stream id: 'x'"),
    ("json", '[{"key":"k","type":"none","ttl":-2}]', "there was no such key"),
    ("json", '[{"key":"k","type":"set","value":["a"],"fieldTtl":{"a":1}}]', "fieldTtl is an object, of a set"),
    ("json", '[{"key":"k","type":"hash","value":{"a":"b"},"fieldTtl":{"c":1}}]', "for a field that is not there: 'c'"),
    ("jsonl", '\n{"key":"k" "type":"string"}', "line 2: not JSON: expecting ',' delimiter"),
    ("jsonl", '{"key":"k","type":"string","value":"v', "line 1: not JSON: unterminated string"),
    ("csv", "", "the header has no key and type"),
    ("csv", "a,b\n1,2\n", "the header has no key and type"),
    ("csv", "key,type,value,colour\n", "unknown column 'colour'"),
    ("csv", "key,type,value\nk,list,a\nk,list\n", "line 3: 2 cells, and the header has 3"),
    ("csv", 'key,type,value\nk,list,"a\n', "line 2: not CSV: unexpected end of data"),
    ("csv", "key,type,value,score\nk,zset,a,b\n", "line 2: the score is not a number: 'b'"),
    ("csv", "key,type,value\nk,string,a\nk,string,b\n", "line 3: a string has one row"),
    ("csv", "key,type,detail\nk,stream,{\n", "the detail is not JSON"),
    ("xml", "<root><record></root>", "line 1: not XML: mismatched tag"),
    ("xml", "<root>\n<record><key>k</key>", "line 2: not XML: no element found"),
    ("xml", '<!DOCTYPE x [<!ENTITY a "b">]><root/>', "line 1: a DTD is not supported"),
    ("xml", '<?xml version="1.0" encoding="made-up"?><root/>', "unknown encoding: made-up"),
    ("xml", '<?xml version="1.0" encoding="big5"?><root/>', "multi-byte encodings are not supported"),
    ("xml", "<root>\n<record><key>k</key></record></root>", "line 2: there is no type"),
    ("xml", "<root><record><type>set</type></record></root>", "there is no key"),
    ("xml", "<root><record><key>k</key><type>zset</type><value>m</value></record></root>", "<value> has no <value>"),
    ("xml", '<root><record><key encoding="base64">?</key><type>set</type></record></root>', "base64 is not"),
    ("xml", "<root><record><key>k</key><type>list</type><value><a/></value></record></root>", "text only"),
    ("lossless", "", "line 1: the file ends early"),
    ("lossless", LOSSLESS, "line 1: the file ends early: its last line is missing"),
    ("lossless", '{"key":"k"}\n', "line 1: not a line of a lossless export"),
    ("lossless", '{"crossfade": "export", "version": 2}\n', "a newer crossfade wrote it"),
    ("lossless", LOSSLESS + '{"crossfade": "end", "keys": 1}\n', "line 2: 1 keys were exported, and 0 are here"),
    ("lossless", LOSSLESS + '{"value":["a"],"more":false}\n', "line 2: a part of a key is missing"),
    ("lossless", LOSSLESS + '{"db":0,"key":"k","type":"zset","value":["a","b"]}\n', "the score is not a number"),
    ("lossless", LOSSLESS + "x\n", "line 2: not JSON"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_bad_files(name: str, text: str, message: str) -> None:
    told = []
    try:
        for one in FORMATS[name].read(chunked(text.encode(), 5)):
            if isinstance(one, Bad):
                told.append(f"line {one.line}: {one.text}")
            elif one.last and not told:
                try:
                    state_of(one)
                except records.BadValue as problem:
                    told.append(f"line {one.head.line}: {problem}")
    except FileError as problem:
        told.append(problem.text)
    assert told and message in told[0], told


@pytest.mark.parametrize("pieces", [False, True])
def test_behind_a_bad_record_the_next_one_is_read(pieces: bool) -> None:
    good = '{"key":"g","type":"list","ttl":-1,"value":["a"]}'
    lines = [
        good,
        '{"key":"a","type":"zset","value":[{"value":"m","score":1},{"value":"n"},{"value":"o","score":2}]}',
        '{"key":"b" oops',
        "[]",
        '{"key":"c","type":"hash","value":{"a":"b","c":[1,2,{"d":3}],"e":"f"},"ttl":5}',
        '{"key":"d","type":"list","value":{"a":"b"}}',
        good,
    ]
    with pytest.MonkeyPatch.context() as patch:
        if pieces:
            patch.setattr(json_read, "WHOLE_CHARS", 1)
            patch.setattr(json_text, "CHUNK_CHARS", 8)
        for text, bad in (("\n".join(lines), [2, 3, 4, 5, 6]), (f"[{','.join(lines[:2] + lines[3:])}]", [1] * 4)):
            found = list(json_read.read(chunked(text.encode(), 3)))
            assert [one.line for one in found if isinstance(one, Bad)] == bad, found
            assert [one.head.key for one in found if isinstance(one, Piece) and one.last] == [b"g", b"g"]


@pytest.mark.parametrize("name", FORMS)
def test_a_file_that_is_cut_off_anywhere_never_gives_half_a_key(name: str) -> None:
    """CSV has no end of its own: cut between two rows, it is what it would be with fewer rows."""
    keys = [(Head(b"k%d" % number, b"list"), [b"one", b"two", b"three"]) for number in range(3)]
    data = written(FORMATS[name], keys)
    whole = {b"k0", b"k1", b"k2"}
    for end in range(1, len(data) - 1):
        complete = set()
        told = False
        try:
            for one in FORMATS[name].read([data[:end]]):
                told |= isinstance(one, Bad)
                if isinstance(one, Piece) and one.last and one.first:
                    assert name in ("csv", "tsv", "psv") or one.items == [b"one", b"two", b"three"]
                    complete.add(one.head.key)
        except FileError:
            told = True
        assert told or complete == whole or name in ("csv", "tsv", "psv", "jsonl"), data[:end]


SPICE = [
    *(
        b"",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"<",
        b">",
        b"\n",
        b"\\",
        b"\xff",
        b"\0",
        b"{}",
        b"[]",
        b"true",
        b"null",
    ),
    *(b"-1", b"1e999", b"99999999999999999999", b"\\ud800", b"</value>", b"<group/>", b"<type>hash</type>"),
    *(
        b'"ttl":',
        b'"type":"stream"',
        b'"type":"none"',
        b'"fieldTtl":{"a":1}',
        b'"more":true',
        b'"lastId":"0-0"',
        b'{"b":"?"}',
    ),
]


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=int(os.environ.get("FUZZ", "12")))
@given(st.data())
def test_damaged_files_are_told_and_nothing_else_happens(name: str, data: st.DataObject) -> None:
    """Whatever stands in a file: records, bad records, or a FileError; never another exception."""
    some = data.draw(st.lists(st.binary(max_size=3).flatmap(states), min_size=1, max_size=3))
    text = written(FORMATS[name], (parts_of(state, lambda deadline: deadline) for state in some))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + data.draw(st.sampled_from(SPICE)) + text[end:]
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.booleans()):
            patch.setattr(json_read, "WHOLE_CHARS", 1)
            patch.setattr(json_text, "CHUNK_CHARS", 8)
            for module in PARTS:
                patch.setattr(module, "PIECE_ITEMS", 2)
        open_head: Head | None = None
        try:
            for one in FORMATS[name].read(chunked(text, 11)):
                if isinstance(one, Bad):
                    assert one.line and one.text
                    open_head = None
                    continue
                assert one.first == (open_head is None), "pieces of one key come one after the other"
                open_head = None if one.last else one.head
                if one.first and one.last:
                    with suppress(BadValue):
                        state_of(one)
        except FileError:
            return
    assert open_head is None


# --- files ---


def test_gzip_by_name_and_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    with writing(str(path)) as output:
        output.write(b"some" * 100_000)
        assert not path.exists()
    assert gzip.decompress(path.read_bytes()) == b"some" * 100_000
    with reading(str(path)) as found:
        assert b"".join(found.chunks()) == b"some" * 100_000
        assert found.done == found.size == path.stat().st_size
    with pytest.raises(RuntimeError), writing(str(path)) as output:
        output.write(b"other")
        raise RuntimeError
    assert [one.name for one in tmp_path.iterdir()] == ["x.json.gz"]
    assert len(gzip.decompress(path.read_bytes())) == 400_000


@pytest.mark.parametrize("chunk", [1, 7, 65536])
def test_gzip_members_one_behind_the_other(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backfill.files.opening.CHUNK_BYTES", chunk)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a" * 2000) + gzip.compress(b"") + gzip.compress(b"b") + b"\0" * 20)
    with reading(str(path)) as found:
        chunks = list(found.chunks())
    assert b"".join(chunks) == b"a" * 2000 + b"b"
    assert all(chunks), "an empty one would mean the end"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(bytes(range(256)) * 50)[:-9], "cut off"),
        (b"plain", "not gzip"),
        (gzip.compress(b"text")[:-5] + b"12345", "damaged"),
    ],
    ids=["cut off", "plain", "damaged"],  # the data would be in its name, and its time is other in every process
)
def test_bad_gzip(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(data)
    with reading(str(path)) as found, pytest.raises(FileError, match=message):
        list(found.chunks())


def test_standard_input_is_unpacked_when_it_is_gzip(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(b"text"))
    with path.open("rb") as file:
        assert b"".join(Input("-", file).chunks()) == b"text"


# --- files of RIOT, in its documented shapes ---

RIOT = """[
 {"key":"gen:1","event":"scan","timestamp":1730880592559,"type":"zset","ttl":-1,"value":[{"value":"59","score":23.05}]},
 {"key":"gen:2","event":"scan","time":"2024-11-06T08:23:12.559Z","type":"hash","value":{"field1":"a","field2":"é"}},
 {"key": "string:615", "ttl": 1790000000000, "value": "value:615", "type": "STRING"},
 {"key": "list:1", "ttl": 5000, "value": ["member:991", "member:981"], "type": "LIST", "memoryUsage": 120},
 {"key": "stream:0", "ttl": -1, "value":
   [{"stream": "stream:0", "id": "1602190921109-0", "body": {"field1": "value0"}}], "type": "STREAM"}
]"""


@pytest.mark.parametrize("chunk", [1, 20, 10_000])
@pytest.mark.parametrize("pieces", [False, True])
def test_json_of_riot(chunk: int, pieces: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if pieces:
            patch.setattr(json_read, "WHOLE_CHARS", 1)
            patch.setattr(json_text, "CHUNK_CHARS", 8)
        found = joined(json_read.read(chunked(RIOT.encode(), chunk)))
    assert [(state.key, state.kind, state.deadline_ms) for state in found] == [
        (b"gen:1", b"zset", None),
        (b"gen:2", b"hash", None),
        (b"string:615", b"string", 1790000000000),
        (b"list:1", b"list", 5000),
        (b"stream:0", b"stream", None),
    ]
    assert found[2].value == b"value:615"
    assert found[4].value == Stream({b"1602190921109-0": (b"field1", b"value0")}, b"1602190921109-0")


def test_xml_of_riot() -> None:
    """As Jackson writes it: members in another order than ours, one element per item."""
    text = """<root>
      <record><ttl>-1</ttl><value><field1>a</field1><field2>b</field2></value><key>h</key><type>HASH</type></record>
      <record><key>l</key><event>scan</event><type>list</type><ttl>-1</ttl><value>1</value><value/></record>
      <record><key>z</key><type>zset</type><value><value>m</value><score>1.5</score></value></record>
      <record><key>s</key><type>string</type><value>a &amp; b</value></record></root>"""
    assert [(state.key, state.value) for state in joined(xml_read.read(chunked(text.encode(), 9)))] == [
        (b"h", Hash({b"field1": b"a", b"field2": b"b"})),
        (b"l", (b"1", b"")),
        (b"z", SortedSet({b"m": 1.5})),
        (b"s", b"a & b"),
    ]


def test_records_have_riots_names_and_shapes() -> None:
    """Ours are read by RIOT: the members that it knows, as it writes them."""
    keys: list[tuple[Head, list[Item]]] = [
        (Head(b"h", b"hash"), [(b"f", b"v", None)]),
        (Head(b"z", b"zset", 5), [(b"m", 1.0), (b"n", float("-inf"))]),
        (Head(b"x", b"stream", stream=Stream({}, b"1-0")), [(b"1-0", (b"f", b"v"))]),
        (Head(b"l", b"list", db=3), [b"a", b"b"]),
    ]
    assert written(FORMATS["jsonl"], keys).decode().splitlines() == [
        '{"key":"h","type":"hash","ttl":-1,"value":{"f":"v"}}',
        '{"key":"z","type":"zset","ttl":5,"value":[{"value":"m","score":1.0},{"value":"n","score":"-Infinity"}]}',
        '{"key":"x","type":"stream","ttl":-1,"lastId":"1-0","value":[{"stream":"x","id":"1-0","body":{"f":"v"}}]}',
        '{"key":"l","type":"list","ttl":-1,"db":3,"value":["a","b"]}',
    ]


# --- tables ---

BEERS = 'id,name,abv,style\r\n321,Fireside Chat,0.079,\r\n173,"Back in ""Black""",,IPA\r\n,Nameless,1,\r\n7,x\r\n'


@pytest.mark.parametrize("key", ["beer:{id}", "beer:#{id}"])
def test_a_table_becomes_hashes(key: str) -> None:
    form = FORMATS["csv"]
    assert form.table is not None
    first, second, *bad = form.table(chunked(BEERS.encode(), 7), key)
    assert isinstance(first, Piece) and first.head.key == b"beer:321"
    assert first.items == [(b"id", b"321", None), (b"name", b"Fireside Chat", None), (b"abv", b"0.079", None)]
    assert isinstance(second, Piece) and second.items[1:] == [
        (b"name", b'Back in "Black"', None),
        (b"style", b"IPA", None),
    ]
    assert bad == [Bad(4, "there is nothing under 'id', which the key needs"), Bad(5, "2 cells, and the header has 4")]


def test_nested_json_becomes_flat_fields() -> None:
    form = FORMATS["json"]
    assert form.table is not None
    text = '[{"id": 7, "a": {"b": [1, 2.50]}, "c": true, "d": null}, {"x": 1}, 5]'
    piece, *bad = form.table([text.encode()], "k:{id}")
    assert isinstance(piece, Piece) and piece.head.key == b"k:7"
    assert [item[:2] for item in piece.items] == [
        (b"id", b"7"),
        (b"a.b[0]", b"1"),
        (b"a.b[1]", b"2.50"),
        (b"c", b"true"),
    ]
    assert [type(one) for one in bad] == [Bad, Bad]


@pytest.mark.parametrize(("key", "message"), [("beer", "a column in braces"), ("{colour}", "no 'colour'")])
def test_templates_that_name_nothing(key: str, message: str) -> None:
    form = FORMATS["csv"]
    assert form.table is not None
    with pytest.raises(FileError, match=message):
        list(form.table([BEERS.encode()], key))
