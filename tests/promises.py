"""Clients that write down what they were told: what is acknowledged must be there, once, and in order.

Each client has a counter (INCR), an append-only list (RPUSH of numbered tokens) and keys that are written once (SET) of
its own, and never repeats a command whose reply it did not get: then the write may be there or not, but not twice. What
is written once is what a mirror loses for good: a hot key's next write shows the damage, and mends it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import hiredis

from tests.proxies import until
from tests.traffic.connection import pack

TIMEOUT_S = 40.0
RECONNECT_S = 0.02
PAUSE_S = 0.002  # between two writes of one client: the servers share the machine with everything else


class HasUrl(Protocol):
    @property
    def url(self) -> str: ...


class HasCall(Protocol):
    def call(self, *args: Any, db: int = 0) -> Any: ...


class Promises:
    """`with Promises(proxy) as promises: ...; promises.check(server)`, where `server` is asked directly."""

    def __init__(self, to: HasUrl, *, clients: int = 4, db: int = 0, prefix: str = "promise") -> None:
        self._url = urlsplit(to.url)
        self._db = db
        self._writers = [Writer(self, f"{prefix}:{number}") for number in range(clients)]
        self.stopping = False
        self.errors: Counter[str] = Counter()  # error replies
        self.disconnects = 0

    def __repr__(self) -> str:
        return f"<Promises {self.kept} acknowledged, {self.disconnects} disconnects, errors {dict(self.errors)}>"

    @property
    def kept(self) -> int:
        """Writes acknowledged so far."""
        return sum(writer.counted + len(writer.pushed) + len(writer.once) for writer in self._writers)

    def wait_for(self, writes: int) -> None:
        """Until that many more have been acknowledged."""
        wanted = self.kept + writes
        until(lambda: self.kept >= wanted, f"{writes} more acknowledged writes: {self!r}", TIMEOUT_S)

    def __enter__(self) -> Self:
        for writer in self._writers:
            writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stopping = True
        for writer in self._writers:
            writer.join(2 * TIMEOUT_S)
            assert error is not None or not writer.is_alive(), f"a writer hangs: {self!r}"

    def connect(self) -> socket.socket:
        sock = socket.create_connection((self._url.hostname or "127.0.0.1", self._url.port or 6379), TIMEOUT_S)
        sock.settimeout(TIMEOUT_S)
        if self._db:
            sock.sendall(pack([["SELECT", self._db]]))
            assert sock.recv(100) == b"+OK\r\n"
        return sock

    def check(self, server: HasCall) -> None:
        """AssertionError if an acknowledged write is missing, or any is there twice, or out of order."""
        for writer in self._writers:
            writer.check(
                int(server.call("GET", writer.counter, db=self._db) or 0),
                server.call("LRANGE", writer.list, 0, -1, db=self._db),
                server.call("MGET", *writer.once, db=self._db) if writer.once else [],
            )


class Writer(threading.Thread):
    def __init__(self, promises: Promises, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._promises = promises
        self.counter, self.list = f"{name}:counter", f"{name}:list"
        self.counted = 0  # acknowledged INCRs
        self.highest = 0  # what the last one returned
        self.unsure = 0  # INCRs without a reply
        self.pushed: list[bytes] = []  # acknowledged, in order
        self.unsure_pushed: set[bytes] = set()
        self.once: dict[str, bytes] = {}  # acknowledged
        self._serial = 0
        self._findings: list[str] = []

    def run(self) -> None:
        while not self._promises.stopping:
            try:
                with self._promises.connect() as sock:
                    self._write(sock, hiredis.Reader())
            except OSError:
                self._promises.disconnects += 1
                time.sleep(RECONNECT_S)

    def _write(self, sock: socket.socket, reader: hiredis.Reader) -> None:
        while not self._promises.stopping:
            self.unsure += 1
            reply = self._call(sock, reader, "INCR", self.counter)
            self.unsure -= 1
            if isinstance(reply, int):
                if reply <= self.highest:
                    self._findings.append(f"INCR returned {reply} after {self.highest}")
                self.highest = reply
                self.counted += 1
            self._serial += 1
            token = b"%d" % self._serial
            self.unsure_pushed.add(token)
            reply = self._call(sock, reader, "RPUSH", self.list, token)
            self.unsure_pushed.discard(token)
            if isinstance(reply, int):
                self.pushed.append(token)
            key = f"{self.name}:once:{self._serial}"
            if self._call(sock, reader, "SET", key, token) == b"OK":
                self.once[key] = token
            time.sleep(PAUSE_S)

    def _call(self, sock: socket.socket, reader: hiredis.Reader, *command: Any) -> Any:
        sock.sendall(pack([command]))
        while (reply := reader.gets()) is False:
            data = sock.recv(65536)
            if not data:
                raise ConnectionResetError("closed by the other side")
            reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            self._promises.errors[str(reply)] += 1
        return reply

    def check(self, counter: int, stored: list[bytes], once: list[bytes | None]) -> None:
        findings = list(self._findings)
        if not self.counted <= counter <= self.counted + self.unsure:
            findings.append(f"{self.counted} INCRs were answered, {self.unsure} not, the counter is {counter}")
        twice = [token for token, times in Counter(stored).items() if times > 1]
        findings += [f"pushed twice: {token!r}" for token in twice]
        there = set(stored)
        findings += [f"acknowledged and lost: {token!r}" for token in self.pushed if token not in there]
        known = {*self.pushed, *self.unsure_pushed}
        findings += [f"refused, and there all the same: {token!r}" for token in stored if token not in known]
        if stored != sorted(stored, key=int):
            findings.append(f"out of order: {stored[-20:]}")
        found = zip(self.once.items(), once, strict=True)
        findings += [f"{key} is {value!r} instead of {token!r}" for (key, token), value in found if value != token]
        assert not findings, f"{self.name}: " + "; ".join(findings[:10])
