"""Random commands on one real server, their effects on another, both compared after each.

One client and one clock: what the rules say is tested, not concurrency or skew. A reply on the mirror side that is not
the expected one is repaired as the proxy would do it, and counted: only a mirror side that is older, or of another
vendor, may refuse something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.integration.effects_pair import Pair
from tests.servers import Pool, Server

COMMANDS = 1800
PAIRS = [
    ("redis-6.2", "valkey-9.1"),
    ("redis-6.2", "redis-8.2"),
    ("redis-7.0", "redis-8.2"),
    ("redis-8.2", "valkey-9.1"),
    ("valkey-8.1", "valkey-9.1"),
    ("valkey-9.1", "redis-6.2"),
    ("redis-8.2", "redis-7.0"),
    ("redis-8.2", "redis-8.2"),
    ("valkey-9.1", "valkey-9.1"),
]


@pytest.fixture
def pair(request: pytest.FixtureRequest, server_pool: Pool, start_server: Callable[..., Server]) -> Iterator[Pair]:
    serving, mirror = request.param
    a = server_pool.get(serving)
    b = server_pool.get(mirror) if mirror != serving else start_server(mirror)
    with closing(Pair(a, b, seed=1)) as pair:
        yield pair


@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join, indirect=True)
def test_both_sides_stay_equal(pair: Pair) -> None:
    pair.run(COMMANDS)
    pair.run(COMMANDS // 3, ["streams", "groups", "groups"])  # undisturbed by deletions
    assert pair.effects > COMMANDS / 5
    assert not pair.unexplained(), "\n".join(pair.unexplained()[:10])


# What random commands seldom hit. Each line is one command; the number of effects there are is in front.
RARE = {
    "DELIFEQ": (
        "SET k v|DELIFEQ k w|DELIFEQ k v|SET k v|SET k w IFEQ v GET EX 100|SET k x IFEQ v GET",
        4,
        [("valkey-9.1", "valkey-9.1"), ("valkey-9.1", "redis-6.2")],
    ),
    "MSETEX": (
        "MSETEX 2 k v l w PX 90000|MSETEX 1 k x KEEPTTL|MSETEX 2 k y m y NX",
        2,
        [("valkey-9.1", "valkey-9.1"), ("valkey-9.1", "redis-6.2")],
    ),
    "VSETATTR": (
        'VADD k VALUES 2 1 1 e|VSETATTR k e {"a":1}|VADD k VALUES 2 0 1 e|VSETATTR k f {}|VREM k e',
        4,
        [("redis-8.2", "redis-8.2")],
    ),
    "scripts": (
        "SCRIPT LOAD return(1)|EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0|"
        "EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 k v|EVALSHA f89a1fd4f8e5e3d1d4a3f3c6d1b8f2 1 k|PUBLISH c m",
        4,
        [("redis-6.2", "valkey-9.1"), ("redis-8.2", "redis-7.0")],
    ),
    "PFDEBUG": (
        "PFADD k a b c|PFDEBUG ENCODING k|PFDEBUG TODENSE k|PFCOUNT k|PFADD k a|PFCOUNT k",
        4,
        [("redis-6.2", "valkey-9.1"), ("redis-7.0", "redis-8.2")],
    ),
    "field deadlines": (
        "HSET k f 1 g 2 h 3|HPEXPIRE k 90000 FIELDS 2 f g|HINCRBYFLOAT k f 0.5|HINCRBY k g 5|HSETNX k i 0|"
        "HPERSIST k FIELDS 1 f|HGETEX k EX 100 FIELDS 3 f h zz|HGETDEL k FIELDS 2 h zz|HEXPIRE k 0 FIELDS 1 g",
        9,
        [("redis-8.2", "redis-8.2"), ("valkey-9.1", "valkey-9.1"), ("redis-8.2", "valkey-9.1")],
    ),
}


@pytest.mark.parametrize(
    ("pair", "script", "effects"),
    [(pair, script, effects) for script, effects, pairs in RARE.values() for pair in pairs],
    ids=["-".join((name, *pair)) for name, (_, _, pairs) in RARE.items() for pair in pairs],
    indirect=["pair"],
)
def test_rare_ones(pair: Pair, script: str, effects: int) -> None:
    for line in script.split("|"):
        pair.step(line.encode().split())
    pair.compare_all()
    assert pair.effects == effects
    assert not pair.differed
