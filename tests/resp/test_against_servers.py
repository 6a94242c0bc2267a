"""Our framing of commands against real servers: the same bytes, sent raw or parsed by us, get the same replies."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resp.commands import CommandParser
from resp.encode import encode
from tests.resp.test_commands import BAD, GOOD
from tests.servers import NAMES, Pool, Server, make_server

VALKEYS = frozenset({"valkey-8.1", "valkey-9.1"})
PASSWORD = "secret"

# Where servers differ from what we chose (resp/commands.py says why): case -> those that do.
DIFFERENT: dict[str, frozenset[str]] = {
    "anything where LF belongs": VALKEYS,
    "NUL in count": frozenset(NAMES) - VALKEYS,
    "too many arguments": frozenset(NAMES) - {"redis-6.2"},
    "word behind a quote": frozenset({"valkey-9.1"}),
    "blank lines": frozenset({"valkey-8.1"}),  # it reads what follows a line of blanks as inline, a bug of its own
}


@pytest.fixture(scope="module", params=NAMES)
def server(request: pytest.FixtureRequest, server_pool: Pool) -> Server:
    return server_pool.get(request.param)


@pytest.fixture(scope="module", params=NAMES)
def guarded_port(request: pytest.FixtureRequest):
    with make_server(request.param, password=PASSWORD) as server:
        yield server.port


def replies(port: int, data: bytes) -> bytes:
    """All that a server answers to these bytes and the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except (BrokenPipeError, ConnectionResetError):  # refused before all of it was read
            pass
        return answer


def replies_by_our_reading(port: int, data: bytes, *, authenticated: bool = True) -> bytes:
    """The server's replies to the commands that we read, and our own to the error that we find."""
    parser = CommandParser(authenticated=authenticated)
    commands = parser.feed(data)
    while parser.buffered and not parser.error and (more := parser.feed(b"")):
        commands += more
    answer = replies(port, b"".join(map(encode, commands)))
    return answer + (parser.error.reply if parser.error else b"")


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_every_case(server: Server, name: str) -> None:
    data = GOOD[name][0] if name in GOOD else BAD[name][0]
    same = replies(server.port, data) == replies_by_our_reading(server.port, data)
    assert same == (server.name not in DIFFERENT.get(name, ()))


WORDS = [
    b"PING",
    b"ECHO a",
    b'ECHO "\\x41\\n\\q b"',
    b"ECHO 'a\\'b\\n'",
    b'ECHO a"b c"',
    b'ECHO "',
    b"ECHO 'a' b",
    b"a\x0bb \x0c c",
]
PIECES = [
    b"*",
    b"$",
    b"\r\n",
    b"1",
    b"3",
    b"-1",
    b"\n",
    b"*1\r\n",
    b"*2\r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"$0\r\n\r\n",
    b":5\r\n",
]
PIECES += [
    b"$4\r\nPING\r\n",
    b"$4\r\nECHO\r\n",
    b"$2\r\nxy\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"+a\r\n",
    *(word + b"\r\n" for word in WORDS),
]


@pytest.fixture(scope="module")
def port_70(server_pool: Pool) -> int:
    """Of Redis 7.0, which is not cleaned between examples."""
    return server_pool.get("redis-7.0").port


@settings(max_examples=100)
@given(data=st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join))
def test_anything(port_70: int, data: bytes) -> None:
    assert replies(port_70, data) == replies_by_our_reading(port_70, data)


AUTH = encode([b"AUTH", PASSWORD.encode()])


@pytest.mark.parametrize(
    "data",
    [
        b"*11\r\n",
        b"*10\r\n",
        b"*1\r\n$16385\r\n",
        b"*1\r\n$16384\r\n",
        b"*1048577000000\r\n",
        b"*1\r\n$536870913\r\n",
        encode([b"AUTH", b"wrong"]) + b"*11\r\n",
        encode([b"PING"]) + b"*2\r\n$5\r\n",
    ],
)
def test_limits_before_authentication(guarded_port: int, data: bytes) -> None:
    assert replies(guarded_port, data) == replies_by_our_reading(guarded_port, data, authenticated=False)


def test_limits_are_lifted_in_the_middle_of_a_chunk(guarded_port: int) -> None:
    data = encode([b"ECHO", b"x" * 20000])
    parser = CommandParser(authenticated=False)
    assert parser.feed(AUTH + data) == [[b"AUTH", PASSWORD.encode()]]
    parser.authenticated = True
    assert parser.feed(b"") == [[b"ECHO", b"x" * 20000]]
    assert replies(guarded_port, AUTH + data) == b"+OK\r\n$20000\r\n" + b"x" * 20000 + b"\r\n"
