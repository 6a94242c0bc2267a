"""The fast floor alone: clients, servers and sockets are stand-ins that cost nothing, so what is left is our own work.

`python -m bench.hotpath` prints, for each kind of traffic, the time per command (the least of many rounds: a busy
machine can only add) and the bytecodes executed per command, which no machine changes; the latter is what
`tests/proxy/test_hot_path.py` watches. System calls, hence most of a proxy's time, are not in it: see `make bench`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from proxy.effects import give_rules
from proxy.hub import DOWN, Hub
from proxy.journal import Journal
from proxy.local import Local
from proxy.roles import Roles
from proxy.router import Router
from proxy.session import Session
from proxy.waiters import Waiters
from proxy.watch import State
from resp.catalog import Catalog
from resp.encode import bulk, encode

CLIENTS = 16
ROUNDS = 60
VALUE = b"x" * 64


class Socket:
    """A client that sends the same again and again, and swallows every answer."""

    def __init__(self, sends: bytes) -> None:
        self._sends = sends
        self.heard = 0

    def recv(self, size: int) -> bytes:
        return self._sends

    def send(self, data: bytes) -> int:
        self.heard += len(data)
        return len(data)

    def fileno(self) -> int:
        return 1


class Link:
    """A connection to a server; what it answers is the caller's business."""

    class wire:
        client_id = 1

    def __init__(self) -> None:
        self.db, self.resp, self.dbs, self.owner = 0, 2, {0}, None
        self.sent = 0

    def send(self, data: bytes) -> None:
        self.sent += 1

    def send_pieces(self, pieces: list[bytes]) -> None:
        self.sent += 1


class Floor:
    def add(self, handler: Any) -> None: ...

    def watch(self, handler: Any, events: int) -> None: ...

    def later(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Case:
    """`answer`: of the serving side, and of the mirror side, unless `mirrored` says otherwise (frame by frame)."""

    name: str
    command: Callable[[int], list[bytes]]
    answer: bytes
    mirrored: tuple[bytes, ...] = ()
    pipeline: int = 1


def _key(number: int) -> bytes:
    return b"key:%012d" % number


LONG_LIVED = b":-1\r\n"
CASES = [
    Case(f"{name}, P{pipeline}", command, answer, mirrored, pipeline)
    for pipeline in (1, 16)
    for name, command, answer, mirrored in [
        ("GET", lambda n: [b"GET", _key(n)], bulk(VALUE), ()),
        ("SET", lambda n: [b"SET", _key(n), VALUE], b"+OK\r\n", (b"+OK\r\n",)),
        ("INCR", lambda n: [b"INCR", _key(n)], b":7\r\n", (LONG_LIVED, b":7\r\n")),
        ("LPUSH", lambda n: [b"LPUSH", _key(n), VALUE], b":9\r\n", (LONG_LIVED, b":9\r\n")),
        ("SADD", lambda n: [b"SADD", _key(n), VALUE], b":1\r\n", (LONG_LIVED, b":1\r\n")),
        ("ZADD", lambda n: [b"ZADD", _key(n), b"1", VALUE], b":0\r\n", (LONG_LIVED, b":0\r\n")),
        ("HSET", lambda n: [b"HSET", _key(n), b"f", VALUE], b":0\r\n", (LONG_LIVED, b":0\r\n")),
    ]
]


class Rig:
    """A hub with everything around it but sockets."""

    def __init__(self, case: Case, directory: Path) -> None:
        roles = Roles()
        for facts in roles.facts.values():
            facts.clock.uncertainty_ms = 0.5
        self.hub = hub = Hub(roles)
        hub.floor = Floor()  # type: ignore[assignment]
        hub.waiters = Waiters(hub)
        hub.watch.state = State.ON
        hub.journal = Journal(directory / "journal")
        hub.journal.open(settled=True)
        catalog = Catalog.default()
        give_rules(catalog)
        hub.router = Router(hub, catalog, Local(hub, password=""))
        hub.pins = _NoPins()  # type: ignore[assignment]
        self.lane, self.mirror = Link(), Link()
        hub.lane.attach(self.lane)  # type: ignore[arg-type]
        hub.mirror.attach(self.mirror)  # type: ignore[arg-type]
        hub.resume(DOWN)
        self._sessions = []
        for client in range(CLIENTS):
            sends = b"".join(encode(case.command(client * case.pipeline + n)) for n in range(case.pipeline))
            session = Session(hub, Socket(sends), "10.0.0.1:1", client, authenticated=True, db=0)  # type: ignore[arg-type]
            hub.joined(session)
            self._sessions.append(session)
        self.commands = CLIENTS * case.pipeline
        self._case = case

    def round(self) -> None:
        """Every client sends, both servers answer, every client hears."""
        hub = self.hub
        for session in self._sessions:
            session.on_readable()
        hub.flush()
        hub.lane.on_frames([self._case.answer] * self.commands)
        hub.flush()
        if hub.mirror.queued:
            together = CLIENTS if self._case.pipeline == 1 else self._case.pipeline  # all guards, then all effects
            frames = [frame for frame in self._case.mirrored for _ in range(together)]
            hub.mirror.on_frames(frames * (self.commands // together))
        hub.flush()
        assert hub.lane.idle and hub.mirror.idle and not hub.repair.keys.dirty, hub

    def close(self) -> None:
        if self.hub.journal is not None:
            self.hub.journal.close()


class _NoPins:
    idle = True

    def flush(self) -> None: ...


def seconds_per_command(rig: Rig) -> float:
    """The least of many rounds."""
    least = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        rig.round()
        least = min(least, time.perf_counter() - began)
    return least / rig.commands


def bytecodes_per_command(rig: Rig) -> float:
    """Executed Python instructions, the rig's own few included."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        rig.round()
    finally:
        sys.settrace(before)
    return count / rig.commands


def main() -> None:
    print(f"{'':12}{'µs':>8}{'bytecodes':>12}   per command")
    for case in CASES:
        with TemporaryDirectory(prefix="crossfade-bench-") as directory:
            rig = Rig(case, Path(directory))
            for _ in range(20):
                rig.round()
            print(f"{case.name:12}{seconds_per_command(rig) * 1e6:8.2f}{bytecodes_per_command(rig):12.0f}")
            rig.close()


if __name__ == "__main__":
    main()
