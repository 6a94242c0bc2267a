"""Are two servers equal? An answer that owes nothing to the code under test: redis-py only, every key read in full.

Owns: what "equal" means to a user: both directions, every db, type, value, deadline, hash field deadlines, a stream's
entries, last id, groups and pending entries. Refuses to know: resp, backfill and proxy.
Both servers should be at rest. Only expiry may go on: a key about to expire may be gone on one side.

Left out, as no client can depend on it: encodings, idle times, delivery times, a HyperLogLog's cached count.
Behind options: counters that Redis 6.2 streams do not have, consumers without pending entries, pending ids of entries
that are deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice, zip_longest
from typing import Any, Protocol

import redis

BATCH = 500  # keys per round trip: large enough for speed, small enough for memory


class HasClient(Protocol):
    """tests.servers.Server, or anything else that makes redis-py clients."""

    def client(self, db: int = 0) -> redis.Redis: ...


class What(Enum):
    MISSING = "missing"  # on a, not on b
    EXTRA = "extra"  # on b, not on a
    TYPE = "type"
    TTL = "ttl"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Difference:
    db: int
    key: bytes
    what: What
    detail: str

    def __str__(self) -> str:
        return f"db {self.db} key {self.key!r}: {self.what.value}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Options:
    ttl_tolerance_ms: int = 1000  # deadlines are TIME + PTTL, known to a few ms
    stream_counters: bool = True  # entries-added, max-deleted-entry-id, entries-read: where both servers have them
    entries_read: bool = True  # `compare_servers` leaves it out where the two count it differently
    empty_consumers: bool = False
    deleted_pending: bool = False
    kinds: frozenset[str] = frozenset()  # if any: only keys of these types; on a, others are as good as none
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Reading:
    """One key on one server at `read_ms` of that server's clock."""

    kind: str
    read_ms: int
    deadline_ms: int | None
    value: Any

    @property
    def exists(self) -> bool:
        return self.kind != "none"

    def gone_by(self, moment_ms: int) -> bool:
        if self.deadline_ms is not None and self.deadline_ms <= moment_ms:
            return True
        return self.kind == "hash" and not without_expired_fields(self.value, moment_ms)


def compare_servers(
    a: HasClient | str,
    b: HasClient | str,
    ttl_tolerance_ms: int = 1000,
    *,
    dbs: Iterable[int] | None = None,
    **options: Any,
) -> list[Difference]:
    """Every difference between two servers (up to `limit`); [] when they are equal. A server may be given as its URL.

    `dbs`: only these; else every db that is not empty on either side. Further keywords: see Options.
    """
    chosen = Options(ttl_tolerance_ms=ttl_tolerance_ms, **options)
    if _trimmed_count_as_read(a) != _trimmed_count_as_read(b):
        chosen = replace(chosen, entries_read=False)
    numbers = sorted(dbs) if dbs is not None else sorted(_used_dbs(a) | _used_dbs(b))
    return list(islice(_differences(a, b, numbers, chosen), chosen.limit))


def assert_equal_servers(a: HasClient | str, b: HasClient | str, ttl_tolerance_ms: int = 1000, **options: Any) -> None:
    """AssertionError that lists the differences."""
    found = compare_servers(a, b, ttl_tolerance_ms, **options)
    assert not found, f"{len(found)} differences:\n" + "\n".join(map(str, found))


def _connect(server: HasClient | str, db: int = 0) -> redis.Redis:
    client = redis.Redis.from_url(server, db=db, protocol=2) if isinstance(server, str) else server.client(db=db)
    client.response_callbacks.clear()  # replies as the server sent them
    return client


def _trimmed_count_as_read(server: HasClient | str) -> bool:
    """Whether a group that reads on behind trimmed entries counts those as well: Redis 7 does not, later ones do
    (redis/redis#13338 and #13958: "incorrect lag"). The same commands give two counts."""
    with closing(_connect(server)) as client:
        info = client.execute_command("INFO", "server").decode()
    found = re.search(r"^valkey_version:(\d+)", info, re.MULTILINE) or re.search(
        r"^redis_version:(\d+)", info, re.MULTILINE
    )
    return found is None or int(found[1]) >= 8


def _used_dbs(server: HasClient | str) -> set[int]:
    with closing(_connect(server)) as client:
        lines = client.execute_command("INFO", "keyspace").decode().splitlines()
    return {int(line.split(":")[0].removeprefix("db")) for line in lines if line.startswith("db")}


def _differences(a: HasClient | str, b: HasClient | str, dbs: Sequence[int], options: Options) -> Iterator[Difference]:
    for db in dbs:
        with closing(_connect(a, db)) as client_a, closing(_connect(b, db)) as client_b:
            readers = Reader(client_a), Reader(client_b)
            keys = sorted(readers[0].keys() | readers[1].keys())
            for start in range(0, len(keys), BATCH):
                batch = keys[start : start + BATCH]
                for key, here, there in zip(batch, readers[0].read(batch), readers[1].read(batch), strict=True):
                    found = compare_readings(*_of_kinds(here, there, options.kinds), options)
                    if found is not None:
                        yield Difference(db, key, *found)


def _of_kinds(a: Reading, b: Reading, kinds: frozenset[str]) -> tuple[Reading, Reading]:
    if not kinds or a.kind in kinds:
        return a, b
    return Reading("none", a.read_ms, None, None), b if b.kind in kinds else Reading("none", b.read_ms, None, None)


class Reader:
    """Reads whole keys of one db in as few round trips as possible."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._field_ttls = client.execute_command("COMMAND", "INFO", "HPTTL")[0] is not None

    def keys(self) -> set[bytes]:
        found: set[bytes] = set()
        cursor = b"0"
        while True:
            cursor, page = self._client.execute_command("SCAN", cursor, "COUNT", "2000")
            found.update(page)
            if cursor == b"0":
                return found

    def read(self, keys: Sequence[bytes]) -> list[Reading]:
        kinds = [kind.decode() for kind in self._atomic([("TYPE", key) for key in keys])]
        # Every PTTL before the first value: large ones take a server seconds, in which 6.2 goes on to count.
        commands = [("TIME",), *(("PTTL", key) for key in keys)]
        commands += [_VALUE_COMMANDS.get(kind, _dump)(key) for key, kind in zip(keys, kinds, strict=True)]
        (seconds, micros), *replies = self._atomic(commands)
        now = int(seconds) * 1000 + int(micros) // 1000
        readings = [
            self._reading(kind, now, pttl, value)
            for kind, pttl, value in zip(kinds, replies[: len(keys)], replies[len(keys) :], strict=True)
        ]
        return self._with_field_ttls(keys, readings) if self._field_ttls else readings

    @staticmethod
    def _reading(kind: str, now: int, pttl: int, value: Any) -> Reading:
        if kind == "none" or pttl == -2:  # the second: it expired between the two round trips
            return Reading("none", now, None, None)
        if isinstance(value, redis.ResponseError):
            raise RuntimeError(f"a key was a {kind} and changed while it was read ({value}): not at rest")
        deadline = now + pttl if pttl >= 0 else None
        return Reading(kind, now, deadline, _PARSERS.get(kind, _as_it_is)(value))

    def _with_field_ttls(self, keys: Sequence[bytes], readings: list[Reading]) -> list[Reading]:
        hashes = [i for i, reading in enumerate(readings) if reading.kind == "hash"]
        if not hashes:
            return readings
        asked = [("HPTTL", keys[i], "FIELDS", str(len(readings[i].value)), *readings[i].value) for i in hashes]
        (seconds, micros), *replies = self._atomic([("TIME",), *asked])
        now = int(seconds) * 1000 + int(micros) // 1000
        result = list(readings)
        for i, ttls in zip(hashes, replies, strict=True):
            old = readings[i]
            fields = {
                field: (text, now + ttl if ttl >= 0 else None)
                for (field, (text, _)), ttl in zip(old.value.items(), ttls, strict=True)
                if ttl != -2  # expired since
            }
            if fields or not old.value:
                result[i] = Reading(old.kind, old.read_ms, old.deadline_ms, fields)
            else:  # all of it expired between the two round trips
                result[i] = Reading("none", now, None, None)
        return result

    def _atomic(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        with self._client.pipeline(transaction=True) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return pipeline.execute(raise_on_error=False)


def _dump(key: bytes) -> tuple[Any, ...]:
    return ("DUMP", key)


_VALUE_COMMANDS: dict[str, Callable[[bytes], tuple[Any, ...]]] = {
    "string": lambda key: ("GET", key),
    "list": lambda key: ("LRANGE", key, "0", "-1"),
    "set": lambda key: ("SMEMBERS", key),
    "zset": lambda key: ("ZRANGE", key, "0", "-1", "WITHSCORES"),
    "hash": lambda key: ("HGETALL", key),
    "stream": lambda key: ("XINFO", "STREAM", key, "FULL", "COUNT", "0"),
}


def _pairs(flat: Any) -> dict[Any, Any]:
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _as_it_is(value: Any) -> Any:
    return value


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "set": frozenset,
    # Versions print the same double differently (17 digits, or the shortest text): compared as numbers.
    "zset": lambda flat: {member: float(score) for member, score in zip(flat[::2], flat[1::2], strict=True)},
    "hash": lambda flat: {field: (text, None) for field, text in _pairs(flat).items()},
    "stream": lambda flat: {name.decode(): value for name, value in _pairs(flat).items()},
}


def compare_readings(a: Reading, b: Reading, options: Options) -> tuple[What, str] | None:
    """The first difference between two readings of one key."""
    tolerance = options.ttl_tolerance_ms
    if not a.exists or not b.exists:
        if a.exists and not a.gone_by(b.read_ms + tolerance):
            return What.MISSING, f"a {a.kind} on a, nothing on b"
        if b.exists and not b.gone_by(a.read_ms + tolerance):
            return What.EXTRA, f"nothing on a, a {b.kind} on b"
        return None
    if a.kind != b.kind:
        return What.TYPE, f"{a.kind} on a, {b.kind} on b"
    values = a.value, b.value
    if a.kind == "hash":
        moment = max(a.read_ms, b.read_ms) + tolerance
        values = without_expired_fields(a.value, moment, b.value), without_expired_fields(b.value, moment, a.value)
    if (found := _COMPARISONS.get(a.kind, _compare_dump)(*values, options)) is not None:
        return What.VALUE, f"{a.kind} {found}"
    if not _same_deadline(a.deadline_ms, b.deadline_ms, tolerance):
        return What.TTL, _two(_left(a.deadline_ms, a.read_ms), _left(b.deadline_ms, b.read_ms))
    return None


def without_expired_fields(fields: dict[bytes, Any], moment_ms: int, but: Iterable[bytes] = ()) -> dict[bytes, Any]:
    """A hash's fields less those that are due by `moment_ms`, except for `but`."""
    return {
        name: (text, deadline)
        for name, (text, deadline) in fields.items()
        if deadline is None or deadline > moment_ms or name in but
    }


def _same_deadline(a: int | None, b: int | None, tolerance: int) -> bool:
    return a == b if a is None or b is None else abs(a - b) <= tolerance


def _left(deadline_ms: int | None, now_ms: int) -> str:
    return "no expiry" if deadline_ms is None else f"{deadline_ms - now_ms} ms left (until {deadline_ms})"


def _two(a: Any, b: Any) -> str:
    return f"{_short(a)} on a, {_short(b)} on b"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"


_HLL_CACHE = slice(8, 16)  # "HYLL", encoding, 3 unused bytes, then the cached count, which PFCOUNT writes


def _compare_string(a: bytes, b: bytes, options: Options) -> str | None:
    if a.startswith(b"HYLL") and b.startswith(b"HYLL"):
        a, b = (value[:8] + value[_HLL_CACHE.stop :] for value in (a, b))
    if a == b:
        return None
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, at - 8)
    return f"differs at byte {at} ({len(a)} and {len(b)} bytes): {_two(a[start : at + 40], b[start : at + 40])}"


def _compare_sequence(a: Sequence[Any], b: Sequence[Any], options: Options) -> str | None:
    if a == b:
        return None
    absent = "nothing"
    at, x, y = next((i, x, y) for i, (x, y) in enumerate(zip_longest(a, b, fillvalue=absent)) if x != y)
    return f"differs at index {at} ({len(a)} and {len(b)} items): {_two(x, y)}"


def _compare_set(a: frozenset[bytes], b: frozenset[bytes], options: Options) -> str | None:
    return None if a == b else f"only on a: {_short(sorted(a - b))}, only on b: {_short(sorted(b - a))}"


def _compare_map(names: str, a: dict[Any, Any], b: dict[Any, Any], same: Callable[[Any, Any], bool]) -> str | None:
    if a.keys() != b.keys():
        return f"{names} {_compare_set(frozenset(a), frozenset(b), Options())}"
    for name, value in a.items():
        if not same(value, b[name]):
            return f"{names}: {name!r}: {_two(value, b[name])}"
    return None


def _compare_zset(a: dict[bytes, float], b: dict[bytes, float], options: Options) -> str | None:
    return _compare_map("members", a, b, lambda x, y: bool(x == y))


def _compare_hash(a: dict[bytes, Any], b: dict[bytes, Any], options: Options) -> str | None:
    def same(x: Any, y: Any) -> bool:
        return x[0] == y[0] and _same_deadline(x[1], y[1], options.ttl_tolerance_ms)

    return _compare_map("fields", a, b, same)


def _compare_dump(a: bytes, b: bytes, options: Options) -> str | None:
    # A type that only a module knows: its serialised form without version and checksum (10 bytes).
    return None if a[:-10] == b[:-10] else "differs in its DUMP"


_COUNTERS = ("entries-added", "max-deleted-entry-id")


def _compare_stream(a: dict[str, Any], b: dict[str, Any], options: Options) -> str | None:
    if (found := _compare_sequence(a["entries"], b["entries"], options)) is not None:
        return f"entries {found}"
    names = ["last-generated-id"]
    if options.stream_counters:
        names += [name for name in _COUNTERS if name in a and name in b]
    for name in names:
        if a[name] != b[name]:
            return f"{name}: {_two(a[name], b[name])}"
    groups_a, groups_b = (_groups(stream, options) for stream in (a, b))
    if groups_a.keys() != groups_b.keys():
        return f"groups: {_two(sorted(groups_a), sorted(groups_b))}"
    for group in groups_a:
        if (found := _compare_group(groups_a[group], groups_b[group], options)) is not None:
            return f"group {group!r}: {found}"
    return None


@dataclass(frozen=True, slots=True)
class Group:
    last_id: bytes
    read: tuple[int | None, ...]  # entries-read; () where the server does not have it (6.2)
    pending: dict[bytes, tuple[bytes, int]]  # id -> consumer, deliveries
    consumers: frozenset[bytes]


def _groups(stream: dict[str, Any], options: Options) -> dict[bytes, Group]:
    present = {entry[0] for entry in stream["entries"]}
    groups = {}
    for flat in stream["groups"]:
        group = {name.decode(): value for name, value in _pairs(flat).items()}
        pending = {
            ident: (consumer, deliveries)
            for ident, consumer, _, deliveries in group["pending" if "pending" in group else "pel"]
            if options.deleted_pending or ident in present
        }
        consumers = frozenset(_pairs(consumer)[b"name"] for consumer in group["consumers"])
        read = (group["entries-read"],) if "entries-read" in group else ()
        groups[group["name"]] = Group(group["last-delivered-id"], read, pending, consumers)
    return groups


def _compare_group(a: Group, b: Group, options: Options) -> str | None:
    if a.last_id != b.last_id:
        return f"last-delivered-id: {_two(a.last_id, b.last_id)}"
    if (found := _compare_map("pending entries", a.pending, b.pending, lambda x, y: bool(x == y))) is not None:
        return found
    if options.empty_consumers and a.consumers != b.consumers:
        return f"consumers {_compare_set(a.consumers, b.consumers, options)}"
    if options.stream_counters and options.entries_read and a.read and b.read and a.read != b.read:
        return f"entries-read: {_two(a.read[0], b.read[0])}"
    return None


_COMPARISONS: dict[str, Callable[[Any, Any, Options], str | None]] = {
    "string": _compare_string,
    "list": _compare_sequence,
    "set": _compare_set,
    "zset": _compare_zset,
    "hash": _compare_hash,
    "stream": _compare_stream,
}
