"""Raw connections and reply frames, for comparing what two servers say byte by byte.

Owns: sockets, cutting a reply stream into frames, a plain tree of a frame. Refuses to know: the code under test (its
own scanner and encoder are not used here), which command a reply belongs to.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

TIMEOUT_S = 5.0  # for replies that come in microseconds
CHUNK = 1 << 18


class Tree(NamedTuple):
    """One reply: its type byte, and text (bytes), or the items of an aggregate; None for a null."""

    kind: bytes
    value: Any


def pack(args: Sequence[bytes]) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def frame_end(data: bytes, start: int = 0) -> int:
    """Where the frame that begins at `start` ends; -1 when it is not complete."""
    open_items = 1
    while open_items:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return -1
        kind, count = data[start : start + 1], data[start + 1 : line_end]
        start = line_end + 2
        open_items -= 1
        if kind in b"$=!" and count != b"-1":
            start += int(count) + 2
            if start > len(data):
                return -1
        elif kind in b"*~>" and count != b"-1":
            open_items += int(count)
        elif kind in b"%|":
            open_items += 2 * int(count) + (kind == b"|")
    return start


def split_frames(data: bytes) -> tuple[list[bytes], bytes]:
    """The complete frames, and what is left."""
    frames, start = [], 0
    while start < len(data) and (end := frame_end(data, start)) >= 0:
        frames.append(data[start:end])
        start = end
    return frames, data[start:]


def tree(frame: bytes) -> Tree:
    return _tree(frame, 0)[0]


def _tree(data: bytes, start: int) -> tuple[Tree, int]:
    line_end = data.index(b"\r\n", start)
    kind, line = data[start : start + 1], data[start + 1 : line_end]
    start = line_end + 2
    if (kind in b"$=!*~>" and line == b"-1") or kind == b"_":
        return Tree(kind, None), start
    if kind in b"$=!":
        end = start + int(line)
        return Tree(kind, data[start:end]), end + 2
    if kind in b"*~>%":
        items = []
        for _ in range(int(line) * (2 if kind == b"%" else 1)):
            item, start = _tree(data, start)
            items.append(item)
        return Tree(kind, items), start
    return Tree(kind, line), start


class NoReply(Exception):
    """Less came than was waited for; `frames` is what did come."""

    def __init__(self, frames: list[bytes], why: str) -> None:
        super().__init__(f"{why}; came: {frames}")
        self.frames = frames
        self.why = why


class Wire:
    """A connection. Once the other side has hung up, `ended` is True."""

    def __init__(self, port: int, resp: int = 2) -> None:
        self.resp = resp
        self.ended = False
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        if resp == 3:
            self.ask([b"HELLO", b"3"])

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """All of it; replies that come meanwhile are kept, so that no side waits for the other."""
        self._socket.settimeout(0.0)
        view = memoryview(data)
        while view and not self.ended:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                readable, writable, _ = select.select([self._socket], [self._socket], [], TIMEOUT_S)
                if not readable and not writable:
                    raise NoReply([], f"nothing more was taken within {TIMEOUT_S:g} s") from None
                self._receive(0.0)
            except (ConnectionResetError, BrokenPipeError):
                self.ended = True

    def ask(self, args: Sequence[bytes]) -> bytes:
        self.send(pack(args))
        return self.frames(1)[0]

    def frames(self, count: int, timeout: float = TIMEOUT_S) -> list[bytes]:
        """The next `count` frames. Errors: NoReply."""
        deadline = time.monotonic() + timeout
        found: list[bytes] = []
        start = 0
        while True:
            while len(found) < count and start < len(self._data) and (end := frame_end(self._data, start)) >= 0:
                found.append(self._data[start:end])
                start = end
            if len(found) == count:
                self._data = self._data[start:]
                return found
            self._data, start = self._data[start:], 0
            if self.ended:
                raise NoReply(found, "the connection was closed")
            if not self._receive(deadline - time.monotonic()) and not self.ended:
                raise NoReply(found, f"nothing more within {timeout:g} s")

    def arrived(self) -> list[bytes]:
        """The complete frames that are here now."""
        while not self.ended and self._receive(0.0):
            pass
        found, self._data = split_frames(self._data)
        return found

    @property
    def rest(self) -> bytes:
        """Bytes behind the last complete frame."""
        return self._data

    def _receive(self, timeout: float) -> bool:
        self._socket.settimeout(max(timeout, 0.0))
        try:
            data = self._socket.recv(CHUNK)
        except (BlockingIOError, TimeoutError):
            return False
        except ConnectionResetError:
            data = b""
        self._data += data
        self.ended = not data
        return not self.ended
