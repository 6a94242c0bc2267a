"""How much memory a process has, while something is done to it; and clients that misbehave on purpose."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import psutil

from tests.proxies import RunningProxy
from tests.traffic.connection import pack

MB = 1 << 20
SAMPLE_S = 0.02
FULL_S = 0.5  # nothing has been taken for so long
TIMEOUT_S = 20.0


class Memory:
    """Samples the resident memory of a process from start to end; in MB."""

    def __init__(self, pid: int | None) -> None:
        assert pid is not None
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self.before = self.now
        self.peak = self.after = self.before

    def __repr__(self) -> str:
        return f"{self.before:.0f} MB before, {self.peak:.0f} MB at most, {self.after:.0f} MB at the end"

    @property
    def now(self) -> float:
        return float(self._process.memory_info().rss) / MB

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.peak = max(self.peak, self.now)

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._sampler.join()
        self.after = self.now


class Flood:
    """One connection that sends as fast as it is taken, and reads when it likes."""

    def __init__(self, proxy: RunningProxy, timeout: float = TIMEOUT_S) -> None:
        self.sock = socket.create_connection((proxy.host, proxy.port), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def ask(self, *command: Any) -> bytes:
        """One command, and what comes first of its reply."""
        self.sock.sendall(pack([command]))
        return self.sock.recv(65536)

    def pipeline(self, commands: Iterable[tuple[Any, ...]], reply: bytes, batch: int = 1000) -> None:
        """All of them, so many at once, each answered with `reply`."""
        waiting: list[tuple[Any, ...]] = []
        for command in commands:
            waiting.append(command)
            if len(waiting) == batch:
                self._batch(waiting, reply)
        self._batch(waiting, reply)

    def _batch(self, commands: list[tuple[Any, ...]], reply: bytes) -> None:
        if commands:
            self.sock.sendall(pack(commands))
            expected = reply * len(commands)
            assert self.read(len(expected)) == expected
            commands.clear()

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer when the proxy hangs up."""
        parts = []
        while size and (data := self.sock.recv(min(size, MB))):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def closed(self) -> bool:
        """Whether the proxy has hung up (after what it has said before)."""
        try:
            while self.sock.recv(MB):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True


def send_until_nobody_takes_more(floods: Sequence[Flood], data: bytes) -> dict[Flood, int]:
    """Each sends `data` again and again; how many bytes each has sent when none gets on."""
    for flood in floods:
        flood.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        flood.sock.setblocking(False)
    sent, since = dict.fromkeys(floods, 0), time.monotonic()
    rest = dict.fromkeys(floods, memoryview(data))
    while time.monotonic() - since < FULL_S:
        for flood in floods:
            try:
                taken = flood.sock.send(rest[flood])
            except BlockingIOError:
                continue
            rest[flood] = rest[flood][taken:] or memoryview(data)
            sent[flood] += taken
            since = time.monotonic()
    for flood in floods:
        flood.sock.settimeout(TIMEOUT_S)
    return sent
