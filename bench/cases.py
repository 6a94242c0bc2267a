"""What is measured: the workloads, their data, and the two matrices (quick, full).

Owns the commands as text. Knows nothing of processes, sockets or clocks.

Each peer works on keys of its own (`{p}` is its prefix). If two peers wrote the same keys, a mirroring proxy would see
the other's writes as differences between the two sides and repair them: work that no real deployment has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

RANDOM = "__rand_int__"  # redis-benchmark replaces each occurrence by 12 digits
STRING_KEYS = 10_000
BIG_VALUE_KEYS = 100  # a 64 KB value: 6.4 MB per peer and side
BIG_VALUE_BYTES = 16 * 1024
COLLECTION_KEYS = 1_000
RANGE_KEYS = 100


@dataclass(frozen=True, slots=True)
class Workload:
    """One command as redis-benchmark sends it, and the data it finds.

    `fill` creates key number `{n}` before the measurement: the steady state is measured, not the creation of keys.
    `read` is what compares the key on both sides afterwards.
    """

    name: str
    family: str
    command: tuple[str, ...]
    fill: tuple[str, ...]
    read: tuple[str, ...]
    keys: int
    writes: bool

    def __repr__(self) -> str:
        return f"<Workload {self.name}>"


@dataclass(frozen=True, slots=True)
class Case:
    """A workload at one value size (bytes), pipeline depth and number of clients."""

    workload: Workload
    size: int = 64
    pipeline: int = 1
    clients: int = 50

    @property
    def label(self) -> str:
        return f"{self.workload.name} {self.size} B, P{self.pipeline}, {self.clients} clients"

    @property
    def keys(self) -> int:
        return min(self.workload.keys, BIG_VALUE_KEYS) if self.size >= BIG_VALUE_BYTES else self.workload.keys

    @property
    def dataset(self) -> tuple[str, int]:
        """Cases with the same data set follow each other without a new fill."""
        return self.workload.family, self.size

    def command(self, prefix: str) -> list[str]:
        data = "x" * self.size
        return [part.format(p=prefix, data=data) for part in self.workload.command]

    def fills(self, prefix: str) -> Iterator[list[bytes]]:
        data = "x" * self.size
        for n in range(self.keys):
            yield [part.format(p=prefix, data=data, n=f"{n:012d}").encode() for part in self.workload.fill]

    def keys_of(self, prefix: str) -> list[bytes]:
        key = self.workload.fill[1]
        return [key.format(p=prefix, n=f"{n:012d}").encode() for n in range(self.keys)]


def _workload(
    name: str, family: str, command: tuple[str, ...], fill: tuple[str, ...], read: tuple[str, ...], keys: int
) -> Workload:
    return Workload(name, family, command, fill, read, keys, writes=name.split()[0] not in {"GET", "MGET", "LRANGE"})


_S, _R = f"{{p}}:s:{RANDOM}", f"{{p}}:r:{RANDOM}"
_STRING = (("SET", "{p}:s:{n}", "{data}"), ("GET",), STRING_KEYS)
_LIST = (("RPUSH", "{p}:l:{n}", "{data}"), ("LRANGE", "0", "-1"), COLLECTION_KEYS)
_RANGE = (("RPUSH", "{p}:r:{n}", *["{data}"] * 100), ("LRANGE", "0", "-1"), RANGE_KEYS)
_HASH = (("HSET", "{p}:h:{n}", "first", "{data}"), ("HGETALL",), COLLECTION_KEYS)
_ZSET = (("ZADD", "{p}:z:{n}", "1", "first"), ("ZRANGE", "0", "-1", "WITHSCORES"), COLLECTION_KEYS)
_COUNT = (("SET", "{p}:i:{n}", "0"), ("GET",), STRING_KEYS)

WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        _workload("SET", "string", ("SET", _S, "{data}"), *_STRING),
        _workload("GET", "string", ("GET", _S), *_STRING),
        _workload("MSET 10", "string", ("MSET", *(_S, "{data}") * 10), *_STRING),
        _workload("MGET 10", "string", ("MGET", *(_S,) * 10), *_STRING),
        _workload("INCR", "count", ("INCR", f"{{p}}:i:{RANDOM}"), *_COUNT),
        _workload("LPUSH", "list", ("LPUSH", f"{{p}}:l:{RANDOM}", "{data}"), *_LIST),
        _workload("LRANGE 100", "range", ("LRANGE", _R, "0", "99"), *_RANGE),
        _workload("HSET", "hash", ("HSET", f"{{p}}:h:{RANDOM}", f"field:{RANDOM}", "{data}"), *_HASH),
        _workload("ZADD", "zset", ("ZADD", f"{{p}}:z:{RANDOM}", RANDOM, f"member:{RANDOM}"), *_ZSET),
    )
}


def quick() -> list[Case]:
    return [Case(WORKLOADS[name], pipeline=p) for p in (1, 16) for name in ("SET", "GET")]


def full() -> list[Case]:
    """A star, not the whole product: every command by pipeline depth, then SET and GET by value size and by clients.

    The product (9 commands, 3 sizes, 3 depths, 3 client counts) would take an hour and say little more. 64 KB values
    stop at P16: 50 clients times P64 would be 200 MB in flight, a test of buffers.
    """
    commands = [Case(w, pipeline=p) for w in WORKLOADS.values() for p in (1, 16, 64)]
    pair = [WORKLOADS["SET"], WORKLOADS["GET"]]
    clients = [Case(w, pipeline=p, clients=c) for c in (1, 500) for w in pair for p in (1, 16)]
    sizes = [Case(w, size=s, pipeline=p) for s in (1024, 65536) for w in pair for p in (1, 16)]
    cases = commands + clients + sizes
    return sorted(cases, key=lambda case: [c.dataset for c in cases].index(case.dataset))
