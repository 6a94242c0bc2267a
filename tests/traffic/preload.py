"""Fills a server fast with keys of every type, over plain sockets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from random import Random
from typing import Protocol
from urllib.parse import unquote, urlsplit

import hiredis

from tests.traffic.connection import Command, pack, tls_context

BATCH = 2000  # commands before their replies are read: bounds what the server has to keep for us
OTHER_DB_SHARE = 0.1
TTL_SHARE = 0.2
SHORT_TTL_SHARE = 0.01


class HasUrl(Protocol):
    @property
    def url(self) -> str: ...


def preload(
    server: HasUrl | str,
    n: int,
    seed: int = 1,
    *,
    dbs: tuple[int, int] = (0, 1),
    short_ttls: bool = True,
    prefix: bytes = b"pre:",
) -> int:
    """Writes n new keys (a tenth in the second db) and returns the number of commands. Any error reply raises.

    Of 100 keys about 55 are strings, 8 lists, 8 sets, 9 sorted sets, 12 hashes, 5 streams (most with a group, consumers
    and pending entries). 3 have binary names; 20 have a TTL of minutes to hours and, with `short_ttls`, one of 1 to
    20 s, so that it expires during a migration. A seed gives the same keys and values each time, but for expiry.
    """
    rng = Random(seed)
    with _Pipe(server if isinstance(server, str) else server.url) as pipe:
        first = n - int(n * OTHER_DB_SHARE)
        for db, numbers in ((dbs[0], range(first)), (dbs[1], range(first, n))):
            pipe.send(["SELECT", db])
            for number in numbers:
                for command in _key(rng, prefix + b"%d" % number, short_ttls):
                    pipe.send(command)
        pipe.settle()
        return pipe.sent


def _key(rng: Random, name: bytes, short_ttls: bool) -> Iterator[Command]:
    kind = rng.choices(_KINDS, _WEIGHTS)[0]
    if rng.random() < 0.03:
        name += b"\x00\xff\r\n" + rng.randbytes(3)
    yield from kind(rng, name)
    dice = rng.random()
    if dice < TTL_SHARE:
        yield "PEXPIRE", name, rng.randrange(600_000, 36_000_000)
    elif short_ttls and dice < TTL_SHARE + SHORT_TTL_SHARE:
        yield "PEXPIRE", name, rng.randrange(1000, 20_000)


def _string(rng: Random, name: bytes) -> Iterator[Command]:
    dice = rng.random()
    if dice < 0.3:
        value = b"%d" % rng.randrange(10**9)
    elif dice < 0.97:
        value = b"value %d " % rng.randrange(10**6) * rng.randrange(1, 6)
    else:
        value = rng.randbytes(rng.randrange(1, 4000))
    yield "SET", name, value


def _list(rng: Random, name: bytes) -> Iterator[Command]:
    yield "RPUSH", name, *(b"item %d" % rng.randrange(1000) for _ in range(_size(rng)))


def _set(rng: Random, name: bytes) -> Iterator[Command]:
    form = b"%d" if rng.random() < 0.5 else b"member %d"  # intset or not
    yield "SADD", name, *(form % rng.randrange(100_000) for _ in range(_size(rng)))


def _zset(rng: Random, name: bytes) -> Iterator[Command]:
    words: list[bytes] = []
    for _ in range(_size(rng)):
        score = repr(rng.uniform(-1e6, 1e6)) if rng.random() < 0.95 else rng.choice(["inf", "-inf", "1e300", "5e-324"])
        words += [score.encode(), b"member %d" % rng.randrange(100_000)]
    yield "ZADD", name, *words


def _hash(rng: Random, name: bytes) -> Iterator[Command]:
    words: list[bytes] = []
    for _ in range(_size(rng)):
        words += [b"field %d" % rng.randrange(1000), b"value %d" % rng.randrange(10**6)]
    yield "HSET", name, *words


def _stream(rng: Random, name: bytes) -> Iterator[Command]:
    count = rng.randrange(1, 6)
    for i in range(count):
        yield "XADD", name, f"{1000 + i}-{rng.randrange(9)}", "field", b"%d" % rng.randrange(10**6), "n", i
    if rng.random() < 0.8:
        yield "XGROUP", "CREATE", name, "group", "0"
        yield "XREADGROUP", "GROUP", "group", "alice", "COUNT", rng.randrange(1, 4), "STREAMS", name, ">"
        yield "XREADGROUP", "GROUP", "group", "bob", "COUNT", "1", "STREAMS", name, ">"


def _size(rng: Random) -> int:
    return rng.randrange(1, 8) if rng.random() < 0.995 else rng.randrange(100, 1200)  # a few outgrow compact encodings


_KINDS = (_string, _list, _set, _zset, _hash, _stream)
_WEIGHTS = (55, 8, 8, 9, 12, 5)


class _Pipe:
    """A blocking connection that sends batches and looks at every reply."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=60)
        if parts.scheme == "rediss":
            context: ssl.SSLContext = tls_context(parts.query)
            self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)
        self._reader = hiredis.Reader()
        self._waiting: list[Command] = []
        self.sent = 0
        if parts.password is not None:
            self.send(["AUTH", *([unquote(parts.username)] if parts.username else []), unquote(parts.password)])
            self.settle()

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, command: Command) -> None:
        self._waiting.append(command)
        if len(self._waiting) >= BATCH:
            self.settle()

    def settle(self) -> None:
        self._socket.sendall(pack(self._waiting))
        for command in self._waiting:
            while (reply := self._reader.gets()) is False:
                received = self._socket.recv(1 << 18)
                if not received:
                    raise ConnectionResetError("preload: closed by the other side")
                self._reader.feed(received)
            if isinstance(reply, hiredis.ReplyError):
                raise RuntimeError(f"preload: {[str(word)[:60] for word in command]} -> {reply}")
        self.sent += len(self._waiting)
        self._waiting = []
