"""Owns one pipelined connection with many requests under way: replies go to their requests, in the order of sending.

A door, for copying at full speed; `Client` is the simpler one, a call at a time. The order of replies is the order in
which the server executed, so what was read first on a pipe is older. Invariant: after a loss every request under way
fails, and none is sent any more. Bounds are the sender's: he looks at what he has under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import hiredis
import trio

from resp.encode import encode

from ..dial import CONNECT_TIMEOUT_S, Wire, connect
from ..errors import ConnectionLost, ServerRefuses
from ..url import Url
from .nurseries import open_nursery

STALL_S = 60.0  # replies are due and nothing comes: a hung server, or a relay that lost its other half
_NOTHING = object()
_LOST = (OSError, trio.ClosedResourceError, hiredis.ProtocolError)


class Ticket:
    """What becomes of one request: all its replies, or a loss. One task may wait for it."""

    __slots__ = ("_done", "_problem", "_replies", "count", "selected")

    def __init__(self, count: int, selected: int | None = None) -> None:
        self.count = count
        self.selected = selected  # the db of the SELECT in front, whose reply is ours
        self._replies: list[Any] | None = None
        self._problem: ConnectionLost | None = None
        self._done: trio.Event | None = None  # made only when somebody waits

    def __repr__(self) -> str:
        return f"<Ticket for {self.count} {'waiting' if self._replies is None else 'done'} {self._problem or ''}>"

    async def wait(self) -> list[Any]:
        """The decoded replies. Errors: ConnectionLost; ServerRefuses when the db could not be selected."""
        if self._problem is None and self._replies is None:
            self._done = trio.Event()
            await self._done.wait()
        if self._problem is not None:
            raise self._problem
        assert self._replies is not None
        if self.selected is None:
            return self._replies
        if isinstance(reply := self._replies[0], hiredis.ReplyError):
            raise ServerRefuses(f"SELECT {self.selected}: {reply}", str(reply))
        return self._replies[1:]

    def finish(self, outcome: list[Any] | ConnectionLost) -> None:
        """Wake who waits."""
        if isinstance(outcome, list):
            self._replies = outcome
        else:
            self._problem = outcome
        if self._done is not None:
            self._done.set()


def _is_push(reply: Any) -> bool:
    """In RESP2 a message looks like a reply; its first word tells."""
    return isinstance(reply, hiredis.PushNotification) or (
        isinstance(reply, list) and bool(reply) and reply[0] == b"pmessage"
    )


class Pipe:
    """`async with Pipe.open(url) as pipe: ticket = pipe.send(data, count); replies = await ticket.wait()`."""

    def __init__(self, wire: Wire, url: Url, on_push: Callable[[Any], None] | None) -> None:
        self.url = url
        self.wire = wire
        self._on_push = on_push
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._came: list[Any] = []  # replies of which a request does not have all yet
        self._tickets: deque[Ticket] = deque()
        self._to_drain = trio.Event()
        self._lost: ConnectionLost | None = None
        self._db = url.db
        self._quiet = False  # nothing has come since the last look
        self._due = False  # replies were due at the last look

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: Url,
        *,
        timeout: float = CONNECT_TIMEOUT_S,
        name: str | None = None,
        resp: int = 2,
        on_push: Callable[[Any], None] | None = None,
    ) -> AsyncGenerator[Self, None]:
        """A connected pipe, closed at the end. Errors: ConnectError."""
        pipe = cls(await connect(url, timeout=timeout, name=name, resp=resp), url, on_push)
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(pipe._receive)
                nursery.start_soon(pipe._drain)
                nursery.start_soon(pipe._look_for_stalls)
                try:
                    yield pipe
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            pipe.wire.close()

    def __repr__(self) -> str:
        return f"<Pipe {self.url.address} {len(self._tickets)} under way {self._lost or ''}>"

    def send(self, data: bytes, count: int, db: int | None = None) -> Ticket:
        """Send commands that get `count` replies, in a db that is known to be there. Errors: ConnectionLost."""
        if self._lost is not None:
            raise self._lost
        if db is None or db == self._db:
            ticket = Ticket(count)
        else:
            self._db = db
            data = encode([b"SELECT", b"%d" % db]) + data
            ticket = Ticket(count + 1, db)
        self._tickets.append(ticket)
        try:
            self.wire.send_nowait(data)
        except OSError as error:
            raise self._lose(str(error)) from None
        if self.wire.pending_out:
            self._to_drain.set()
        return ticket

    async def enter(self, db: int) -> None:
        """Find out that a db is there: one that is not must never get commands that are meant for it.
        Errors: ConnectionLost, ServerRefuses."""
        reply, _ = await self.pipeline([[b"SELECT", b"%d" % db], [b"SELECT", b"%d" % self._db]])
        if isinstance(reply, hiredis.ReplyError):
            raise ServerRefuses(f"{self.url.address} has no db {db} ({reply}): choose with --db", str(reply))

    async def pipeline(self, commands: Sequence[Sequence[bytes]], db: int | None = None) -> list[Any]:
        """All replies in order. Errors: ConnectionLost."""
        return await self.send(b"".join(map(encode, commands)), len(commands), db).wait()

    async def call(self, *args: bytes) -> Any:
        """The decoded reply of one command. Errors: ConnectionLost."""
        return (await self.pipeline([args]))[0]

    async def _receive(self) -> None:
        """Waits before it reads, as a read that comes to nothing and a second schedule for each would cost as much as
        ten keys."""
        wire = self.wire
        try:
            if wire.leftover:
                self._take(await wire.receive())
            while True:
                await trio.lowlevel.wait_readable(wire.fileno())
                with suppress(BlockingIOError):  # part of a TLS record
                    if not self._take(wire.recv_nowait()):
                        self._lose("closed by the server")
                        return
        except _LOST as error:
            self._lose(str(error) or type(error).__name__)

    def _take(self, data: bytes) -> bool:
        """Whether there was anything."""
        self._quiet = False
        self._reader.feed(data)
        self._hand_out()
        return bool(data)

    async def _look_for_stalls(self) -> None:
        while True:
            self._quiet = True
            await trio.sleep(STALL_S)
            if self._quiet and self._tickets and self._due:
                self._lose(f"no reply for {STALL_S:g} s")
                return
            self._due = bool(self._tickets)

    def _hand_out(self) -> None:
        """Give what came to whom it belongs. In bulk, as taking replies one by one would be the dearest part of a copy
        (measured: 0.25 us for each, of 2.5 us a key)."""
        came = self._came
        if self._on_push is None:
            came.extend(iter(self._reader.gets, _NOTHING))
        else:
            for reply in iter(self._reader.gets, _NOTHING):
                if _is_push(reply):
                    self._on_push(reply)
                else:
                    came.append(reply)
        tickets, start = self._tickets, 0
        while tickets and len(came) - start >= tickets[0].count:
            ticket = tickets.popleft()
            ticket.finish(came[start : start + ticket.count])
            start += ticket.count
        del came[:start]
        if came and not tickets:  # nobody asked: the server says good-bye
            raise ConnectionResetError(str(came[0])[:200])

    async def _drain(self) -> None:
        while True:
            await self._to_drain.wait()
            self._to_drain = trio.Event()
            try:
                await self.wire.drain()
            except _LOST as error:
                self._lose(str(error) or type(error).__name__)
                return

    def _lose(self, why: str) -> ConnectionLost:
        if self._lost is None:
            self._lost = ConnectionLost(f"lost the connection to {self.url.address}: {why}")
            self.wire.close()
            while self._tickets:
                self._tickets.popleft().finish(self._lost)
        return self._lost
