"""One raw client connection: commands out, replies in, in any grouping. Counts and judges nothing."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import trio

Command = Sequence[Any]  # bytes, str, int or float

REPLY_TIMEOUT_S = 30.0
_NOT_YET = object()


class Broken(Exception):
    """The connection was refused or lost, or a reply did not come."""


def pack(commands: Sequence[Command]) -> bytes:
    packed: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub knows pairs only
    return b"".join(packed(tuple(command)) for command in commands)


class Connection:
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connected and logged in; speaks RESP2 on db 0. redis:// and rediss:// (?ca=FILE, else unchecked)."""
        parts = urlsplit(url)
        try:
            stream: trio.abc.Stream = await trio.open_tcp_stream(parts.hostname or "127.0.0.1", parts.port or 6379)
        except OSError as error:
            raise Broken(f"cannot connect: {error}") from error
        if parts.scheme == "rediss":
            stream = trio.SSLStream(stream, tls_context(parts.query), server_hostname=parts.hostname)
        connection = cls(stream)
        if parts.password is not None:
            user = [unquote(parts.username)] if parts.username else []
            try:
                (reply,) = await connection.exchange([["AUTH", *user, unquote(parts.password)]])
                if isinstance(reply, hiredis.ReplyError):
                    raise Broken(f"not logged in: {reply}")
            except BaseException:
                await connection.close()
                raise
        return connection

    async def exchange(self, commands: Sequence[Command], *, cut_at: int | None = None) -> list[Any]:
        """Sends all commands at once (or in two pieces, cut at a byte) and returns their replies; errors are values."""
        data = pack(commands)
        try:
            with trio.fail_after(REPLY_TIMEOUT_S):
                if cut_at is not None:
                    await self._stream.send_all(data[:cut_at])
                    await trio.lowlevel.checkpoint()
                    data = data[cut_at:]
                await self._stream.send_all(data)
                return [await self._reply() for _ in commands]
        except trio.TooSlowError:
            raise Broken(f"no reply within {REPLY_TIMEOUT_S:g} s to {_short(commands)}") from None
        except (OSError, trio.BrokenResourceError, hiredis.ProtocolError) as error:
            raise Broken(f"{error.__cause__ or error} in {_short(commands)}") from error

    async def _reply(self) -> Any:
        while (reply := self._reader.gets()) is _NOT_YET:
            received = await self._stream.receive_some(65536)
            if not received:
                raise ConnectionResetError("closed by the other side")
            self._reader.feed(bytes(received))
        return reply

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _short(commands: Sequence[Command]) -> str:
    return " | ".join(" ".join(str(word)[:40] for word in command) for command in commands[:3])


def tls_context(query: str) -> ssl.SSLContext:
    authorities = parse_qs(query).get("ca")
    if authorities:
        return ssl.create_default_context(cafile=authorities[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
