from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp.commands import MAX_ARGS, MAX_BULK_BYTES, MAX_LINE_BYTES, CommandParser
from resp.encode import encode
from tests.resp.chunking import cut, cut_places, cuttings

PING = b"*1\r\n$4\r\nPING\r\n"

# name -> bytes, the commands in them
GOOD: dict[str, tuple[bytes, list[list[bytes]]]] = {
    "nothing": (b"", []),
    "one": (PING, [[b"PING"]]),
    "several": (PING * 3, [[b"PING"]] * 3),
    "arguments": (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n", [[b"SET", b"k", b"vv"]]),
    "empty argument": (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", [[b"GET", b""]]),
    "empty name": (b"*1\r\n$0\r\n\r\n" + PING, [[b""], [b"PING"]]),
    "binary": (b"*2\r\n$4\r\n\r\n*1\r\n$4\r\n$4\r\n\r\n", [[b"\r\n*1", b"$4\r\n"]]),
    "NUL in an argument": (b"*2\r\n$4\r\nECHO\r\n$3\r\n\0\r\0\r\n", [[b"ECHO", b"\0\r\0"]]),
    "long name": (encode([b"GEORADIUSBYMEMBER_RO", b"k"]), [[b"GEORADIUSBYMEMBER_RO", b"k"]]),
    "ten arguments": (encode([b"EXISTS"] + [b"k"] * 9), [[b"EXISTS"] + [b"k"] * 9]),
    "many arguments": (encode([b"EXISTS"] + [b"k"] * 1000) + PING, [[b"EXISTS"] + [b"k"] * 1000, [b"PING"]]),
    "sizes around the tables' ends": (
        encode([b"MSET"] + [b"x" * size for size in (9, 10, 99, 100, 999, 1000)]),
        [[b"MSET"] + [b"x" * size for size in (9, 10, 99, 100, 999, 1000)]],
    ),
    "no arguments": (b"*0\r\n" + PING, [[b"PING"]]),
    "null array": (b"*-1\r\n" + PING, [[b"PING"]]),
    "negative count": (b"*-9223372036854775808\r\n" + PING, [[b"PING"]]),
    "anything where LF belongs": (b"*1\rx$4\rxPING" + b"xx" + PING, [[b"PING"], [b"PING"]]),
    "inline": (b"SET k v\r\n", [[b"SET", b"k", b"v"]]),
    "inline, bare LF": (b"PING\nPING\r\n", [[b"PING"], [b"PING"]]),
    "inline, blanks": (b"  SET\tk \v v  \r\n", [[b"SET", b"k", b"v"]]),
    "inline, CR inside": (b"ECHO a\rb\r\n", [[b"ECHO", b"a", b"b"]]),
    "blank lines": (b"\r\n\n   \r\n" + PING, [[b"PING"]]),
    "inline and multibulk": (
        b"PING\r\n" + PING + b"ECHO '*1'\n" + PING,
        [[b"PING"], [b"PING"], [b"ECHO", b"*1"], [b"PING"]],
    ),
    "a reply's type as a word": (b"+PING\r\n:5\r\n$4\r\n", [[b"+PING"], [b":5"], [b"$4"]]),
    "largest inline": (b"y" * MAX_LINE_BYTES + b"\n", [[b"y" * MAX_LINE_BYTES]]),
}

# name -> bytes, the error's text behind "Protocol error: "
BAD: dict[str, tuple[bytes, str]] = {
    "no count": (b"*\r\n", "invalid multibulk length"),
    "word as count": (b"*a\r\n", "invalid multibulk length"),
    "plus sign": (b"*+1\r\n", "invalid multibulk length"),
    "leading zero": (b"*01\r\n", "invalid multibulk length"),
    "minus zero": (b"*-0\r\n", "invalid multibulk length"),
    "blank": (b"* 1\r\n", "invalid multibulk length"),
    "underscore": (b"*1_0\r\n", "invalid multibulk length"),
    "NUL in count": (b"*1\0\r\n", "invalid multibulk length"),
    "too many arguments": (b"*%d\r\n" % (MAX_ARGS + 1), "invalid multibulk length"),
    "too many for 64 bits": (b"*9223372036854775808\r\n", "invalid multibulk length"),
    "too few for 64 bits": (b"*-9223372036854775809\r\n", "invalid multibulk length"),
    "simple string": (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
    "simple string behind a bulk": (b"*2\r\n$4\r\nECHO\r\n+a\r\n", "expected '$', got '+'"),
    "integer": (b"*2\r\n:5\r\n", "expected '$', got ':'"),
    "nested": (b"*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
    "line break": (b"*1\r\n\r\n", "expected '$', got ' '"),
    "not ASCII": (b"*1\r\n\xff\r\n", "expected '$', got '\xff'"),
    "null argument": (b"*1\r\n$-1\r\n", "invalid bulk length"),
    "no length": (b"*1\r\n$\r\n", "invalid bulk length"),
    "leading zero in length": (b"*1\r\n$04\r\n", "invalid bulk length"),
    "huge argument": (b"*1\r\n$%d\r\n" % (MAX_BULK_BYTES + 1), "invalid bulk length"),
    "too long for 64 bits": (b"*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
    "open quote": (b'PING "a\r\n', "unbalanced quotes in request"),
    "word behind a quote": (b'PING "a"b\r\n', "unbalanced quotes in request"),
    "endless inline": (b"x" * (MAX_LINE_BYTES + 1), "too big inline request"),
    "endless inline with a NUL": (b"x\0\r\n" + b"x" * MAX_LINE_BYTES, "too big inline request"),
    "endless count": (b"*" + b"1" * MAX_LINE_BYTES, "too big mbulk count string"),
    "endless length": (b"*1\r\n$" + b"1" * MAX_LINE_BYTES, "too big bulk count string"),
}

INCOMPLETE: dict[str, bytes] = {
    "star": b"*",
    "count": b"*1",
    "CR of the count": b"*1\r",
    "count and nothing else": b"*1\r\n",
    "largest count": b"*%d\r\n" % MAX_ARGS,
    "dollar": b"*1\r\n$",
    "wrong type, line not complete": b"*2\r\n+PING\r",
    "largest length": b"*1\r\n$%d\r\n" % MAX_BULK_BYTES,
    "argument": b"*1\r\n$4\r\nPIN",
    "line break of the argument": b"*1\r\n$4\r\nPING\r",
    "next argument": b"*2\r\n$4\r\nPING\r\n",
    "inline": b"PING\r",
    "inline with a NUL": b"PI\0NG\r\n",
    "header of 64 KB": b"*" + b"1" * (MAX_LINE_BYTES - 1),
}


def feed(chunks: list[bytes], **options: bool) -> tuple[list[list[bytes]], CommandParser]:
    parser = CommandParser(**options)
    return [command for chunk in chunks for command in parser.feed(chunk)], parser


@pytest.mark.parametrize("name", GOOD)
def test_commands_in_any_two_chunks(name: str) -> None:
    data, expected = GOOD[name]
    for chunks in cuttings(data):
        commands, parser = feed(chunks)
        assert (commands, parser.error, parser.buffered) == (expected, None, 0)
        assert all(type(arg) is bytes for command in commands for arg in command)


@pytest.mark.parametrize("name", GOOD)
def test_bytes_behind_a_command_are_the_next_one(name: str) -> None:
    data, expected = GOOD[name]
    commands, parser = feed([data + PING + b"*1\r\n$4\r\nPI"])
    assert (commands, parser.error) == ([*expected, [b"PING"]], None)
    assert parser.buffered == len(b"*1\r\n$4\r\nPI")
    assert parser.feed(b"NG\r\nPING\n") == [[b"PING"], [b"PING"]]


@pytest.mark.parametrize("size", [3, 600, 70_000])
def test_the_rest_of_a_command_with_a_pipeline_behind_it(size: int) -> None:
    """Shallow, deep, and of big arguments, whose end comes in the next chunk."""
    first = [b"SET", b"k", b"x" * size]
    behind = [[b"GET", b"%d" % number] for number in range(100)]
    for commands in ([first, *behind[:2]], [first, *behind], [first, first, first]):
        data = b"".join(map(encode, commands))
        for place in (30, len(encode(first)) - 3):
            assert feed([data[:place], data[place:-1], data[-1:]])[0] == commands


@pytest.mark.parametrize("name", BAD)
def test_errors_in_any_two_chunks(name: str) -> None:
    data, text = BAD[name]
    for chunks in cuttings(PING + data) if len(data) < 1000 else cuttings_of_long(PING + data):
        commands, parser = feed(chunks)
        assert commands == [[b"PING"]]
        assert parser.error is not None
        assert parser.error.text == f"Protocol error: {text}"
        assert parser.feed(PING) == []
        assert parser.buffered == 0


def cuttings_of_long(data: bytes) -> list[list[bytes]]:
    return [[data], [data[:1000], data[1000:]], [data[index : index + 1000] for index in range(0, len(data), 1000)]]


@pytest.mark.parametrize("name", BAD)
def test_nothing_behind_an_error_is_read(name: str) -> None:
    data, text = BAD[name]
    commands, parser = feed([data + b"\r\n" + PING])
    assert commands == []
    assert parser.error is not None
    assert parser.error.text == f"Protocol error: {text}"


@pytest.mark.parametrize("name", INCOMPLETE)
def test_what_is_incomplete_waits(name: str) -> None:
    data = INCOMPLETE[name]
    for chunks in cuttings(data) if len(data) < 1000 else cuttings_of_long(data):
        commands, parser = feed(chunks)
        assert (commands, parser.error, parser.buffered) == ([], None, len(data))


def test_error_reply() -> None:
    _, parser = feed([b"*1\r\n\xff\r\n"])
    assert parser.error is not None
    assert parser.error.reply == b"-ERR Protocol error: expected '$', got '\xff'\r\n"
    assert "expected '$'" in repr(parser)


# Anything at all, most of it nearly right.
PIECES = [
    b"*",
    b"$",
    b"\r",
    b"\n",
    b"\r\n",
    b"1",
    b"3",
    b"12",
    b"-1",
    b"0",
    b"*1\r\n",
    b"*2\r\n",
    b"*0\r\n",
    b"$0\r\n\r\n",
]
PIECES += [
    b"$4\r\nPING\r\n",
    b"$3\r\nSET\r\n",
    b"PING",
    b" ",
    b'"',
    b"'",
    b"\\",
    b"\0",
    b":5\r\n",
    b"+a\r\n",
    PING,
    b"PING\r\n",
]
PIECES += [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$", b"100\r\n" + b"x" * 100 + b"\r\n", b"*10\r\n", b"$101\r\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), cut_places(), st.booleans())
def test_any_chunking_of_any_bytes_gives_the_same(data: bytes, places: list[int], authenticated: bool) -> None:
    expected, whole = feed([data], authenticated=authenticated)
    for chunks in (cut(data, places), [data[index : index + 1] for index in range(len(data))]):
        commands, parser = feed(chunks, authenticated=authenticated)
        assert commands == expected
        assert str(parser.error) == str(whole.error)
        assert parser.buffered == whole.buffered


@given(st.lists(st.lists(st.binary(max_size=120), min_size=1, max_size=12), max_size=12), cut_places())
def test_whatever_was_encoded_comes_back(commands: list[list[bytes]], places: list[int]) -> None:
    found, parser = feed(cut(b"".join(map(encode, commands)), places))
    assert (found, parser.error, parser.buffered) == (commands, None, 0)


class TestUnauthenticated:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"*11\r\n", "unauthenticated multibulk length"),
            (b"*%d\r\n" % (MAX_ARGS + 1), "invalid multibulk length"),
            (b"*1\r\n$16385\r\n", "unauthenticated bulk length"),
            (b"*1\r\n$%d\r\n" % (MAX_BULK_BYTES + 1), "invalid bulk length"),
        ],
    )
    def test_limits(self, data: bytes, text: str) -> None:
        for chunks in cuttings(data):
            commands, parser = feed(chunks, authenticated=False)
            assert commands == []
            assert parser.error is not None
            assert parser.error.text == f"Protocol error: {text}"

    @pytest.mark.parametrize("data", [b"*10\r\n", b"*1\r\n$16384\r\n", b"x" * 20000])
    def test_at_the_limits(self, data: bytes) -> None:
        assert feed([data], authenticated=False)[1].error is None

    def test_no_limit_on_inline_arguments(self) -> None:
        assert feed([b"PING" + b" a" * 20 + b"\r\n"], authenticated=False)[0] == [[b"PING"] + [b"a"] * 20]

    @pytest.mark.parametrize(
        "auth", [encode([b"AUTH", b"pw"]), b"auth pw\r\n", encode([b"HELLO", b"3", b"AUTH", b"u", b"pw"])]
    )
    def test_limits_behind_auth_depend_on_its_outcome(self, auth: bytes) -> None:
        big = encode([b"DEL"] + [b"k"] * 20)
        accepted, refused = CommandParser(authenticated=False), CommandParser(authenticated=False)
        for parser in (accepted, refused):
            assert len(parser.feed(PING + auth + big)) == 2
            assert parser.error is None
            assert parser.buffered == len(big)
        accepted.authenticated = True
        assert accepted.feed(b"") == [[b"DEL"] + [b"k"] * 20]
        assert refused.feed(b"") == []
        assert refused.error is not None

    def test_the_command_begun_before_authentication_goes_on(self) -> None:
        parser = CommandParser(authenticated=False)
        assert parser.feed(encode([b"AUTH", b"pw"]) + b"*2\r\n$4\r\nEC") == [[b"AUTH", b"pw"]]
        parser.authenticated = True
        assert parser.feed(b"") == []
        assert parser.feed(b"HO\r\n$1\r\na\r\n" + PING) == [[b"ECHO", b"a"], [b"PING"]]


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"*1001\r\n", "invalid multibulk length"), (b"*1\r\n$1048577\r\n", "invalid bulk length")],
)
def test_limits_of_the_server(data: bytes, text: str) -> None:
    parser = CommandParser(max_args=1000, max_bulk=1024 * 1024)
    most = encode([b"DEL"] + [b"k"] * 999)
    assert len(parser.feed(most + data)) == 1
    assert str(parser.error) == f"Protocol error: {text}"


def test_time_grows_with_the_bytes_only() -> None:
    """A big argument, many arguments and a deep pipeline in small pieces: quadratic work would take minutes."""
    big = encode([b"SET", b"k", b"x" * 10_000_000])
    many = encode([b"DEL"] + [b"key"] * 100_000)
    deep = encode([b"SET", b"k", b"v"]) * 50_000
    began = time.process_time()
    for data, piece, commands in ((big, 16384, 1), (many, 1000, 1), (deep, 1000, 50_000)):
        parser = CommandParser()
        found = sum(len(parser.feed(data[index : index + piece])) for index in range(0, len(data), piece))
        assert (found, parser.buffered) == (commands, 0)
    assert time.process_time() - began < 5


def test_what_is_held_can_be_read_by_another_parser() -> None:
    """A connection that is handed over in the middle of a command, wherever the network has cut it."""
    stream = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\nPING now\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n"
    whole = CommandParser().feed(stream)
    for place in range(len(stream) + 1):
        for step in (1, 7, len(stream)):
            first, second = CommandParser(), CommandParser()
            before = [
                command for at in range(0, place, step) for command in first.feed(stream[at : min(at + step, place)])
            ]
            assert before + second.feed(first.unread() + stream[place:]) == whole, (place, step)
