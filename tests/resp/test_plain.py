"""The short cut through well-formed chunks: it must never take what commands.py would read otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp.commands import CommandParser
from resp.encode import encode
from resp.plain import CRLF, MAX_BYTES, read_big, read_columns, read_one

ARGS = st.binary(max_size=12) | st.sampled_from([b"\r\n", b"$3", b"*2", b"\r\n$3\r\nfoo", b"", b"GET", b"\r", b"\n"])
COMMANDS = st.lists(ARGS, min_size=1, max_size=5)


def by_all_the_rules(data: bytes) -> list[list[bytes]] | None:
    """What the chunk says, when it is whole commands and nothing else."""
    parser = CommandParser()
    commands = parser.feed(data)
    return commands if parser.fresh else None


@given(COMMANDS)
def test_one_command(args: list[bytes]) -> None:
    data = encode(args)
    found = read_one(data.split(CRLF))
    assert found in (None, args)
    assert found == args or any(CRLF in arg for arg in args)


@given(st.lists(COMMANDS, min_size=1, max_size=6))
def test_pipelines(commands: list[list[bytes]]) -> None:
    columns = read_columns(b"".join(map(encode, commands)).split(CRLF))
    one_shape = len({len(args) for args in commands}) == 1
    if columns is None:
        assert not one_shape or any(CRLF in arg for args in commands for arg in args)
    else:
        assert list(map(list, zip(*columns, strict=True))) == commands


HEADERS = [b"*1", b"*2", b"*3", b"$0", b"$1", b"$3", b"$+3", b"$03", b"*02", b"*-1", b"$-1", b"$3 ", b""]
PIECES = st.sampled_from([*HEADERS, b"GET", b"k", b"foo", b"\r", b"x\r", b"\n", b"$3\n", b"\x00"])


@given(st.lists(PIECES, min_size=1, max_size=15).map(CRLF.join))
def test_anything_else(data: bytes) -> None:
    """What is taken is the canonical encoding of what the other reader finds in it."""
    pieces = data.split(CRLF)
    one, columns = read_one(pieces), read_columns(pieces)
    if one is not None:
        assert by_all_the_rules(data) == [one] and encode(one) == data
    if columns is not None:
        commands = list(map(list, zip(*columns, strict=True)))
        assert by_all_the_rules(data) == commands and b"".join(map(encode, commands)) == data


@pytest.mark.parametrize("size", [0, 9, 10, 99, 100, 9999, 10_000])
def test_sizes(size: int) -> None:
    data = encode([b"SET", b"k", b"x" * size])
    assert (read_one(data.split(CRLF)) is not None) == (size < 10_000)
    assert (read_columns((data * 2).split(CRLF)) is not None) == (size < 10_000)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("argc", [1, 2, 3, 4])
def test_every_header_counts(count: int, argc: int) -> None:
    """One wrong byte in any header of commands whose arguments are all of one length."""
    data = encode([b"abc"] * argc) * count
    assert read_columns(data.split(CRLF)) == [[b"abc"] * count] * argc
    for place in [place for place in range(len(data)) if data[place : place + 2] in (b"*%d" % argc, b"$3")]:
        for wrong in (b"$4", b"*9", b"$2"):
            pieces = (data[:place] + wrong + data[place + 2 :]).split(CRLF)
            assert read_columns(pieces) is None and read_one(pieces) is None


BIG = b"x" * MAX_BYTES
LONG = b"x" * 2000  # read in one go, as its header is in the tables


@given(COMMANDS, st.sampled_from([BIG, LONG]), st.sampled_from([b"", b"\r", CRLF, CRLF + LONG]))
def test_one_big_command(head: list[bytes], value: bytes, rest: bytes) -> None:
    args = [*head, value + rest]
    found = read_big(encode(args))
    assert found in (None, args)
    assert found == args or any(CRLF in arg for arg in head)


@pytest.mark.parametrize("head", [[], [b"SET", b"k"], [b"HSET", b"k" * 30, b"f"], [b"SET", b"k" * 480]])
@pytest.mark.parametrize("value", [BIG, LONG])
def test_nothing_else_is_one_big_command(head: list[bytes], value: bytes) -> None:
    """One wrong byte in front of the value, a byte more or less behind it, another command behind it, the value in
    front of another argument."""
    data = encode([*head, value])
    start = data.index(value)
    assert (read_big(data) is not None) == (start < 512 or value is LONG)
    for place in range(start):
        for wrong in (b"1", b"7", b"\r", b"*"):
            other = data[:place] + wrong + data[place + 1 :]
            if other != data and (found := read_big(other)) is not None:
                assert by_all_the_rules(other) == [found] and encode(found) == other
    for other in (
        data[:-1],
        data + b"\n",
        data + CRLF,
        data * 2,
        data + encode([b"PING"]),
    ):
        assert read_big(other) is None
    args = [*head, value, b"EX"]
    assert read_big(encode(args)) == (args if value is LONG else None)


@pytest.mark.parametrize("size", [0, 1, 2, 9997, 9998, 9999, 10_000, 40_000])
def test_a_command_whose_end_has_not_come(size: int) -> None:
    """The header of the last argument says how much is to come, wherever the chunk ends."""
    data = encode([b"SET", b"k" * 600, b"x" * size])
    for missing in {1, 2, 3, *range(max(size, 1), size + 20)}:
        assert read_big(data[: len(data) - missing]) is None
