"""Are two servers at rest equal? The demo's own answer, which shares with `verify` only the connection and SCAN: each
key is read in full with ordinary commands, and compared as a client of its type would see it.

Left out, as servers of different versions count them differently: encodings, idle and delivery times, a HyperLogLog's
cached count, and the counters of streams that 6.2 does not have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backfill.client import Client, ReplyError
from backfill.scan import databases, scan, select
from backfill.url import Url

BATCH = 200  # keys a round trip
TOLERANCE_MS = 1000  # between two deadlines, each known as TIME + PTTL
MAX_FINDINGS = 20  # kept to be shown; all are counted
HLL_CACHE = slice(8, 16)  # "HYLL", encoding, 3 unused bytes, then the cached count, which PFCOUNT writes


@dataclass(slots=True)
class Comparison:
    """Counts by type (the source's, or the target's where the source has no such key)."""

    source: Counter[str] = field(default_factory=Counter)
    target: Counter[str] = field(default_factory=Counter)
    different: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def kinds(self) -> list[str]:
        return sorted(self.source.keys() | self.target.keys())

    def differs(self, kind: str, text: str) -> None:
        self.different[kind] += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(text)


@dataclass(frozen=True, slots=True)
class Reading:
    """One key on one server. `deadline_ms` is in that server's clock, as `read_ms` is."""

    kind: str
    read_ms: int
    deadline_ms: int | None = None
    value: Any = None

    @property
    def there(self) -> bool:
        return self.kind != "none"


async def compare(source: Url, target: Url, progress: Callable[[int, int], None]) -> Comparison:
    """Every key of every db of both. The servers share one clock here. Errors: ConnectError, ConnectionLost."""
    found = Comparison()
    async with Client.open(source) as left, Client.open(target) as right:
        sizes, others = await databases(left), await databases(right)
        done, total = 0, max(sum(sizes.values()), sum(others.values()))
        for db in sorted(sizes.keys() | others.keys()):
            await select(left, db)
            await select(right, db)
            keys = sorted({key for client in (left, right) async for page in scan(client) for key in page})
            for start in range(0, len(keys), BATCH):
                batch = keys[start : start + BATCH]
                readings = zip(batch, await _read(left, batch), await _read(right, batch), strict=True)
                for key, here, there in readings:
                    _judge(found, f"db {db} {key.decode(errors='backslashreplace')}", here, there)
                done += len(batch)
                progress(done, max(total, done))
    return found


def _judge(found: Comparison, name: str, a: Reading, b: Reading) -> None:
    if a.there:
        found.source[a.kind] += 1
    if b.there:
        found.target[b.kind] += 1
    text = _difference(a, b)
    if text:
        found.differs(a.kind if a.there else b.kind, f"{name}: {text}")


def _difference(a: Reading, b: Reading) -> str:
    """ "" when equal. A key that is about to expire may be gone on one side already."""
    if not a.there or not b.there:
        gone = all(not one.there or _due(one, other.read_ms) for one, other in ((a, b), (b, a)))
        return "" if gone else f"only on the {'source' if a.there else 'target'}"
    if a.kind != b.kind:
        return f"a {a.kind} on the source, a {b.kind} on the target"
    if a.value != b.value:
        return f"the {a.kind} has another value on the target"
    if (a.deadline_ms is None) != (b.deadline_ms is None):
        return f"expires only on the {'target' if a.deadline_ms is None else 'source'}"
    if a.deadline_ms is not None and b.deadline_ms is not None:
        late = b.deadline_ms - a.deadline_ms
        return f"expires {late} ms later on the target" if abs(late) > TOLERANCE_MS else ""
    return ""


def _due(reading: Reading, now_ms: int) -> bool:
    return reading.deadline_ms is not None and reading.deadline_ms <= now_ms + TOLERANCE_MS


# -- reading -----------------------------------------------------------------------------------------------------------


async def _read(client: Client, keys: list[bytes]) -> list[Reading]:
    kinds = [kind.decode() for kind in await client.pipeline([[b"TYPE", key] for key in keys])]
    commands: list[list[bytes]] = [[b"TIME"]]
    for key, kind in zip(keys, kinds, strict=True):
        read, _ = READERS.get(kind, OTHER)
        commands += [[b"PTTL", key], read(key)]
    (seconds, micros), *replies = await client.pipeline(commands)
    now = int(seconds) * 1000 + int(micros) // 1000
    return [
        _reading(kind, now, pttl, reply) for kind, pttl, reply in zip(kinds, replies[::2], replies[1::2], strict=True)
    ]


def _reading(kind: str, now: int, pttl: int, reply: Any) -> Reading:
    if kind == "none" or pttl == -2 or reply is None or isinstance(reply, ReplyError):
        return Reading("none", now)  # it has expired between the commands
    _, parse = READERS.get(kind, OTHER)
    return Reading(kind, now, now + pttl if pttl >= 0 else None, parse(reply))


def _string(value: bytes) -> bytes:
    return value[:8] + value[HLL_CACHE.stop :] if value.startswith(b"HYLL") else value


def _pairs(flat: Any) -> dict[bytes, Any]:
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _scores(flat: list[bytes]) -> dict[bytes, float]:
    return {
        member: float(score) for member, score in _pairs(flat).items()
    }  # versions print the same double differently


def _stream(flat: Any) -> dict[str, Any]:
    """Entries, last id; of each group: its last id, and each pending entry with its consumer and deliveries."""
    fields = _pairs(flat)
    groups = {}
    for group in map(_pairs, fields[b"groups"]):
        pending = group[b"pel"] if b"pel" in group else group[b"pending"]
        groups[group[b"name"]] = group[b"last-delivered-id"], {(ident, who, n) for ident, who, _, n in pending}
    return {"entries": fields[b"entries"], "last": fields[b"last-generated-id"], "groups": groups}


Reader = tuple[Callable[[bytes], list[bytes]], Callable[[Any], Any]]

READERS: Mapping[str, Reader] = {
    "string": (lambda key: [b"GET", key], _string),
    "list": (lambda key: [b"LRANGE", key, b"0", b"-1"], list),
    "set": (lambda key: [b"SMEMBERS", key], frozenset),
    "zset": (lambda key: [b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"], _scores),
    "hash": (lambda key: [b"HGETALL", key], _pairs),
    "stream": (lambda key: [b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"], _stream),
}
OTHER: Reader = (lambda key: [b"DUMP", key], lambda payload: payload[:-10])  # without version and checksum
