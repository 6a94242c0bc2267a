from __future__ import annotations

import math
import time
from typing import Any
from unittest.mock import ANY

import hiredis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resp.errors import ProtocolError
from resp.frames import FrameScanner, decode, elements, is_error, is_null, is_push
from tests.resp.chunking import cut, cut_places, cuttings

FRAMES: dict[str, bytes] = {
    "status": b"+OK\r\n",
    "other status": b"+PONG\r\n",
    "empty status": b"+\r\n",
    "status with a CR": b"+a\rb\r\n",
    "error": b"-ERR no such key\r\n",
    "integer": b":1\r\n",
    "negative integer": b":-1\r\n",
    "long integer": b":-9223372036854775808\r\n",
    "bulk": b"$3\r\nabc\r\n",
    "empty bulk": b"$0\r\n\r\n",
    "null bulk": b"$-1\r\n",
    "bulk full of line breaks": b"$6\r\n\r\n\r\n\r\n\r\n",
    "bulk that looks like a frame": b"$5\r\n+OK\r\n\r\n",
    **{f"bulk of {size}": b"$%d\r\n%b\r\n" % (size, b"x" * size) for size in (9, 10, 99, 100, 999, 1000, 9999, 10000)},
    "array": b"*3\r\n:1\r\n$1\r\na\r\n+b\r\n",
    "array of 12": b"*12\r\n" + b"$2\r\nab\r\n" * 6 + b":1\r\n" * 6,
    "array of 16": b"*16\r\n" + b"$2\r\nab\r\n" * 8 + b":1\r\n" * 8,
    "empty array": b"*0\r\n",
    "null array": b"*-1\r\n",
    "nested": b"*2\r\n*2\r\n*0\r\n*1\r\n$-1\r\n*-1\r\n",
    "array of long ones": b"*2\r\n$100\r\n" + b"x" * 100 + b"\r\n-" + b"e" * 100 + b"\r\n",
    "null": b"_\r\n",
    "double": b",3.25\r\n",
    "boolean": b"#t\r\n",
    "big number": b"(3492890328409238509324850943850943825024385\r\n",
    "bulk error": b"!5\r\nERR x\r\n",
    "verbatim": b"=7\r\ntxt:abc\r\n",
    "map": b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
    "empty map": b"%0\r\n",
    "set": b"~2\r\n+a\r\n$1\r\nb\r\n",
    "push": b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n",
    "attribute": b"|1\r\n+ttl\r\n:3600\r\n$3\r\nabc\r\n",
    "two attributes": b"|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n%1\r\n+c\r\n:1\r\n*1\r\n:2\r\n",
    "attribute inside": b"*2\r\n|1\r\n+a\r\n:1\r\n:2\r\n:3\r\n",
    "streamed string": b"$?\r\n;4\r\nHell\r\n;2\r\no!\r\n;0\r\n",
    "empty streamed string": b"$?\r\n;0\r\n",
    "streamed array": b"*?\r\n:1\r\n*2\r\n:2\r\n:3\r\n.\r\n",
    "streamed map": b"%?\r\n+a\r\n*?\r\n.\r\n.\r\n",
    "streamed inside": b"*2\r\n$?\r\n;1\r\na\r\n;0\r\n:1\r\n",
}

NOT_RESP: dict[str, bytes] = {
    "http": b"HTTP/1.1 400 Bad Request\r\n",
    "binary": b"\x15\x03\x01\x00\x02\x02",
    "blank line": b"\r\n",
    "word as length": b"$abc\r\n",
    "no length": b"$\r\n",
    "plus sign": b"$+3\r\nabc\r\n",
    "underscore": b"*1_0\r\n",
    "negative length": b"$-2\r\n",
    "endless length": b"$" + b"1" * 40,
    "chunk outside": b";4\r\nabcd\r\n",
    "end outside": b".\r\n",
    "wrong type inside": b"*2\r\n:1\r\nx\r\n",
    "bulk out of step": b"*2\r\n$1\r\nabc\r\n:1\r\n",
}


def feed(chunks: list[bytes]) -> tuple[list[bytes], FrameScanner]:
    scanner = FrameScanner()
    return [frame for chunk in chunks for frame in scanner.feed(chunk)], scanner


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_in_any_two_chunks(name: str) -> None:
    for chunks in cuttings(FRAMES[name]):
        frames, scanner = feed(chunks)
        assert frames == [FRAMES[name]]
        assert type(frames[0]) is bytes
        assert scanner.buffered == 0


@pytest.mark.parametrize("name", FRAMES)
def test_bytes_behind_a_frame_are_the_next_one(name: str) -> None:
    frame = FRAMES[name]
    for chunks in cuttings(b":5\r\n" + frame + b"$2\r\na"):
        frames, scanner = feed(chunks)
        assert frames == [b":5\r\n", frame]
        assert scanner.buffered == len(b"$2\r\na")
        assert scanner.feed(b"b\r\n" + frame) == [b"$2\r\nab\r\n", frame]


@pytest.mark.parametrize("name", FRAMES)
def test_no_frame_ends_early(name: str) -> None:
    frame = FRAMES[name]
    for length in range(len(frame)) if len(frame) < 1000 else (1, len(frame) - 2, len(frame) - 1):
        frames, scanner = feed([frame[:length]])
        assert (frames, scanner.buffered) == ([], length)


@pytest.mark.parametrize("name", NOT_RESP)
def test_what_is_not_resp(name: str) -> None:
    for chunks in cuttings(b"+OK\r\n" + NOT_RESP[name]):
        scanner, frames = FrameScanner(), []
        with pytest.raises(ProtocolError, match=r"Protocol error: .* is not the beginning of a reply") as caught:
            for chunk in chunks:
                frames += scanner.feed(chunk)
        assert frames + caught.value.frames == [b"+OK\r\n"]


@given(st.lists(st.sampled_from(list(FRAMES.values())), max_size=20), cut_places())
def test_any_chunking_gives_the_same_frames(frames: list[bytes], places: list[int]) -> None:
    found, scanner = feed(cut(b"".join(frames), places))
    assert (found, scanner.buffered) == (frames, 0)


@pytest.mark.parametrize("size", [0, 1, 9, 10, 64, 99, 100])
@pytest.mark.parametrize("odd", [b"$-1\r\n", b"+OK\r\n", b":7\r\n", b"$2\r\n$2\r\n", b"*2\r\n$1\r\na\r\n:1\r\n"])
def test_values_of_one_length(size: int, odd: bytes) -> None:
    """Read together; what looks like a header inside a value, or comes between them, makes no difference."""
    header = b"$%d\r\n" % size
    values = [header + (header * 50)[number : number + size] + b"\r\n" for number in range(30)]
    for place in (1, 2, 9, 29, 30):
        frames = [*values[:place], odd, *values[place:]]
        data = b"".join(frames)
        assert feed([data]) == (frames, ANY)
        for end in (len(data) - 1, len(data) - len(values[0]) - 1, len(data) // 2):
            found, scanner = feed([data[:end], data[end:]])
            assert (found, scanner.buffered) == (frames, 0)


@pytest.mark.parametrize("last", [65, 46, 640, 6400])
def test_values_of_one_length_but_the_last(last: int) -> None:
    """Its header differs in the last place only, or is longer, and what it holds looks like headers."""
    value = (b"y" * 65 + (b"$64\r" + b"y" * 67) * 100)[:last]
    frames = [*[b"$64\r\n%b\r\n" % (b"x" * 64)] * 20, b"$%d\r\n%b\r\n" % (last, value)]
    assert feed([b"".join(frames)]) == (frames, ANY)


@given(
    st.lists(
        st.sampled_from([b":1\r\n", b":-20\r\n", b":300\r\n", b":", b"\r", b"\n", b"-", b"4", b"+OK\r\n"]), max_size=30
    )
)
@example([b":1\r\n"] * 5 + [b":", b"4", b"\r", b"5", b"\n"])
@example([b":1\r\n"] * 5 + [b"6", b":", b"\r", b"\n"])
@example([b":1\r\n"] * 5 + [b":", b"7", b"\r"])
def test_integers(pieces: list[bytes]) -> None:
    """Together they are what they are byte by byte."""
    data = b":5\r\n" + b"".join(pieces)
    together, alone = FrameScanner(), FrameScanner()
    try:
        expected = [frame for index in range(len(data)) for frame in alone.feed(data[index : index + 1])]
    except ProtocolError:
        with pytest.raises(ProtocolError):
            together.feed(data)
        return
    assert together.feed(data) == expected
    assert together.buffered == alone.buffered


def test_time_grows_with_the_bytes_only() -> None:
    big = b"$10000000\r\n" + b"x" * 10_000_000 + b"\r\n"
    line = b"+" + b"x" * 3_000_000 + b"\r\n"
    many = b"*200000\r\n" + b"$3\r\nabc\r\n" * 200_000
    deep = b"*1\r\n" * 100_000 + b":1\r\n"
    small = b"$3\r\nabc\r\n" * 100_000
    began = time.process_time()
    for data, piece, count in (
        (big, 16384, 1),
        (line, 1000, 1),
        (many, 1000, 1),
        (deep, 1000, 1),
        (small, 1000, 100_000),
    ):
        frames, scanner = feed([data[index : index + piece] for index in range(0, len(data), piece)])
        assert (len(frames), scanner.buffered) == (count, 0)
    assert time.process_time() - began < 5


def test_repr_names_what_is_missing() -> None:
    scanner = FrameScanner()
    scanner.feed(b"*3\r\n:1\r\n$")
    assert repr(scanner) == "<FrameScanner: 9 bytes buffered, 2 elements pending>"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"*3\r\n:1\r\n$1\r\na\r\n*1\r\n:2\r\n", [b":1\r\n", b"$1\r\na\r\n", b"*1\r\n:2\r\n"]),
        (b"%1\r\n+a\r\n~1\r\n:1\r\n", [b"+a\r\n", b"~1\r\n:1\r\n"]),
        (b"~1\r\n_\r\n", [b"_\r\n"]),
        (b">2\r\n+a\r\n+b\r\n", [b"+a\r\n", b"+b\r\n"]),
        (b"*2\r\n|1\r\n+a\r\n:1\r\n:2\r\n:3\r\n", [b"|1\r\n+a\r\n:1\r\n:2\r\n", b":3\r\n"]),
        (b"|1\r\n+a\r\n:1\r\n*1\r\n:2\r\n", [b":2\r\n"]),
        (b"*?\r\n:1\r\n*?\r\n.\r\n.\r\n", [b":1\r\n", b"*?\r\n.\r\n"]),
        (b"*1\r\n$200\r\n" + b"x" * 200 + b"\r\n", [b"$200\r\n" + b"x" * 200 + b"\r\n"]),
        (b"*0\r\n", []),
        (b"*-1\r\n", []),
        (b"_\r\n", []),
        (b"$-1\r\n", []),
        (b"-ERR x\r\n", []),
        (b"+OK\r\n", []),
    ],
)
def test_elements(frame: bytes, expected: list[bytes]) -> None:
    assert elements(frame) == expected


@pytest.mark.parametrize(
    ("frame", "value"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-5\r\n", -5),
        (b"$3\r\nabc\r\n", b"abc"),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"_\r\n", None),
        (b"#t\r\n", True),
        (b",1.5\r\n", 1.5),
        (b",inf\r\n", math.inf),
        (b"=7\r\ntxt:abc\r\n", b"abc"),
        (b"*2\r\n:1\r\n*1\r\n$-1\r\n", [1, [None]]),
        (b"~2\r\n:1\r\n*1\r\n:2\r\n", [1, [2]]),
        (b"%1\r\n$1\r\na\r\n%0\r\n", {b"a": {}}),
        (b">2\r\n+a\r\n:1\r\n", [b"a", 1]),
        (b"|1\r\n+a\r\n:1\r\n:2\r\n", 2),
    ],
)
def test_decode(frame: bytes, value: Any) -> None:
    assert decode(frame) == value


def test_decode_error() -> None:
    error = decode(b"-ERR no such key\r\n")
    assert isinstance(error, hiredis.ReplyError)
    assert str(error) == "ERR no such key"
    assert isinstance(decode(b"*2\r\n:1\r\n-EXECABORT x\r\n")[1], hiredis.ReplyError)


@pytest.mark.parametrize("frame", [b"$?\r\n;0\r\n", b"%1\r\n*0\r\n:1\r\n"])
def test_decode_what_hiredis_cannot(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame)


def test_questions_about_a_frame() -> None:
    assert [name for name, frame in FRAMES.items() if is_error(frame)] == ["error", "bulk error"]
    assert [name for name, frame in FRAMES.items() if is_push(frame)] == ["push"]
    assert [name for name, frame in FRAMES.items() if is_null(frame)] == ["null bulk", "null array", "null"]
