"""Big keys are copied in pages while clients write to them, and are equal in the end.

The thresholds are made small here, so that keys of some 100 KB have dozens of pages. What is measured is the largest
reply that the lane had to carry for a copy, for that is what a client's command may have to wait for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import redis
import trio

from proxy import verifying_pages
from proxy.bigkeys import pages, texts
from proxy.filling import Filling, Plan
from tests.inprocess import Client, InProcess, in_process, until
from tests.servers import Pool, Server

PAGE = 4096
BIG = 32 * 1024
PAIRS = [("redis-6.2", "valkey-9.1"), ("redis-8.2", "redis-6.2"), ("redis-8.2", "valkey-9.1")]

Words = list[bytes]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES", PAGE)
    monkeypatch.setattr(texts, "PAGE_BYTES", PAGE)
    monkeypatch.setattr(verifying_pages, "PAGE_BYTES", PAGE)


@asynccontextmanager
async def proxy_for_big_keys(a: Server, b: Server, *, watch: bool = False) -> AsyncIterator[InProcess]:
    async with in_process(a, b, backfilled=False, watch=watch) as running:
        running.hub.repair.big_bytes = BIG
        yield running


# -- what is there, and what is done to it -----------------------------------------------------------------------------


def member(rng: Random, count: int) -> bytes:
    return b"member:%07d" % rng.randrange(count)


def fill(client: redis.Redis, kind: str, key: str, count: int) -> None:
    rng = Random(count)
    pipe = client.pipeline(transaction=False)
    for start in range(0, count, 1000):
        part = [b"member:%07d" % number for number in range(start, min(start + 1000, count))]
        if kind == "hash":
            pipe.hset(key, mapping={name: rng.randrange(1000) for name in part})
        elif kind == "set":
            pipe.sadd(key, *part)
        elif kind == "zset":
            pipe.zadd(key, {name: rng.randrange(1000) / 10 for name in part})
        elif kind == "list":
            pipe.rpush(key, *part)
        elif kind == "stream":
            for name in part:
                pipe.xadd(key, {"name": name})
        else:
            pipe.append(key, b"".join(part))
        if start % 20_000 == 0:
            pipe.execute()
    if kind == "stream":
        pipe.xgroup_create(key, "g", "0")
        pipe.xreadgroup("g", "early", {key: ">"}, count=50)
        pipe.xtrim(key, maxlen=count - 20, approximate=False)  # pending, and gone
    pipe.execute()


def hash_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    yield [b"HSET", key, member(rng, count * 2), b"%d" % rng.randrange(1000)]
    yield [b"HMSET", key, member(rng, count * 2), b"1", member(rng, count), b"2"]
    yield [b"HDEL", key, member(rng, count), member(rng, count)]
    yield [b"HINCRBY", key, member(rng, count), b"%d" % rng.randrange(-5, 5)]
    yield [b"HINCRBYFLOAT", key, member(rng, count), b"0.25"]
    yield [b"HSETNX", key, member(rng, count * 2), b"7"]


def field_time_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    yield [b"HPEXPIRE", key, b"600000", b"FIELDS", b"1", member(rng, count)]
    yield [b"HPERSIST", key, b"FIELDS", b"2", member(rng, count), member(rng, count)]
    yield [b"HSETEX", key, b"EX", b"500", b"FIELDS", b"1", member(rng, count), b"5"]
    yield [b"HGETEX", key, b"EX", b"700", b"FIELDS", b"1", member(rng, count)]
    yield [b"HGETDEL", key, b"FIELDS", b"1", member(rng, count)]
    yield [b"HEXPIRE", key, b"0", b"FIELDS", b"1", member(rng, count)]


def timed_hash_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    yield from hash_calls(rng, key, count)
    yield from field_time_calls(rng, key, count)


def set_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    yield [b"SADD", key, member(rng, count * 2), member(rng, count)]
    yield [b"SREM", key, member(rng, count)]
    yield [b"SPOP", key]
    yield [b"SPOP", key, b"3"]
    yield [b"SMOVE", key, b"small:set", member(rng, count)]
    yield [b"SMOVE", b"small:set", key, member(rng, count)]


def zset_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    score = b"%d" % rng.randrange(1000)
    yield [b"ZADD", key, score, member(rng, count * 2), score, member(rng, count)]
    yield [b"ZADD", key, rng.choice([b"GT", b"LT", b"XX", b"NX"]), b"CH", score, member(rng, count)]
    yield [b"ZADD", key, b"INCR", b"1.5", member(rng, count)]
    yield [b"ZINCRBY", key, b"0.1", member(rng, count)]
    yield [b"ZREM", key, member(rng, count)]
    yield [b"ZPOPMIN", key]
    yield [b"ZPOPMAX", key, b"2"]
    yield [b"ZREMRANGEBYSCORE", key, score, score]
    low = rng.choice([0, 5, -7])
    yield [b"ZREMRANGEBYRANK", key, b"%d" % low, b"%d" % (low + rng.randrange(3))]
    yield [b"ZREMRANGEBYRANK", key, b"0", b"%d" % -count]  # the cap of a leader board
    yield [b"GEOADD", key, b"13.4", b"52.5", member(rng, count)]


def list_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    yield [b"LPUSH", key, b"left", b"left2"]
    yield [b"RPUSH", key, b"right"]
    yield [b"LPUSHX", key, b"leftx"]
    yield [b"RPUSHX", key, b"rightx"]
    yield [b"LPOP", key]
    yield [b"LPOP", key, b"3"]
    yield [b"RPOP", key, b"2"]
    yield [b"RPOP", key]
    yield [b"LREM", key, rng.choice([b"1", b"-2", b"0"]), rng.choice([b"left", b"right", b"set", member(rng, count)])]
    yield [b"LINSERT", key, rng.choice([b"BEFORE", b"AFTER"]), rng.choice([b"left", member(rng, count)]), b"inserted"]
    yield [b"LSET", key, b"%d" % rng.randrange(-100, count), b"set"]
    yield [b"LTRIM", key, b"1", b"-2"]
    yield [b"LMOVE", key, key, b"LEFT", b"RIGHT"]
    yield [b"LMOVE", key, b"small:list", b"RIGHT", b"LEFT"]
    yield [b"RPOPLPUSH", b"small:list", key]


def stream_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    yield [b"XADD", key, b"*", b"name", b"new"]
    yield [b"XADD", key, b"MAXLEN", b"~", b"%d" % (count - 10), b"*", b"name", b"trims"]
    yield [b"XTRIM", key, b"MAXLEN", b"%d" % (count - 5)]
    yield [b"XREADGROUP", b"GROUP", b"g", b"alice", b"COUNT", b"3", b"STREAMS", key, b">"]
    yield [b"XREADGROUP", b"GROUP", b"g2", b"bob", b"COUNT", b"5", b"STREAMS", key, b">"]
    yield [b"XGROUP", b"CREATE", key, b"g2", b"0"]


def claiming_stream_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    """On 6.2 a claim of an entry that is deleted leads to another copy, every time."""
    yield from stream_calls(rng, key, count)
    yield [b"XAUTOCLAIM", key, b"g", b"carol", b"0", b"0", b"COUNT", b"2"]


def string_calls(rng: Random, key: bytes, count: int) -> Iterator[Words]:
    size = count * len(b"member:0000000")
    yield [b"APPEND", key, b"appended"]
    yield [b"SETRANGE", key, b"%d" % rng.randrange(size), b"range"]
    yield [b"SETBIT", key, b"%d" % rng.randrange(size * 8), b"1"]
    yield [b"BITFIELD", key, b"INCRBY", b"u16", b"#%d" % rng.randrange(size // 2), b"7", b"GET", b"u8", b"0"]


Calls = Callable[[Random, bytes, int], Iterator[Words]]
CALLS: dict[str, Calls] = {
    "hash": hash_calls,
    "set": set_calls,
    "zset": zset_calls,
    "list": list_calls,
    "stream": stream_calls,
    "string": string_calls,
}


NEWER = {"hash": timed_hash_calls, "stream": claiming_stream_calls}  # what an older server does not know


async def write(
    client: Client, calls_of: Calls, key: bytes, count: int, seed: int, stop: Callable[[], bool], pause: float = 0.0
) -> None:
    """Every call of this type, again and again; now and then with the deadline changed, or in a transaction."""
    rng = Random(seed)
    while not stop():
        calls = list(calls_of(rng, key, count))
        rng.shuffle(calls)
        calls = calls[:4]
        if calls_of in (stream_calls, claiming_stream_calls):
            calls.append([b"XDEL", key, b"%d-0" % rng.randrange(10)])
        dice = rng.random()
        if dice < 0.1:
            calls = [[b"MULTI"], *calls, [b"EXEC"]]
        elif dice < 0.2:
            calls.append(rng.choice([[b"PEXPIRE", key, b"3600000"], [b"PERSIST", key]]))
        await trio.sleep(pause)
        for reply in await client.ask(*calls):
            assert not reply.startswith(b"-") or reply.startswith(
                (b"-BUSYGROUP", b"-NOGROUP", b"-ERR hash value", b"-ERR index", b"-ERR bit", b"-ERR min")
            ), reply


async def backfill(running: InProcess) -> Filling:
    filling = Filling(running.proxy)
    await filling.run(Plan())
    assert filling.progress.complete, filling.progress
    return filling


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize(
    ("source", "target"), [PAIRS[0], *(pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS[1:])]
)
async def test_written_to_while_it_is_copied(server_pool: Pool, source: str, target: str, kind: str) -> None:
    a, b = server_pool.get(source), server_pool.get(target)
    count, key = 6000, b"big:" + kind.encode()
    fill(a.client(), kind, key.decode(), count)
    async with proxy_for_big_keys(a, b) as running:
        done = trio.Event()
        calls = NEWER.get(kind, CALLS[kind]) if (source, target) == PAIRS[2] else CALLS[kind]
        async with trio.open_nursery() as nursery:
            for seed in range(4):
                client = await running.client()
                nursery.start_soon(write, client, calls, key, count, seed, done.is_set)
            await backfill(running)
            done.set()
        await running.settled()
        copies = running.hub.repair.copies_in_pages
        assert copies.pages > 20
        pending = sum(group["pending"] for group in a.client().xinfo_groups(key)) if kind == "stream" else 0
        assert copies.largest < 10 * PAGE + 120 * pending  # pending entries are read at one point
        assert running.hub.repair.largest_read < BIG
        assert not await running.differences()


async def test_more_was_read_of_a_stream_than_is_left(server_pool: Pool) -> None:
    """Redis 8.2 takes no more for a group's entries-read than the stream has had entries, as far as it knows then."""
    a, b = server_pool.get("valkey-9.1"), server_pool.get("redis-8.2")
    fill(a.client(), "stream", "big", 6000)
    a.call("XGROUP", "SETID", "big", "g", "$", "ENTRIESREAD", 6000)
    a.call("XTRIM", "big", "MAXLEN", 3000)
    async with proxy_for_big_keys(a, b) as running:
        await backfill(running)
        await running.settled()
        assert running.hub.repair.copies_in_pages.pages > 3
        assert not await running.differences()


# -- in the middle of a copy -------------------------------------------------------------------------------------------


@asynccontextmanager
async def halfway(
    server_pool: Pool, kind: str, count: int = 6000, *, source: str = "redis-6.2", db: int = 0
) -> AsyncIterator[tuple[InProcess, Client]]:
    """A proxy that has copied three pages of the key `big`, and reads no more before the test has done what it wants.
    Then everything settles, and both sides are equal."""
    a, b = server_pool.get(source), server_pool.get("valkey-9.1")
    fill(a.client(db), kind, "big", count)
    async with proxy_for_big_keys(a, b) as running:
        client = await running.client()
        copies = running.hub.repair.copies_in_pages
        copies.may_read = lambda: copies.pages < 3
        running.hub.repair.mark_unordered((db, b"big"), "not there yet")
        running.hub.flush()
        await until(lambda: copies.pages == 3, "three pages")
        assert copies.paged, "it is not in the middle"
        yield running, client
        copies.may_read = lambda: True
        running.hub.flush()
        await running.settled()
        assert copies.pages > 3 or (a.client(db).memory_usage("big") or 0) < BIG
        assert not copies and not copies.paged
        assert not await running.differences()


RESTARTING = [  # with * those that `make test` leaves out
    ("zset", "ZREMRANGEBYRANK big 5 2510"),
    ("zset", "ZREMRANGEBYLEX big - +"),
    ("*list", "LTRIM big 7000 8000"),
    ("stream", "XSETID big 9999999999999999-1"),
    ("hash", "DEL big"),
    ("*set", "UNLINK big"),
    ("string", "SET big small"),
    ("*string", "GETDEL big"),
    ("*string", "MSET other 1 big 2"),
    ("*hash", "RENAME big elsewhere"),
    ("*set", "SUNIONSTORE big big other"),
    ("zset", "EVAL return(redis.call('zrem',KEYS[1],'member:0000001')) 1 big"),
    ("*hash", "PEXPIRE big 0"),
    ("list", "FLUSHALL"),
    ("hash", "SWAPDB 0 1"),
]


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        pytest.param(kind.removeprefix("*"), command, marks=[pytest.mark.slow] * kind.startswith("*"))
        for kind, command in RESTARTING
    ],
)
async def test_what_no_page_can_state(server_pool: Pool, kind: str, command: str) -> None:
    async with halfway(server_pool, kind) as (_, client):
        assert not (await client.ask(command))[0].startswith(b"-")


async def test_by_rank_and_by_value(server_pool: Pool) -> None:
    """Which elements are meant is asked in the lane; in a transaction, its other commands count."""
    async with halfway(server_pool, "zset") as (running, client):
        broken = running.hub.repair.copies_in_pages.broken
        assert await client.ask("ZREMRANGEBYRANK big 2 4", "ZREMRANGEBYRANK big 3 2") == [b":3\r\n", b":0\r\n"]
        commands = ["ZADD big -5 lowest", "ZREMRANGEBYRANK big 0 0", "ZSCORE big lowest", "ZREMRANGEBYLEX big [x [y"]
        assert (await client.ask("MULTI", *commands, "ZREMRANGEBYRANK big -2 -1", "EXEC"))[-1] == (
            b"*5\r\n:1\r\n:1\r\n$-1\r\n:0\r\n:2\r\n"
        )
        assert (await client.ask("MULTI", "ZREMRANGEBYRANK big 0 0", "ZADD big", "EXEC"))[-1].startswith(b"-EXECABORT")
        assert running.hub.repair.copies_in_pages.broken == broken
    async with halfway(server_pool, "list") as (running, client):
        assert (await client.ask("LREM big 1 member:0000007", "LREM big -1 nosuch"))[0] == b":1\r\n"
        assert (await client.ask("LINSERT big AFTER member:0005000 new"))[0] == b":6000\r\n"
        commands = ["LPUSH big first", "LINSERT big BEFORE first zeroth", "LREM big 0 first", "LREM big 1 zeroth"]
        assert (await client.ask("MULTI", *commands, "EXEC"))[-1] == b"*4\r\n:6001\r\n:6002\r\n:1\r\n:1\r\n"
        assert running.hub.repair.copies_in_pages.broken == 0


async def test_replaced_by_a_key_of_its_own_kind(server_pool: Pool) -> None:
    """Everything that was copied before belongs to another key."""
    async with halfway(server_pool, "set") as (_, client):
        await client.ask("DEL big", [b"SADD", b"big", *(b"new:%d" % number for number in range(3000))])


async def test_expired_and_made_anew_between_two_pages(server_pool: Pool) -> None:
    """No command tells of the expiry, the list on the mirror side lives on for a while (the clocks differ, it is
    thought), and would be as long as it should be. Only the deadlines tell."""
    async with halfway(server_pool, "list") as (running, client):
        running.clocks(60_000, 0)
        await client.ask("PEXPIRE big 20")
        while (await client.ask("EXISTS big"))[0] == b":1\r\n":
            pass
        await client.ask([b"RPUSH", b"big", *(b"new:%d" % number for number in range(6000))])


async def test_written_by_a_transaction_that_watches(server_pool: Pool) -> None:
    async with halfway(server_pool, "hash") as (_, client):
        await client.ask("WATCH big")
        await client.ask("MULTI", "HSET big member:0000001 watched", "HDEL big member:0000002")
        assert (await client.ask("EXEC"))[0].startswith(b"*2")


async def test_the_mirror_connection_is_lost(server_pool: Pool) -> None:
    async with halfway(server_pool, "zset") as (running, client):
        link = running.hub.mirror.link
        assert link is not None
        await client.ask("ZADD big 1 member:0000001")
        link.lose("cut by the test")


async def test_the_mirror_connection_is_lost_when_nothing_is_on_it(server_pool: Pool) -> None:
    """Then no reply tells the copy; it begins again all the same, once."""
    async with halfway(server_pool, "set") as (running, client):
        await until(lambda: running.hub.mirror.idle, "an idle mirror connection")
        link = running.hub.mirror.link
        assert link is not None
        link.lose("cut by the test")
        await client.ask("SADD big new", "SREM big member:0000001")
        assert not running.hub.repair.copies_in_pages.paged


async def test_the_lane_is_lost(server_pool: Pool) -> None:
    async with halfway(server_pool, "hash") as (running, client):
        link = running.hub.lane.link
        assert link is not None
        link.lose("cut by the test")
        await client.ask("HSET big member:0000001 new")


async def test_members_that_go_to_and_fro_between_two_big_keys(server_pool: Pool) -> None:
    async with halfway(server_pool, "list") as (_, client):
        await client.ask("LMOVE big small LEFT RIGHT", "RPOPLPUSH big small", "LMOVE small big LEFT LEFT")
        await client.ask("LMOVE big big LEFT RIGHT", "LMOVE big big RIGHT LEFT", "RPOPLPUSH small big")


async def test_the_size_is_asked_for_in_another_way_where_memory_usage_is_refused(server_pool: Pool) -> None:
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    a.call("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-memory")
    try:
        for kind in CALLS:
            fill(a.client(), kind, kind, 6000)
        a.call("SET", "small", "x")
        async with in_process(
            a, b, by_source=a.url.replace("redis://", "redis://limited:pw@"), backfilled=False
        ) as running:
            running.hub.repair.big_bytes = BIG
            await backfill(running)
            await running.settled()
            copies = running.hub.repair.copies_in_pages
            assert copies.pages > 6 * 10
            assert running.hub.repair.largest_read < BIG
            assert not await running.differences()
    finally:
        a.call("ACL", "DELUSER", "limited")


async def test_a_string_that_the_mirror_side_cannot_take(server_pool: Pool) -> None:
    """It is named, and tried again now and then; nothing that costs a connection is sent."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    b.call("CONFIG", "SET", "proto-max-bulk-len", "1mb")
    try:
        a.client().set("huge", b"x" * 1_500_000)
        async with proxy_for_big_keys(a, b) as running:
            link = running.hub.mirror.link
            running.hub.repair.mark((0, b"huge"), "test")
            running.hub.flush()
            await until(lambda: bool(running.hub.repair.failures), "the refusal")
            (reason,) = running.hub.repair.failures
            assert reason == "it has 1,500,000 bytes, the mirror side takes 1,048,576 (proto-max-bulk-len)"
            assert running.hub.mirror.link is link
    finally:
        b.call("CONFIG", "SET", "proto-max-bulk-len", "512mb")


async def test_a_key_that_cannot_be_paged_is_read_whole_after_some_tries(server_pool: Pool) -> None:
    """A command that breaks off every copy, again and again. Only a whole read shows such a key at one point."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    fill(a.client(), "stream", "big", 6000)
    async with proxy_for_big_keys(a, b) as running:
        client, done = await running.client(), trio.Event()

        async def cap() -> None:
            number = 0
            while not done.is_set():
                number += 1
                await client.ask(f"XSETID big 99999999999999-{number}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cap)
            await backfill(running)
            done.set()
        await running.settled()
        assert running.hub.repair.copies_in_pages.broken >= 5
        assert not await running.differences()
