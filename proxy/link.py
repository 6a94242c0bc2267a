"""One upstream connection on the fast floor: bytes in, frames out to its owner; what its server-side context is.

Owns the connection's context (db, RESP version) as of the last byte sent, because commands of every session share it.
Decides nothing: the owner (lane, mirror queue or a pinned connection) says what is sent and what a frame means.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from backfill.dial import Wire
from backfill.wire import READ_BYTES
from proxy.floor import READ, WRITE, Floor
from resp.errors import ProtocolError
from resp.frames import FrameScanner

FULL_BYTES = 16 * 1024 * 1024  # not taken by the server yet
BIG_PIECES_BYTES = 4 * 1024  # on average: from here on a copy costs more than the system's way through a list
MAX_PIECES = 1024  # in one system call

log = logging.getLogger("crossfade")


class Owner(Protocol):
    """Who gets the frames of a link."""

    def on_frames(self, frames: list[Any]) -> None: ...

    def on_lost(self, link: Link, reason: str) -> None: ...

    def on_full(self, full: bool) -> None:
        """More than FULL_BYTES wait to be sent; or, with False, all has been sent since."""
        ...


class Scanner(Protocol):
    """What makes frames of bytes."""

    def feed(self, data: bytes) -> list[Any]:
        """Every frame that is complete now. Errors: ProtocolError."""
        ...


class Link:
    """A live upstream connection. `scanner`: another one gives its owner other frames than bytes."""

    __slots__ = (
        "_floor",
        "_full",
        "_scanner",
        "_unread",
        "_watching_writes",
        "db",
        "dbs",
        "late",
        "owner",
        "resp",
        "wire",
    )

    def __init__(
        self, wire: Wire, floor: Floor, owner: Owner, *, db: int = 0, resp: int = 2, scanner: Scanner | None = None
    ) -> None:
        self.wire = wire
        self.owner = owner
        self.db = db
        self.resp = resp
        self.dbs: set[int] = {db}  # dbs that a SELECT on this server is known to accept
        self._floor = floor
        self._scanner = FrameScanner() if scanner is None else scanner
        self.late = False  # nobody waits for what comes: it may be read when the floor rests
        self._watching_writes = False
        self._full = False
        self._unread = False  # something is there that was put off
        floor.add(self)

    def __repr__(self) -> str:
        return f"<Link id={self.wire.client_id} db={self.db} resp={self.resp} pending_out={self.wire.pending_out}>"

    @property
    def drains(self) -> bool:
        """See `Handler`. What is decrypted tells nothing of what is left to read."""
        return self.wire.tls is None

    def fileno(self) -> int:
        return self.wire.fileno()

    def on_readable(self) -> None:
        if self.late and self.wire.tls is None:  # over TLS it would be told of it again and again
            self._unread = True
            self._floor.later()
        else:
            self.read()

    def read_late(self) -> bool:
        """Read what was put off; whether there was anything."""
        unread, self._unread = self._unread, False
        if unread:
            self.read()
        return unread

    def read(self) -> None:
        """What has come."""
        try:
            data = self.wire.recv_nowait()
            if data:
                self.owner.on_frames(self._scanner.feed(data))
                if len(data) == READ_BYTES:
                    self._look_again()
                return
            reason = "closed by the server"
        except BlockingIOError:
            return
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except ProtocolError as error:
            reason = f"not RESP: {error.text}"
        self.lose(reason)

    def _look_again(self) -> None:
        """As much was read as is asked for at once: there may be more, which it will not be told of again."""
        if self.wire.fileno() >= 0:
            self._floor.watch(self, READ | WRITE if self._watching_writes else READ)

    def on_writable(self) -> None:
        try:
            if self.wire.flush_nowait():
                self._watching_writes = False
                self._floor.watch(self, READ)
                if self._full:
                    self._full = False
                    self.owner.on_full(False)
        except OSError as error:
            self.lose(error.strerror or type(error).__name__)

    def broke(self, error: Exception) -> None:
        """A defect of ours: the frames are out of step, so nothing more can be trusted on this connection."""
        log.error("a connection to a server is given up because of a defect: %r", error, exc_info=error)
        self.lose(f"given up because of a defect: {error!r}")

    def send(self, data: bytes) -> None:
        """Send; what the socket does not take now goes out when it can."""
        try:
            self.wire.send_nowait(data)
        except OSError as error:
            self.lose(error.strerror or type(error).__name__)
            return
        self._look_after_rest()

    def send_pieces(self, pieces: list[bytes]) -> None:
        """As `send`. Small pieces are put together, big ones (6 of 64 KB: 21 µs for 35) go as they are."""
        if len(pieces) > MAX_PIECES or sum(map(len, pieces)) < BIG_PIECES_BYTES * len(pieces):
            self.send(b"".join(pieces))
            return
        try:
            self.wire.send_pieces_nowait(pieces)
        except OSError as error:
            self.lose(error.strerror or type(error).__name__)
            return
        self._look_after_rest()

    def _look_after_rest(self) -> None:
        if self.wire.pending_out and not self._watching_writes:
            self._watching_writes = True
            self._floor.watch(self, READ | WRITE)
        if self.wire.pending_out > FULL_BYTES and not self._full:
            self._full = True
            self.owner.on_full(True)

    def lose(self, reason: str) -> None:
        """Close, and tell the owner."""
        if self.close():
            self.owner.on_lost(self, reason)

    def close(self) -> bool:
        """Close without telling anybody; False when it was closed already."""
        if self.wire.fileno() < 0:
            return False
        self._floor.remove(self)
        self.wire.close()
        return True
