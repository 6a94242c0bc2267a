"""Owns what the tools without a proxy know of a server: its version, commands, process and limits, the offset between
the clocks of two servers, and the fencing of a connection that was lost.

A door. Clock offsets are in milliseconds, the server's clock minus this machine's monotonic one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import hiredis

from ..client import command_names
from ..errors import ServerRefuses
from ..scan import parse_keyspace
from .pipe import Pipe

CLOCK_SAMPLES = 3
DEFAULT_MAX_BULK = 512 * 1024 * 1024  # proto-max-bulk-len where the server does not tell


@dataclass(frozen=True, slots=True)
class Facts:
    """What one server can do, and which process it is."""

    commands: frozenset[bytes]  # upper-case names; containers as b"XGROUP CREATE" where the server tells
    version: tuple[str, int, int]  # product, major, minor
    run_id: str
    max_bulk: int  # bytes; a longer argument costs the connection
    mode: str = "standalone"  # redis_mode of INFO

    def __str__(self) -> str:
        product, major, minor = self.version
        return f"{product} {major}.{minor}"


async def learn(pipe: Pipe) -> Facts:
    """Ask a server for its facts. Errors: ConnectionLost, BackfillError."""
    names, limit = await pipe.pipeline([[b"COMMAND"], [b"CONFIG", b"GET", b"proto-max-bulk-len"]])
    told = pipe.wire.server
    valkey = told.get("valkey_version")
    release = valkey or told.get("redis_version", "0.0")
    major, minor = (int("".join(filter(str.isdigit, part)) or 0) for part in (release + ".0").split(".")[:2])
    max_bulk = DEFAULT_MAX_BULK
    if isinstance(limit, list) and len(limit) == 2:
        max_bulk = int(limit[1])
    return Facts(
        frozenset() if isinstance(names, hiredis.ReplyError) else command_names(names),
        ("valkey" if valkey else "redis", major, minor),
        told.get("run_id", ""),
        max_bulk,
        told.get("redis_mode", "standalone"),
    )


async def clock_offset(pipe: Pipe) -> float:
    """The server's clock minus time.monotonic(), from the quickest of some samples. Errors: ConnectionLost."""
    best: tuple[float, float] | None = None
    for _ in range(CLOCK_SAMPLES):
        sent = time.monotonic() * 1000
        reply = expect(await pipe.call(b"TIME"), "TIME")
        received = time.monotonic() * 1000
        server_ms = int(reply[0]) * 1000 + int(reply[1]) / 1000
        sample = (received - sent, server_ms - (sent + received) / 2)
        best = sample if best is None else min(best, sample)
    assert best is not None
    return best[1]


async def shift_between(source: Pipe, target: Pipe) -> int:
    """What to add to a deadline in the source's clock to have it in the target's, in ms. Errors: ConnectionLost."""
    return round(await clock_offset(target) - await clock_offset(source))


async def fence(pipe: Pipe, client_id: int) -> None:
    """End a connection of ours that was lost: what a relay or the server still holds of it must not run later than
    what is sent from now on. Where CLIENT KILL is not allowed this does nothing. Errors: ConnectionLost."""
    if client_id:
        await pipe.call(b"CLIENT", b"KILL", b"ID", b"%d" % client_id)


async def keyspace(pipe: Pipe) -> dict[int, int]:
    """The dbs that have keys, and how many. Errors: ConnectionLost, BackfillError."""
    return parse_keyspace(expect(await pipe.call(b"INFO", b"keyspace"), f"INFO on {pipe.url.address}"))


def expect(reply: Any, what: str) -> Any:
    """The reply, if it is not an error. Errors: ServerRefuses."""
    if isinstance(reply, hiredis.ReplyError):
        raise ServerRefuses(f"{what}: {reply}", str(reply))
    return reply
