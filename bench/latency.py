"""Open-loop latency: commands leave at a fixed rate whether or not replies come, as independent users send them.

A closed loop (redis-benchmark) stops asking while a proxy stalls and so hides the stall. Here each latency counts from
the moment the command was *due*. The generator's own lateness is in the figure, the same for every peer: compare with
direct.
"""

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import hiredis

from bench.load import LoadError, pack

CONNECTIONS = 16
RATE = 2_000  # per second: light for every peer, so that queues of the generator itself do not show
KEYS = 1_000
VALUE = b"x" * 64
STALL_S = 10.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds."""

    p50: float
    p99: float
    p999: float


def _command(n: int, prefix: str) -> bytes:
    """SET and GET in turns, a key about once a second."""
    key = f"{prefix}:o:{n // 2 % KEYS:012d}".encode()
    return pack((b"GET", key) if n % 2 else (b"SET", key, VALUE))


def run(port: int, prefix: str, seconds: float, rate: int = RATE) -> Latency:
    total = int(rate * seconds)
    commands = [_command(n, prefix) for n in range(total)]
    return summary([took for _, took in drive(port, commands, rate, lambda sent: sent < total)])


def summary(times: Sequence[float]) -> Latency:
    """The percentiles of latencies in seconds."""
    ordered, total = sorted(times), len(times)
    at = [ordered[min(total - 1, int(total * share))] * 1000 for share in (0.5, 0.99, 0.999)]
    return Latency(*at)


def drive(
    port: int, commands: list[bytes], rate: int, more: Callable[[int], bool], connections: int = CONNECTIONS
) -> list[tuple[float, float]]:
    """Send the commands, again and again, for as long as there is to be `more` than so many: for each when it was due
    (time.perf_counter) and how many seconds later its reply was here. Errors: LoadError, OSError."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 5)) for _ in range(connections)]
        for sock in socks:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        gc.disable()  # a collection here would look like a stall there
        try:
            return _drive(socks, commands, rate, more)
        finally:
            gc.enable()


def _drive(
    socks: list[socket.socket], commands: list[bytes], rate: int, more: Callable[[int], bool]
) -> list[tuple[float, float]]:
    now = time.perf_counter
    due: dict[socket.socket, deque[float]] = {sock: deque() for sock in socks}
    readers = {sock: hiredis.Reader() for sock in socks}
    times: list[tuple[float, float]] = []
    sent, start = 0, now()
    while (going := more(sent)) or len(times) < sent:
        while going and start + sent / rate <= now():
            sock = socks[sent % len(socks)]
            due[sock].append(start + sent / rate)
            sock.sendall(commands[sent % len(commands)])
            sent += 1
            going = more(sent)
        wait = max(0.0, start + sent / rate - now()) if going else STALL_S
        # select() and not epoll: its timeout is in microseconds.
        ready = select.select(socks, [], [], wait)[0]
        if not ready and wait == STALL_S:
            raise LoadError(f"open loop: a reply missing for {STALL_S:.0f} s")
        for sock in ready:
            _receive(sock, readers[sock], due[sock], times)
    return times


def _receive(sock: socket.socket, reader: hiredis.Reader, due: deque[float], times: list[tuple[float, float]]) -> None:
    data = sock.recv(65536)
    if not data:
        raise LoadError("open loop: the connection was closed")
    reader.feed(data)
    while (reply := reader.gets()) is not False:
        if isinstance(reply, hiredis.ReplyError):
            raise LoadError(f"open loop: {reply}")
        began = due.popleft()
        times.append((began, time.perf_counter() - began))
