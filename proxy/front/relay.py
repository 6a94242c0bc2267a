"""A client that has a connection of its own to the owner: bytes go both ways, untouched.

Owns the back-pressure: who does not read is not read for. Knows nothing of RESP.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from proxy.floor import READ, WRITE, Floor

log = logging.getLogger("crossfade")

READ_BYTES = 64 * 1024
FULL_BYTES = 256 * 1024  # not taken by one end yet: nothing more is read from the other


class End:
    """One of the two sockets."""

    __slots__ = ("_floor", "_out", "_relay", "deaf", "ended", "events", "last", "other", "sock")

    other: End

    def __init__(self, relay: Relay, sock: socket.socket, floor: Floor) -> None:
        self.sock = sock
        self.deaf = False  # the other end is full: not read from
        self.ended = False  # it says no more
        self.last = False  # when all is sent, there is nothing more to come
        self.events = READ
        self._relay = relay
        self._floor = floor
        self._out = bytearray()
        floor.add(self)

    def __repr__(self) -> str:
        return f"<End fd={self.fileno()} unsent={len(self._out)} deaf={self.deaf} ended={self.ended}>"

    def fileno(self) -> int:
        return self.sock.fileno()

    def on_readable(self) -> None:
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._relay.close()
            return
        if data:
            self.other.send(data)
        else:
            self.ended = True
            self._watch()
            self._relay.ended(self)

    def send(self, data: bytes) -> None:
        """Send; what the socket does not take now goes out when it can."""
        if not self._out:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                self._relay.close()
                return
        if data:
            self._out += data
            self._watch()
            if len(self._out) > FULL_BYTES:
                self.other.deaf = True
                self.other._watch()

    def finish(self) -> None:
        """Nothing more is sent here once all has been."""
        self.last = True
        if not self._out:
            self._relay.finished(self)

    def on_writable(self) -> None:
        try:
            del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._relay.close()
            return
        if self._out:
            return
        self._watch()
        if self.other.deaf:
            self.other.deaf = False
            self.other._watch()
        if self.last:
            self._relay.finished(self)

    def broke(self, error: Exception) -> None:
        log.error("a relayed client is disconnected because of a defect: %r", error, exc_info=error)
        self._relay.close()

    def _watch(self) -> None:
        if self.sock.fileno() < 0:
            return
        events = (0 if self.deaf or self.ended else READ) | (WRITE if self._out else 0)
        if events != self.events:
            self.events = events
            self._floor.watch(self, events)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            self._floor.remove(self)
            self.sock.close()


class Relay:
    """A client's socket and its connection to the owner."""

    def __init__(
        self, number: int, client: socket.socket, owner: socket.socket, floor: Floor, on_closed: Callable[[Relay], None]
    ) -> None:
        self.number = number  # the client's id
        self._on_closed = on_closed
        self._farewell = b""
        self.client, self.owner = End(self, client, floor), End(self, owner, floor)
        self.client.other, self.owner.other = self.owner, self.client

    def __repr__(self) -> str:
        return f"<Relay client={self.client!r} owner={self.owner!r}>"

    def hang_up(self, farewell: bytes) -> None:
        """The client is not listened to any more; it hears what it is owed, and this."""
        self._farewell = farewell
        self.client.ended = True
        self.client._watch()
        self.owner.finish()

    def ended(self, end: End) -> None:
        """This end says no more: nor does the relay, towards the other one."""
        if end is self.owner and self._farewell:
            self.client.send(self._farewell)
        end.other.finish()

    def finished(self, end: End) -> None:
        """All has been sent to this end."""
        if end is self.client:
            self.close()
        else:
            try:
                end.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.close()

    def close(self) -> None:
        """Hang up on both."""
        if self.client.fileno() >= 0:
            self.client.close()
            self.owner.close()
            self._on_closed(self)
