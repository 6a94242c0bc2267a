from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp import encode as e
from resp.frames import FrameScanner, decode, is_null, is_push


def test_command() -> None:
    assert e.encode([b"SET", b"k", b""]) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n"


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=10))
def test_any_command_is_an_array_of_its_arguments(args: list[bytes]) -> None:
    assert decode(e.encode(args)) == args
    assert e.encode(args) == e.array([e.bulk(arg) for arg in args])


@pytest.mark.parametrize("size", [e.BIG_BYTES - 1, e.BIG_BYTES, 100_000])
def test_big_arguments(size: int) -> None:
    for args in ([b"x" * size], [b"SET", b"k", b"\r\n" * (size // 2)], [b"", b"x" * size, b"y" * size]):
        assert e.encode(args) == e.array([e.bulk(arg) for arg in args])


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (e.OK, b"+OK\r\n"),
        (e.simple(b"QUEUED"), e.QUEUED),
        (e.simple(b"PONG"), b"+PONG\r\n"),
        (e.simple(b"a\r\nb"), b"+a  b\r\n"),
        (e.error(b"ERR no"), b"-ERR no\r\n"),
        (e.error("ERR n\u00f6"), b"-ERR n\xc3\xb6\r\n"),
        (e.error("ERR a\r\n+OK\r\n"), b"-ERR a  +OK  \r\n"),
        (e.integer(-5), b":-5\r\n"),
        (e.bulk(b"a\r\n"), b"$3\r\na\r\n\r\n"),
        (e.null(2), b"$-1\r\n"),
        (e.null(3), b"_\r\n"),
        (e.array([]), b"*0\r\n"),
        (e.array([e.integer(1), e.null(2)]), b"*2\r\n:1\r\n$-1\r\n"),
        (e.map_([(e.simple(b"a"), e.integer(1))], 2), b"*2\r\n+a\r\n:1\r\n"),
        (e.map_([(e.simple(b"a"), e.integer(1))], 3), b"%1\r\n+a\r\n:1\r\n"),
        (e.map_([], 2), b"*0\r\n"),
        (e.map_([], 3), b"%0\r\n"),
        (e.push([e.bulk(b"invalidate"), e.null(3)], 3), b">2\r\n$10\r\ninvalidate\r\n_\r\n"),
        (e.push([e.bulk(b"message")], 2), b"*1\r\n$7\r\nmessage\r\n"),
    ],
)
def test_replies(frame: bytes, expected: bytes) -> None:
    assert frame == expected
    assert FrameScanner().feed(frame) == [frame]


def test_replies_are_what_they_say() -> None:
    assert is_null(e.null(2)) and is_null(e.null(3))
    assert is_push(e.push([], 3)) and not is_push(e.push([], 2))
    assert isinstance(decode(e.error("ERR x")), hiredis.ReplyError)
