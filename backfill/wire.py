"""Owns one connected upstream socket, plain or TLS, usable from trio and from a synchronous selector loop alike.

A door: it moves bytes and knows nothing of Redis but the id that the server gave the connection. `pending_out` is
unbounded here: whoever sends looks at it and stops, because only he knows what waiting means for him.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

import trio

READ_BYTES: Final = 128 * 1024  # one read; larger gains nothing, as replies are handed on read by read
MAX_PIECES: Final = 64  # that wait go out in one system call, uncopied (64 KB each: 3 of 8 µs were the copy)
_NO_SERVER: Final[Mapping[str, str]] = {}


class Wire:
    """A plain (TCP or unix) connection. One owner at a time; nothing here is safe for two senders."""

    __slots__ = ("_out", "_pending", "client_id", "leftover", "server", "sock", "tls")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.tls: ssl.SSLObject | None = None
        self._out: deque[bytes | memoryview] = deque()  # what the socket did not take yet, as it came: never copied
        self._pending = 0
        self.leftover = b""  # replies that came behind the handshake; look here before the first read
        self.client_id = 0  # CLIENT ID; 0 where the server does not tell
        self.server: Mapping[str, str] = _NO_SERVER  # redis_version, run_id...: what INFO server (or HELLO) said

    def __repr__(self) -> str:
        kind = "tls" if self.tls is not None else "plain"
        return f"<Wire {kind} fd={self.fileno()} client_id={self.client_id} pending_out={self.pending_out}>"

    @property
    def pending_out(self) -> int:
        """Bytes accepted by `send_nowait` that the socket has not taken."""
        return self._pending

    def fileno(self) -> int:
        return self.sock.fileno()

    def recv_nowait(self) -> bytes:
        """Bytes, or b"" at the end. Errors: BlockingIOError: nothing yet; OSError: the connection broke."""
        return self.sock.recv(READ_BYTES)

    def send_nowait(self, data: bytes) -> None:
        """Send what the socket takes, keep the rest. Errors: OSError when the connection broke."""
        if self._out:
            self._keep(data)
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._keep(memoryview(data)[sent:])

    def send_pieces_nowait(self, pieces: Sequence[bytes]) -> None:
        """As `send_nowait`, without putting them together: at most 1024 of them, which is what the system takes."""
        if self._out:
            for piece in pieces:
                self._keep(piece)
            return
        try:
            sent = self.sock.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        for piece in pieces:
            if sent < len(piece):
                self._keep(memoryview(piece)[sent:] if sent else piece)
            sent = max(0, sent - len(piece))

    def _keep(self, data: bytes | memoryview) -> None:
        self._out.append(data)
        self._pending += len(data)

    def flush_nowait(self) -> bool:
        """Send more of what is kept; True when nothing is left."""
        out = self._out
        while out:
            try:
                sent = self.sock.send(out[0]) if len(out) == 1 else self.sock.sendmsg(islice(out, MAX_PIECES))
            except BlockingIOError:
                return False
            self._pending -= sent
            while out and sent >= len(out[0]):
                sent -= len(out.popleft())
            if sent:
                out[0] = memoryview(out[0])[sent:]
        return True

    async def receive(self) -> bytes:
        """The next bytes, b"" at the end. Errors: OSError."""
        await trio.lowlevel.checkpoint()
        if self.leftover:
            data, self.leftover = self.leftover, b""
            return data
        while True:
            try:
                return self.recv_nowait()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock.fileno())

    async def send(self, data: bytes) -> None:
        """Send all of it. Errors: OSError. Cancelled, it leaves the rest in `pending_out`."""
        await trio.lowlevel.checkpoint()
        self.send_nowait(data)
        await self.drain()

    async def drain(self) -> None:
        """Wait until nothing is pending."""
        while not self.flush_nowait():
            await trio.lowlevel.wait_writable(self.sock.fileno())

    def close(self) -> None:
        """Close at once; what is pending is dropped. Waiters in trio get trio.ClosedResourceError."""
        if self.sock.fileno() >= 0:
            with suppress(RuntimeError):  # not inside trio: then nobody waits there either
                trio.lowlevel.notify_closing(self.sock.fileno())
            self.sock.close()


class TlsWire(Wire):
    """The same over TLS. The SSL object works on memory, so a read always hands out everything that is decrypted:
    nothing can be stuck where no selector sees it."""

    __slots__ = ("_ended", "_incoming", "_outgoing", "_ssl")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.tls = self._ssl
        self._ended = False

    async def handshake(self) -> None:
        """Run the TLS handshake. Errors: ssl.SSLError, OSError; ConnectionResetError when the server hangs up."""
        while True:
            try:
                self._ssl.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush_records()
                await self.drain()
                data = await self._receive_record()
                if not data:
                    raise ConnectionResetError("closed during the TLS handshake") from None
                self._incoming.write(data)
        self._flush_records()
        await self.drain()

    async def _receive_record(self) -> bytes:
        while True:
            try:
                return super().recv_nowait()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock.fileno())

    def recv_nowait(self) -> bytes:
        if not self._ended:
            data = self.sock.recv(READ_BYTES)
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
        decrypted = self._decrypt()
        if not decrypted and not self._ended:
            raise BlockingIOError
        return decrypted

    def _decrypt(self) -> bytes:
        parts = []
        try:
            while part := self._ssl.read(READ_BYTES):
                parts.append(part)
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True
        if self._outgoing.pending and not self._ended:  # an answer to a key update
            with suppress(OSError):  # a broken connection must not cost what was read; the next call reports it
                self._flush_records()
        return b"".join(parts)

    def send_nowait(self, data: bytes) -> None:
        if data:
            self._ssl.write(data)
            self._flush_records()

    def send_pieces_nowait(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._ssl.write(piece)
        self._flush_records()

    def _flush_records(self) -> None:
        super().send_nowait(self._outgoing.read())
