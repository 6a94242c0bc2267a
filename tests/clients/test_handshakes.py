"""What client libraries say first, as they send it: all at once. Each gets its answers in order, as from the server.

The lists are those of the libraries' sources; what counts is that each has something that some version does not know.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

import hiredis
import pytest

from tests.clients.migration import Migration
from tests.servers import Server
from tests.traffic.connection import pack

HANDSHAKES = {
    "node-redis": [
        "HELLO 3",
        "CLIENT SETINFO LIB-VER 6.3.1",
        "CLIENT SETINFO LIB-NAME node-redis",
        "CLIENT TRACKING ON",
    ],
    "go-redis": [
        "HELLO 3",
        "CLIENT SETNAME app",
        "CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type none",
        "CLIENT SETINFO LIB-NAME go-redis(,go1.23)",
        "CLIENT SETINFO LIB-VER 9.15.0",
        "SELECT 2",
    ],
    "jedis": ["HELLO 3", "CLIENT SETINFO LIB-NAME jedis", "CLIENT SETINFO LIB-VER 7.0.0", "CLIENT TRACKING ON BCAST"],
    "lettuce": ["HELLO 3 SETNAME app", "CLIENT SETINFO lib-name Lettuce", "CLIENT SETINFO lib-ver 7.0.0", "PING"],
    "phpredis": ["SELECT 1", "CLIENT SETNAME php", "PING"],
    "StackExchange.Redis": [
        "CLIENT SETNAME app(SE.Redis-v2.9)",
        "CLIENT SETINFO lib-name SE.Redis",
        "CLIENT ID",
        "CONFIG GET timeout",
        "CONFIG GET replica-read-only",
        "CONFIG GET databases",
        "SENTINEL MASTERS",
        "CLUSTER NODES",
        "GET __Booksleeve_TieBreak",
        "ECHO 0123456789abcdef",
    ],
    "redis-cli": ["HELLO 3", "COMMAND DOCS", "COMMAND COUNT", "PING"],
    "hiredis with a cache": [
        "HELLO 3",
        "CLIENT ID",
        "CLIENT TRACKING ON OPTIN",
        "CLIENT CACHING YES",
        "GET k",
        "CLIENT TRACKING OFF",
    ],
}
VERSIONS = [("redis-6.2", "valkey-9.1"), ("redis-8.2", "valkey-9.1"), ("valkey-9.1", "redis-8.2")]
LAST = "PING the-last"


class HasPort(Protocol):
    @property
    def port(self) -> int: ...


def converse(place: HasPort, commands: list[str], *, at_once: bool) -> list[Any]:
    """The replies, one to each command."""
    reader = hiredis.Reader(protocolError=AssertionError)
    replies: list[Any] = []
    with socket.create_connection(("127.0.0.1", place.port), timeout=10) as connection:
        if at_once:
            connection.sendall(pack([command.split() for command in commands]))
        for command in commands:
            if not at_once:
                connection.sendall(pack([command.split()]))
            while (reply := reader.gets()) is False:
                received = connection.recv(1 << 16)
                assert received, f"hung up at {command}"
                reader.feed(received)
            replies.append(reply)
    return replies


def shape(command: str, reply: Any) -> Any:
    """What does not depend on the server's life so far: an error's text, a number's or a long answer's kind."""
    if isinstance(reply, hiredis.ReplyError):
        if command.startswith("CLIENT MAINT_NOTIFICATIONS"):
            return "an error"  # of the proxy, also where the server knows it: there is nothing to be told of
        return str(reply)
    return type(reply).__name__ if command.startswith(("HELLO", "CLIENT ID", "COMMAND", "CLUSTER")) else reply


@pytest.mark.parametrize("versions", VERSIONS, ids="-".join)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_handshakes(
    start_server: Callable[..., Server], server_pool: Any, versions: tuple[str, str], at_once: bool
) -> None:
    bare = start_server(versions[0]).start()
    with Migration(*(server_pool.get(name) for name in versions)) as migration:
        for library, commands in HANDSHAKES.items():
            said = [*commands, LAST]
            wanted, got = (converse(place, said, at_once=at_once) for place in (bare, migration))
            for command, a, b in zip(said, wanted, got, strict=True):
                assert shape(command, a) == shape(command, b), f"{library}: {command}"
