"""The channel between the owner and one of its fronts: small messages, some with a socket.

Owns the framing (a JSON document a line; a message whose `fd` is true comes with a file descriptor) and the queue of
what the other end has not taken yet. Decides nothing. Its end is the end of the other process.

A process that has all the descriptors it may have gets a message without its descriptor, which the kernel has closed.
"""

from __future__ import annotations

import json
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from proxy.floor import READ, WRITE, Floor

log = logging.getLogger("crossfade")

Message = dict[str, Any]

READ_BYTES = 64 * 1024
MAX_FDS = 64  # taken in one read


class Channel:
    """One end. `on_message(message, sock)`: sock is the socket that came with it, and belongs to the callee; None where
    one should have come and was lost."""

    __slots__ = ("_data", "_fds", "_floor", "_on_end", "_on_message", "_queue", "_sock")

    def __init__(
        self,
        sock: socket.socket,
        floor: Floor,
        on_message: Callable[[Message, socket.socket | None], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._floor = floor
        self._on_message = on_message
        self._on_end = on_end
        self._data = b""
        self._fds: deque[int | None] = deque()  # None: one that was lost
        self._queue: deque[tuple[bytes, socket.socket | None]] = deque()
        floor.add(self)

    def __repr__(self) -> str:
        return f"<Channel fd={self.fileno()} queued={len(self._queue)}>"

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message, sock: socket.socket | None = None) -> None:
        """Send, with this socket, which is closed here. Nothing happens when the other end is gone: `on_end` tells."""
        line = json.dumps({**message, "fd": True} if sock is not None else message).encode() + b"\n"
        self._queue.append((line, sock))
        if len(self._queue) == 1:
            self._flush()

    def on_readable(self) -> None:
        try:
            data, fds, flags, _ = socket.recv_fds(self._sock, READ_BYTES, MAX_FDS)
        except BlockingIOError:
            return
        except OSError:
            data, fds, flags = b"", [], 0
        self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC:  # each is sent in a piece of its own, and a read ends behind such a piece
            self._fds.append(None)
            log.warning("a connection was lost on the way between two processes: too many open files (ulimit -n)")
        if not data:
            self.close()
            self._on_end()
            return
        *lines, self._data = (self._data + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            self._on_message(message, self._next_socket() if message.get("fd") else None)

    def _next_socket(self) -> socket.socket | None:
        fileno = self._fds.popleft()
        return None if fileno is None else socket.socket(fileno=fileno)

    def on_writable(self) -> None:
        self._flush()

    def broke(self, error: Exception) -> None:
        log.error("the channel to another process is given up because of a defect: %r", error, exc_info=error)
        self.close()
        self._on_end()

    def _flush(self) -> None:
        while self._queue and self.fileno() >= 0:
            line, sock = self._queue[0]
            try:
                sent = socket.send_fds(self._sock, [line], [] if sock is None else [sock.fileno()])
            except BlockingIOError:
                break
            except OSError:
                self._drop()
                return  # reading tells of the end
            if sock is not None:
                sock.close()  # the other end has it
            if sent < len(line):
                self._queue[0] = (line[sent:], None)
                break
            self._queue.popleft()
        if self.fileno() >= 0:
            self._floor.watch(self, READ | WRITE if self._queue else READ)

    def _drop(self) -> None:
        for _, sock in self._queue:
            if sock is not None:
                sock.close()
        self._queue.clear()

    def close(self) -> None:
        """Hang up."""
        if self.fileno() < 0:
            return
        self._floor.remove(self)
        self._sock.close()
        self._drop()
        while self._fds:
            if (sock := self._next_socket()) is not None:
                sock.close()
