"""The demo's data set: the keys of a small web shop, of every type, in two dbs.

Owns which kinds of key there are, how many of each, and the commands that make them. Pure: a seed gives the same data
each time; who sends the commands is somebody else's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

Command = list[bytes]

DEFAULT_KEYS = 50_000
FULL_SIZE_KEYS = 40_000  # a data set with fewer keys has smaller big keys as well
SHORT_LIVES = 0.03  # of the sessions expire while the demo runs, on both servers
SHORT_LIFE_MS = (2_000, 60_000)
BIG_ELEMENTS = 30_000
CHUNK = 500  # elements a command: a big key is not written in one go
SHOP, CACHE = 0, 1  # the dbs

_WORDS = b"amber basil cedar delta ember fjord grove heron inlet jetty knoll lemon maple north ochre pearl".split()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of key. `make(random, number)` gives the commands for one key of it."""

    label: str
    db: int
    share: float  # of all keys
    make: Callable[[Random, int], Iterable[Command]]


def total(keys: int) -> int:
    """How many keys `make` makes of a wish for `keys`."""
    return sum(_count(kind, keys) for kind in KINDS) + len(BIG)


def make(keys: int, seed: int = 1) -> Iterator[tuple[int, int, Command]]:
    """(keys begun so far, db, command): about `keys` keys and a few big ones; the kinds come one after the other."""
    random = Random(seed)
    begun = 0
    for kind in KINDS:
        for number in range(_count(kind, keys)):
            begun += 1
            for command in kind.make(random, number):
                yield begun, kind.db, command
    size = min(1.0, keys / FULL_SIZE_KEYS)
    for big in BIG:
        begun += 1
        for command in big(random, size):
            yield begun, SHOP, command


def _count(kind: Kind, keys: int) -> int:
    return max(1, int(keys * kind.share))


def _words(random: Random, count: int) -> bytes:
    return b" ".join(random.choices(_WORDS, k=count))


def _expire(key: bytes, random: Random, low_s: int, high_s: int) -> Command:
    return [b"PEXPIRE", key, b"%d" % random.randrange(low_s * 1000, high_s * 1000)]


# -- kinds -------------------------------------------------------------------------------------------------------------


def _session(random: Random, number: int) -> Iterator[Command]:
    life = (1_200_000, 3_600_000) if random.random() > SHORT_LIVES else SHORT_LIFE_MS
    value = b'{"user": %d, "since": %d, "agent": "%b"}' % (
        random.randrange(10**6),
        random.randrange(10**9),
        _words(random, 6),
    )
    yield [b"SET", b"session:%08x" % number, value, b"PX", b"%d" % random.randrange(*life)]


def _profile(random: Random, number: int) -> Iterator[Command]:
    key = b"user:%d" % number
    yield [
        b"HSET",
        key,
        b"name",
        _words(random, 2),
        b"orders",
        b"%d" % random.randrange(100),
        b"city",
        _words(random, 1),
    ]


def _cart(random: Random, number: int) -> Iterator[Command]:
    key = b"cart:%d" % number
    items: Command = []
    for _ in range(random.randrange(1, 6)):
        items += [b"item:%d" % random.randrange(5000), b"%d" % random.randrange(1, 5)]
    yield [b"HSET", key, *items]
    yield _expire(key, random, 3600, 7 * 24 * 3600)


def _views(random: Random, number: int) -> Iterator[Command]:
    yield [b"SET", b"views:%d" % number, b"%d" % random.randrange(10**6)]


def _tags(random: Random, number: int) -> Iterator[Command]:
    yield [b"SADD", b"tags:%d" % number, *random.choices(_WORDS, k=random.randrange(1, 7))]


def _followers(random: Random, number: int) -> Iterator[Command]:
    yield [
        b"SADD",
        b"followers:%d" % number,
        *(b"%d" % random.randrange(10**5) for _ in range(random.randrange(1, 30))),
    ]


def _leaderboard(random: Random, number: int) -> Iterator[Command]:
    scores: Command = []
    for _ in range(random.randrange(5, 40)):
        scores += [repr(round(random.uniform(0, 1e4), 3)).encode(), b"player:%d" % random.randrange(10**5)]
    yield [b"ZADD", b"leaderboard:%d" % number, *scores]


def _shops(random: Random, number: int) -> Iterator[Command]:
    places: Command = []
    for shop in range(random.randrange(1, 6)):
        places += [b"%.6f" % random.uniform(-180, 180), b"%.6f" % random.uniform(-80, 80), b"shop:%d" % shop]
    yield [b"GEOADD", b"shops:%d" % number, *places]


def _queue(random: Random, number: int) -> Iterator[Command]:
    jobs = [
        b'{"job": %d, "for": "%b"}' % (random.randrange(10**6), _words(random, 1))
        for _ in range(random.randrange(1, 15))
    ]
    yield [b"RPUSH", b"queue:%d" % number, *jobs]


def _feed(random: Random, number: int) -> Iterator[Command]:
    """A stream that two consumers of a group read: some entries are acknowledged, some pending, some not delivered."""
    key = b"feed:%d" % number
    count = random.randrange(2, 8)
    for entry in range(count):
        yield [
            b"XADD",
            key,
            b"%d-%d" % (1_700_000_000_000 + entry, number),
            b"text",
            _words(random, 4),
            b"n",
            b"%d" % entry,
        ]
    yield [b"XGROUP", b"CREATE", key, b"readers", b"0"]
    for consumer in (b"mobile", b"web"):
        yield [b"XREADGROUP", b"GROUP", b"readers", consumer, b"COUNT", b"1", b"STREAMS", key, b">"]
    if count > 4:
        yield [b"XACK", key, b"readers", b"%d-%d" % (1_700_000_000_000, number)]


def _visitors(random: Random, number: int) -> Iterator[Command]:
    people = (b"visitor:%d" % random.randrange(10**6) for _ in range(random.randrange(5, 60)))
    yield [b"PFADD", b"visitors:%d" % number, *people]


def _active(random: Random, number: int) -> Iterator[Command]:
    key = b"active:%d" % number
    for _ in range(3):
        yield [b"SETBIT", key, b"%d" % random.randrange(4000), b"1"]


def _fragment(random: Random, number: int) -> Iterator[Command]:
    life = (600_000, 7_200_000) if random.random() > SHORT_LIVES else SHORT_LIFE_MS
    page = b"<li>%b</li>" % _words(random, random.randrange(4, 40))
    yield [b"SET", b"fragment:%d" % number, page, b"PX", b"%d" % random.randrange(*life)]


def _limit(random: Random, number: int) -> Iterator[Command]:
    key = b"limit:%d" % number
    yield [b"INCRBY", key, b"%d" % random.randrange(1, 100)]
    yield _expire(key, random, 600, 3600)


KINDS = (
    Kind("sessions", SHOP, 0.28, _session),
    Kind("profiles", SHOP, 0.14, _profile),
    Kind("carts", SHOP, 0.12, _cart),
    Kind("page counters", SHOP, 0.10, _views),
    Kind("tags", SHOP, 0.04, _tags),
    Kind("followers", SHOP, 0.03, _followers),
    Kind("leaderboards", SHOP, 0.03, _leaderboard),
    Kind("shop locations", SHOP, 0.01, _shops),
    Kind("queues", SHOP, 0.05, _queue),
    Kind("feeds", SHOP, 0.03, _feed),
    Kind("visitor estimates", SHOP, 0.02, _visitors),
    Kind("activity bitmaps", SHOP, 0.01, _active),
    Kind("page fragments", CACHE, 0.09, _fragment),
    Kind("rate limits", CACHE, 0.05, _limit),
)


# -- a few keys of some MB: `size` 1.0 is all of it ------------------------------------------------------------------


def _catalogue(random: Random, size: float) -> Iterator[Command]:
    return _grow(b"HSET", b"big:catalogue", ([b"item:%d" % n, _words(random, 12)] for n in _range(size)))


def _scores(random: Random, size: float) -> Iterator[Command]:
    scores = ([repr(random.uniform(0, 1e6)).encode(), b"player:%d" % n] for n in _range(size))
    return _grow(b"ZADD", b"big:leaderboard", scores)


def _audit(random: Random, size: float) -> Iterator[Command]:
    return _grow(b"RPUSH", b"big:audit", ([b"%d %b" % (n, _words(random, 12))] for n in _range(size)))


def _subscribers(random: Random, size: float) -> Iterator[Command]:
    return _grow(b"SADD", b"big:subscribers", ([b"subscriber:%d@%b" % (n, _words(random, 1))] for n in _range(size)))


def _export(random: Random, size: float) -> Iterator[Command]:
    yield [b"SET", b"big:export", random.randbytes(max(10_000, int(4_000_000 * size)))]


BIG = (_catalogue, _scores, _audit, _subscribers, _export)


def _range(size: float) -> range:
    return range(max(100, int(BIG_ELEMENTS * size)))


def _grow(name: bytes, key: bytes, elements: Iterable[Command]) -> Iterator[Command]:
    command: Command = [name, key]
    for count, element in enumerate(elements, 1):
        command += element
        if count % CHUNK == 0:
            yield command
            command = [name, key]
    if len(command) > 2:
        yield command
