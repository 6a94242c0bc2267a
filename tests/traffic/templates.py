"""The commands that traffic is made of: literal lines with {placeholders}, by group. Pure data and how to fill it.

Only options of Redis 6.2 are used. Commands that a server does not know are left out when the traffic starts.
Families of hot keys are crossed on purpose now and then (RENAME, COPY): WRONGTYPE is a reply like any other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

FAMILIES = ("counter", "text", "bits", "list", "set", "zset", "hash", "stream", "geo", "hll", "queue", "zqueue")
GROUPS_OF_STREAMS = ("g1", "g2")

# group -> (weight, lines)
TEMPLATES: dict[str, tuple[int, str]] = {
    "strings": (
        12,
        """
        INCR {counter}
        DECRBY {counter} {int:0:9}
        INCRBYFLOAT {counter} {float}
        SET {counter} {int:0:1000}
        GETSET {counter} {int:0:9}
        APPEND {text} {short}
        SETRANGE {text} {int:0:200} {short}
        SET {text} {value}
        SET {text} {value} NX
        SET {text} {value} XX GET
        GETDEL {text}
        MSET {text} {value} {text} {value} {counter} {int:0:9}
        MSETNX {text} {short} {counter} {int:0:9}
        SETNX {text} {value}
        SETBIT {bits} {int:0:300} {int:0:1}
        BITFIELD {bits} INCRBY u8 {int:0:40} {int:-99:99} SET i16 #2 {int:-300:300} GET u4 0
        BITFIELD {bits} OVERFLOW FAIL INCRBY i5 7 {int:-9:9} OVERFLOW SAT INCRBY u3 90 {int:0:3}
        BITOP XOR {bits} {bits} {bits} {text}
        BITOP NOT {bits} {bits}
        PFADD {hll} {member} {int:0:999}
        PFMERGE {hll} {hll} {hll}
        GET {text}
        GETRANGE {text} 0 {int:-1:20}
        STRLEN {counter}
        """,
    ),
    "lists": (
        10,
        """
        LPUSH {list} {short} {member}
        RPUSH {list} {value}
        LPUSHX {list} {short}
        RPUSHX {list} {member}
        RPOP {list}
        LPOP {list} {int:1:3}
        LMOVE {list} {list} LEFT RIGHT
        RPOPLPUSH {list} {list}
        LTRIM {list} 0 {int:3:30}
        LINSERT {list} BEFORE {member} {short}
        LSET {list} {int:-2:4} {short}
        LREM {list} {int:-2:2} {member}
        SORT {list} ALPHA LIMIT 0 9 STORE {list}
        LMPOP 2 {list} {list} LEFT COUNT 2
        LRANGE {list} 0 {int:-1:9}
        LLEN {list}
        """,
    ),
    "sets": (
        8,
        """
        SADD {set} {member} {int:0:30}
        SADD {set} {int:0:30}
        SREM {set} {member} {int:0:30}
        SPOP {set}
        SPOP {set} {int:1:3}
        SMOVE {set} {set} {member}
        SUNIONSTORE {set} {set} {set}
        SINTERSTORE {set} {set} {set}
        SDIFFSTORE {set} {set} {set}
        SRANDMEMBER {set} 2
        SMEMBERS {set}
        """,
    ),
    "zsets": (
        8,
        """
        ZADD {zset} {float} {member} {float} {member}
        ZADD {zset} NX {float} {member}
        ZADD {zset} XX CH {float} {member}
        ZADD {zset} GT CH {float} {member}
        ZADD {zset} LT {float} {member}
        ZADD {zset} INCR {float} {member}
        ZADD {zset} +inf {member}
        ZINCRBY {zset} {float} {member}
        ZPOPMIN {zset}
        ZPOPMAX {zset} 2
        ZREM {zset} {member}
        ZREMRANGEBYRANK {zset} 0 {int:-9:2}
        ZREMRANGEBYSCORE {zset} -1 {float}
        ZUNIONSTORE {zset} 2 {zset} {set} WEIGHTS 1 {int:1:3} AGGREGATE MAX
        ZINTERSTORE {zset} 2 {zset} {zset}
        ZDIFFSTORE {zset} 2 {zset} {zset}
        ZRANGESTORE {zset} {zset} 0 {int:1:9}
        ZMPOP 2 {zset} {zset} MAX
        GEOADD {geo} {int:-170:170} {int:-80:80} {member}
        GEOSEARCHSTORE {geo} {geo} FROMLONLAT 0 0 BYRADIUS 9000 km
        ZRANGE {zset} 0 -1 WITHSCORES
        ZSCORE {zset} {member}
        """,
    ),
    "hashes": (
        8,
        """
        HSET {hash} {member} {value} {member} {short}
        HSETNX {hash} {member} {short}
        HINCRBY {hash} n{int:0:2} {int:-9:9}
        HINCRBYFLOAT {hash} n{int:0:2} {float}
        HDEL {hash} {member} n{int:0:2}
        HMSET {hash} {member} {short}
        HPEXPIRE {hash} {int:20:5000} FIELDS 1 {member}
        HPERSIST {hash} FIELDS 1 {member}
        HGETALL {hash}
        HMGET {hash} {member} n1
        HRANDFIELD {hash} 1
        """,
    ),
    "streams": (
        14,
        """
        XADD {stream} * f {short} g {member}
        XADD {stream} MAXLEN = {int:5:40} * f {value}
        XADD {stream} MAXLEN ~ {int:5:40} * f {value}
        XADD {stream} NOMKSTREAM MINID = {id} * f {short}
        XADD {stream} 99-{int:1:99} f {short}
        XTRIM {stream} MAXLEN {int:5:40}
        XDEL {stream} {id} {id}
        XGROUP CREATE {stream} {group} 0 MKSTREAM
        XGROUP CREATE {stream} {group} $ MKSTREAM
        XGROUP CREATECONSUMER {stream} {group} {consumer}
        XGROUP DELCONSUMER {stream} {group} {consumer}
        XGROUP SETID {stream} {group} {id}
        XGROUP DESTROY {stream} g2
        XREADGROUP GROUP {group} {consumer} COUNT {int:1:5} STREAMS {stream} >
        XREADGROUP GROUP {group} {consumer} COUNT {int:1:5} STREAMS {stream} >
        XREADGROUP GROUP {group} {consumer} COUNT 2 NOACK STREAMS {stream} >
        XREADGROUP GROUP {group} {consumer} COUNT 5 STREAMS {stream} 0
        XACK {stream} {group} {id} {id} {id}
        XACK {stream} {group} {id}
        XCLAIM {stream} {group} {consumer} 0 {id} {id}
        XCLAIM {stream} {group} {consumer} 0 {id} JUSTID
        XAUTOCLAIM {stream} {group} {consumer} 0 0-0 COUNT {int:1:5}
        XAUTOCLAIM {stream} {group} {consumer} 0 {id} COUNT 3 JUSTID
        XRANGE {stream} - + COUNT 5
        XPENDING {stream} {group}
        """,
    ),
    "expiry": (
        9,
        """
        SET {text} {short} EX {int:1:3}
        SET {text} {short} PX {int:1:400}
        SET {counter} 5 PX {int:1:60}
        SET {text} {short} KEEPTTL
        SETEX {text} 1 {short}
        PSETEX {counter} {int:1:300} 7
        GETEX {text} PX {int:1:400}
        GETEX {text} PERSIST
        EXPIRE {any} {int:1:3}
        PEXPIRE {any} {int:1:500}
        PEXPIRE {any} {int:1:60}
        EXPIRE {any} {int:-1:0}
        EXPIREAT {any} 4102444800
        PEXPIREAT {any} 1
        PERSIST {any}
        PERSIST {any}
        PTTL {any}
        """,
    ),
    "keys": (
        6,
        """
        RENAME {text} {text}
        RENAME {list} {list}
        RENAMENX {zset} {zset}
        RENAME {any} {any}
        COPY {hash} {hash} REPLACE
        COPY {stream} {stream} REPLACE
        COPY {any} {any}
        COPY {any} {any} DB {otherdb} REPLACE
        MOVE {any} {otherdb}
        DEL {any} {any}
        DEL {any}
        UNLINK {any} {any}
        TOUCH {any}
        EXISTS {any} {any}
        TYPE {any}
        SCAN 0 COUNT 10
        PUBLISH channel {short}
        """,
    ),
    "blocking": (
        10,
        """
        BLPOP {queue} {queue} {wait}
        BRPOP {queue} {wait}
        BLMOVE {queue} {list} LEFT RIGHT {wait}
        BRPOPLPUSH {queue} {queue} {wait}
        BZPOPMIN {zqueue} {zset} {wait}
        BZPOPMAX {zqueue} {wait}
        BLMPOP {wait} 2 {queue} {list} LEFT COUNT 2
        BZMPOP {wait} 2 {zqueue} {zqueue} MIN
        XREAD COUNT 2 BLOCK {int:10:150} STREAMS {stream} $
        XREADGROUP GROUP {group} {consumer} COUNT 2 BLOCK {int:10:150} STREAMS {stream} >
        RPUSH {queue} {short}
        RPUSH {queue} {short} {short}
        LPUSH {queue} {short}
        RPUSH {queue} {short}
        LMOVE {list} {queue} LEFT LEFT
        ZADD {zqueue} {float} {member}
        ZADD {zqueue} {float} {member} {float} {member}
        """,
    ),
}

# Scripts write declared keys only. The last three fail half-way, after a write.
SCRIPTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("return redis.call('INCR', KEYS[1])", ("counter",)),
    ("redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LLEN', KEYS[1])", ("list",)),
    (
        "local t = redis.call('TIME') redis.call('SET', KEYS[1], t[1] .. t[2]) "
        "return redis.call('HSET', KEYS[2], 'at', t[2])",
        ("text", "hash"),
    ),
    ("return {redis.call('SPOP', KEYS[1]), redis.call('SADD', KEYS[2], ARGV[1])}", ("set", "set")),
    (
        "redis.call('SET', KEYS[1], ARGV[1], 'PX', 50) return redis.call('XADD', KEYS[2], '*', 'f', ARGV[1])",
        ("text", "stream"),
    ),
    ("return redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])", ("zset",)),
    ("redis.call('INCR', KEYS[1]) error('deliberate')", ("counter",)),
    ("redis.call('SADD', KEYS[1], ARGV[1]) return redis.error_reply('ERR deliberate')", ("set",)),
    ("redis.call('APPEND', KEYS[1], ARGV[1]) return redis.call('LPUSH', KEYS[1], 'deliberate')", ("text",)),
)

# Parts of errors that hot keys and crossed types give by right. Anything else is a finding.
EXPECTED_ERRORS = (
    "WRONGTYPE",
    "NOGROUP",
    "BUSYGROUP",
    "deliberate",
    "no such key",
    "not an integer",
    "not a valid float",
    "not a float",
    "would overflow",
    "would produce NaN or Infinity",
    "resulting score is not a number",
    "index out of range",
    "can't be converted into double",
    "requires the key to exist",
    "equal or smaller than the target stream top item",
    "smaller than the target stream",
    "source and destination objects are the same",
    "UNBLOCKED the stream key no longer exists",  # a waiting XREADGROUP whose stream was deleted (7.0)
)


@dataclass(slots=True)
class Filler:
    """Fills placeholders for one client: its random numbers, its hot keys, ids it has seen."""

    rng: Random
    prefix: str = ""
    hot: int = 3  # keys in each family
    db: int = 0
    dbs: tuple[int, ...] = (0, 1)
    consumer: str = "c0"
    ids: deque[bytes] = field(default_factory=lambda: deque([b"1-1"], maxlen=30))

    def key(self, family: str) -> bytes:
        number = self.rng.randrange(self.hot)
        # The last one of each family is binary, to catch whoever splits, decodes or prints keys.
        suffix = b"\xff\x00\r\n" if number == self.hot - 1 else b""
        return f"{self.prefix}{family}:{number}".encode() + suffix

    def fill(self, parts: Template) -> list[bytes]:
        return [part if isinstance(part, bytes) else part(self) for part in parts]

    def short(self) -> bytes:
        return b"%d" % self.rng.randrange(1000)

    def value(self) -> bytes:
        dice = self.rng.random()
        if dice < 0.7:
            return self.short()
        return self.rng.randbytes(self.rng.randrange(200 if dice < 0.99 else 40_000))

    def number(self, low: int, high: int) -> bytes:
        return b"%d" % self.rng.randint(low, high)

    def real(self) -> bytes:
        return f"{self.rng.uniform(-50, 50):.{self.rng.randrange(8)}f}".encode()

    def other_db(self) -> bytes:
        return b"%d" % self.rng.choice([db for db in self.dbs if db != self.db] or [self.db + 1])


Part = bytes | Callable[[Filler], bytes]
Template = tuple[Part, ...]

_PLACEHOLDERS: dict[str, Callable[[Filler], bytes]] = {
    "any": lambda f: f.key(f.rng.choice(FAMILIES)),
    "short": Filler.short,
    "value": Filler.value,
    "float": Filler.real,
    "member": lambda f: b"m%d" % f.rng.randrange(10),
    "group": lambda f: f.rng.choice(GROUPS_OF_STREAMS).encode(),
    "consumer": lambda f: f.consumer.encode() if f.rng.random() < 0.7 else b"shared",
    "id": lambda f: f.rng.choice(f.ids),
    "wait": lambda f: f"{f.rng.uniform(0.01, 0.15):.3f}".encode(),
    "otherdb": Filler.other_db,
}


def _part(word: str) -> Part:
    before, brace, inner = word.partition("{")
    if not brace:
        return word.encode()
    name, *numbers = inner.rstrip("}").split(":")
    if name in FAMILIES:
        return lambda filler: filler.key(name)
    if name == "int":
        low, high = map(int, numbers)
        return lambda filler: before.encode() + filler.number(low, high)
    return _PLACEHOLDERS[name]


def parse(lines: str) -> list[Template]:
    return [tuple(_part(word) for word in line.split()) for line in lines.split("\n") if line.strip()]
