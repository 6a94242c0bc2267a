"""Owns request and reply on one connection of our own: commands in, decoded replies out, one user at a time.

A door for control connections, scans and direct copies; the proxy's lane and mirror do not use it. A server's
-ERR is a returned `ReplyError`. Invariant: replies never shift: a call that was given up closes the connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Self

import hiredis
import trio

from resp.encode import encode

from .dial import CONNECT_TIMEOUT_S, Wire, connect
from .errors import ConnectionLost
from .url import Url

__all__ = ["Client", "ConnectionLost", "ReplyError", "command_names"]

ReplyError = hiredis.ReplyError
LOST = (OSError, trio.ClosedResourceError, hiredis.ProtocolError)


class Client:
    """`async with Client.open(url) as client: await client.call(b"GET", b"k")`."""

    def __init__(self, wire: Wire, url: Url, *, reply_timeout: float | None = None) -> None:
        self._wire = wire
        self.url = url
        self._timeout = inf if reply_timeout is None else reply_timeout
        self._lock = trio.Lock()
        self._reader = hiredis.Reader(notEnoughData=NotImplemented)
        self._lost = ""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: Url,
        *,
        timeout: float = CONNECT_TIMEOUT_S,
        name: str | None = None,
        resp: int = 2,
        reply_timeout: float | None = None,
    ) -> AsyncGenerator[Self, None]:
        """A connected client, closed at the end. `timeout` is for connecting, `reply_timeout` for each call (seconds).
        Errors: ConnectError."""
        client = cls(await connect(url, timeout=timeout, name=name, resp=resp), url, reply_timeout=reply_timeout)
        try:
            yield client
        finally:
            client.close()

    def __repr__(self) -> str:
        return f"<Client {self.url} {self._lost or 'open'}>"

    @property
    def wire(self) -> Wire:
        """What the handshake learned: `client_id`, `server`."""
        return self._wire

    def close(self) -> None:
        self._lost = self._lost or "closed"
        self._wire.close()

    async def call(self, *args: bytes) -> Any:
        """The decoded reply of one command. Errors: ConnectionLost."""
        return (await self.pipeline([args]))[0]

    async def transaction(self, commands: Sequence[Sequence[bytes]]) -> Any:
        """MULTI, the commands, EXEC in one send: EXEC's reply, a list of replies or a ReplyError."""
        return (await self.pipeline([[b"MULTI"], *commands, [b"EXEC"]]))[-1]

    async def pipeline(self, commands: Sequence[Sequence[bytes]]) -> list[Any]:
        """All replies in order; the caller bounds their number and size. Errors: ConnectionLost."""
        data = b"".join(map(encode, commands))
        async with self._lock:
            if self._lost:
                raise ConnectionLost(f"the connection to {self.url.address} is {self._lost}")
            try:
                with trio.fail_after(self._timeout):
                    return await self._exchange(data, len(commands))
            except trio.TooSlowError:
                raise self._lose(f"no reply within {self._timeout:g} s") from None
            except LOST as error:
                raise self._lose(str(error) or type(error).__name__) from None
            except BaseException:  # cancelled: replies are under way that nobody will take
                self._lose("given up in mid-call")
                raise

    async def _exchange(self, data: bytes, count: int) -> list[Any]:
        self._wire.send_nowait(data)
        if not self._wire.pending_out:
            return await self._replies(count)
        result: list[Any] = []
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain)  # at the same time, or two full buffers wait for each other
            try:
                result = await self._replies(count)
            except LOST as error:
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return result

    async def _drain(self) -> None:
        try:
            await self._wire.drain()
        except LOST:
            self._wire.close()  # wakes the reader, who reports it

    async def _replies(self, count: int) -> list[Any]:
        replies: list[Any] = []
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is NotImplemented:
                data = await self._wire.receive()
                if not data:
                    raise ConnectionResetError("closed by the server")
                self._reader.feed(data)
            elif not isinstance(reply, hiredis.PushNotification):  # nobody subscribes here; tracking is not for us
                replies.append(reply)
        return replies

    def _lose(self, why: str) -> ConnectionLost:
        self._lost = "lost"
        self._wire.close()
        return ConnectionLost(f"lost the connection to {self.url.address}: {why}")


def command_names(reply: Iterable[Any]) -> frozenset[bytes]:
    """The upper-case names that a decoded COMMAND reply lists; subcommands (told since 7.0) as b"XGROUP CREATE"."""
    names = set()
    for entry in reply:
        names.add(entry[0].upper())
        subcommands = entry[9] if len(entry) > 9 else ()
        names.update(sub[0].upper().replace(b"|", b" ") for sub in subcommands)
    return frozenset(names)
