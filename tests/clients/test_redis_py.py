"""redis-py and its sibling valkey-py, synchronous: the ways in which applications use them.

Each test is an application that checks what it is told, written so that any server that works gives one outcome. No
client retries anything: a lost connection fails the test. What both sides hold is compared after each (conftest.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import redis
import redis.backoff
import redis.retry
import valkey
import valkey.backoff
import valkey.retry
from redis.cache import CacheConfig

from tests.clients.migration import Migration
from tests.proxies import until

Connect = Callable[..., Any]
Entry = tuple[str, dict[str, str]]
LIBRARIES: dict[str, ModuleType] = {"redis-py": redis, "valkey-py": valkey}
WORKERS = 4


# Each word of a line somewhere together with each other word; more lines are more of the same, and cost time.
WAYS = [("redis-py", 2, "at rest"), ("redis-py", 3, "flipping"), ("valkey-py", 2, "flipping")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "library" in metafunc.fixturenames:
        names = ["-".join(map(str, way)) for way in WAYS]
        metafunc.parametrize(("library", "resp", "migration"), WAYS, ids=names, indirect=["library", "migration"])


@pytest.fixture
def library(request: pytest.FixtureRequest) -> ModuleType:
    return LIBRARIES[request.param]


@pytest.fixture
def connect(migration: Migration, library: ModuleType, resp: int) -> Iterator[Connect]:
    """`connect(decode_responses=True, ...)`: one more client of the library with a pool of its own."""
    with ExitStack() as stack:

        def make(**options: Any) -> Any:
            retry = library.retry.Retry(library.backoff.NoBackoff(), 0)
            address = {"host": "127.0.0.1", "port": migration.port, "protocol": resp, "retry": retry}
            return stack.enter_context(client_class(library)(**address | {"decode_responses": True} | options))

        yield make


def client_class(library: ModuleType) -> Any:
    return library.Redis if library is redis else library.Valkey


def together(work: Callable[[int], Any], workers: int = WORKERS) -> list[Any]:
    """What the workers returned, in their order."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, range(workers)))


def flat(parts: Iterable[Iterable[Any]]) -> list[Any]:
    return [item for part in parts for item in part]


def test_pipelines(connect: Connect) -> None:
    client = connect()

    def work(worker: int) -> None:
        name = f"worker:{worker}"
        for number in range(25):
            with client.pipeline(transaction=bool(number % 2)) as pipeline:
                for index in range(20):
                    pipeline.incr("shared").rpush(f"{name}:list", index).hset(f"{name}:hash", str(index), number)
                pipeline.lpop(f"{name}:list", 20).hlen(f"{name}:hash").set(f"{name}:ttl", "v", px=60_000)
                pipeline.incrbyfloat(f"{name}:float", "0.1").sadd("all", f"{worker}:{number}").spop("all")
                *replies, popped, length, _, _, _, _ = pipeline.execute()
            assert popped == [str(index) for index in range(20)] and length == 20
            shared = replies[::3]
            assert shared == sorted(set(shared)), "INCR gives each number once"
            assert not number % 2 or shared == list(range(shared[0], shared[0] + 20)), "a transaction is in one piece"

    together(work)
    assert client.get("shared") == str(WORKERS * 25 * 20)
    assert client.scard("all") == 0


def test_an_error_within_a_pipeline(connect: Connect, library: ModuleType) -> None:
    client = connect()
    for transaction in (False, True):
        with client.pipeline(transaction=transaction) as pipeline:
            pipeline.set("k", "text").lpush("k", "x").append("k", " more").get("k")
            ok, problem, length, text = pipeline.execute(raise_on_error=False)
        assert (ok, length, text) == (True, 9, "text more")
        assert isinstance(problem, library.ResponseError) and str(problem).startswith("WRONGTYPE")


def test_watch(connect: Connect) -> None:
    """The increment that everybody writes, done right: none may be lost, whoever interferes."""
    client = connect()
    client.set("balance", 0)

    def increment(pipeline: Any) -> None:
        value = int(pipeline.get("balance"))
        pipeline.multi()
        pipeline.set("balance", value + 1).rpush("history", value)

    def work(worker: int) -> None:
        for _ in range(10):
            client.transaction(increment, "balance")

    together(work)
    assert client.get("balance") == str(WORKERS * 10)
    assert client.lrange("history", 0, -1) == [str(value) for value in range(WORKERS * 10)]


def test_pubsub(connect: Connect) -> None:
    """Every message once and in order, to a channel's subscriber and to a pattern's."""
    client, count = connect(), 150
    with client.pubsub() as by_channel, client.pubsub() as by_pattern:
        by_channel.subscribe("news", "other")
        by_pattern.psubscribe("n*")
        for subscriber, first in ((by_channel, 2), (by_pattern, 1)):
            for _ in range(first):
                assert subscriber.get_message(timeout=5)["type"] in ("subscribe", "psubscribe")

        def publish(_: int) -> None:
            for number in range(count):
                assert client.publish("news", number) == 2, "as many as subscribed"
                client.incr("published")

        def listen(subscriber: Any) -> list[int]:
            heard: list[int] = []
            while len(heard) < count:
                message = subscriber.get_message(timeout=10)
                assert message is not None, f"only {len(heard)} messages"
                heard.append(int(message["data"]))
            return heard

        roles: list[Callable[[], Any]] = [partial(publish, 0), partial(listen, by_channel), partial(listen, by_pattern)]
        _, *heard = together(lambda role: roles[role](), 3)
        assert heard == [list(range(count))] * 2
        by_channel.unsubscribe("news")
        assert until(lambda: by_channel.get_message(timeout=1), "unsubscribed")["type"] == "unsubscribe"
        until(lambda: client.publish("news", "more") == 1, "one subscriber less")


def test_a_thread_with_handlers(connect: Connect) -> None:
    client = connect()
    heard: list[str] = []
    with client.pubsub(ignore_subscribe_messages=True) as subscriber:
        subscriber.subscribe(**{"orders": lambda message: heard.append(message["data"])})
        thread = subscriber.run_in_thread(sleep_time=0.01, daemon=True)
        for number in range(40):
            client.publish("orders", number)
        until(lambda: len(heard) >= 40, "every message")
        thread.stop()
        thread.join()
    assert heard == [str(number) for number in range(40)]


def take_with_blpop(client: Any, worker: int) -> str:
    _, item = client.blpop(["urgent", "queue"], 5)
    return str(item)


def take_with_blmove(client: Any, worker: int) -> str:
    item = client.blmove("queue", f"processing:{worker}", 5, "LEFT", "RIGHT")
    assert client.lrem(f"processing:{worker}", 1, item) == 1
    return str(item)


def take_with_brpoplpush(client: Any, worker: int) -> str:
    item = client.brpoplpush("queue", f"processing:{worker}", 5)
    client.lrem(f"processing:{worker}", -1, item)
    return str(item)


def take_with_bzpopmin(client: Any, worker: int) -> str:
    return str(client.bzpopmin("priorities", 5)[1])


@pytest.mark.parametrize("take", [take_with_blpop, take_with_blmove, take_with_brpoplpush, take_with_bzpopmin])
def test_blocking(connect: Connect, take: Callable[[Any, int], str]) -> None:
    """Consumers wait before anything is there; each item goes to exactly one of them."""
    client, count = connect(), 120

    def consume(worker: int) -> list[str]:
        taken: list[str] = []
        while not taken or taken[-1] != "end":
            taken.append(take(client, worker))
        return taken[:-1]

    def produce() -> None:
        for number in range(count):
            if take is take_with_bzpopmin:
                client.zadd("priorities", {str(number): count - number})
            else:
                client.rpush("queue", number)
        if take is take_with_bzpopmin:
            until(lambda: client.zcard("priorities") == 0, "everything taken")
            for _ in range(WORKERS):
                client.zadd("priorities", {"end": 1})
                until(lambda: client.zcard("priorities") == 0, "the end taken")
        else:
            until(lambda: client.llen("queue") == 0, "everything taken")
            client.rpush("queue", *["end"] * WORKERS)

    with ThreadPoolExecutor(1) as producer:
        producing = producer.submit(produce)
        taken = flat(together(consume))
        producing.result()
    assert Counter(taken) == Counter(str(number) for number in range(count))
    assert not [key for key in client.scan_iter("processing:*") if client.llen(key) != WORKERS]


TOKEN_BUCKET = """
local left = tonumber(redis.call('GET', KEYS[1]) or ARGV[1])
if left < 1 then return {err = 'EMPTY no tokens'} end
redis.call('SET', KEYS[1], left - 1, 'PX', ARGV[2])
redis.call('RPUSH', KEYS[2], left)
return {left - 1, redis.call('LLEN', KEYS[2])}
"""


def test_scripts(connect: Connect, library: ModuleType) -> None:
    """EVALSHA, which falls back to SCRIPT LOAD once; by itself and in pipelines."""
    client, tokens = connect(), WORKERS * 20
    script = client.register_script(TOKEN_BUCKET)
    keys, args = ["{bucket}", "{bucket}:log"], [tokens, 60_000]

    def work(worker: int) -> list[int]:
        mine = [script(keys=keys, args=args)[0] for _ in range(10)]
        with client.pipeline() as pipeline:
            for _ in range(10):
                script(keys=keys, args=args, client=pipeline)
            return mine + [left for left, _ in pipeline.execute()]

    assert sorted(flat(together(work))) == list(range(tokens))
    with pytest.raises(library.ResponseError, match="no tokens"):
        script(keys=keys, args=args)
    assert client.script_exists(script.sha) == [True]
    assert client.eval("return {KEYS[1], ARGV[1], false, 3.9}", 1, "a", "b") == ["a", "b", None, 3]


def test_streams(connect: Connect) -> None:
    """A consumer group; one consumer dies with what it was given, and another claims that."""
    client, count = connect(), 100
    client.xgroup_create("events", "group", "$", mkstream=True)

    def produce() -> None:
        for number in range(count):
            client.xadd("events", {"number": number}, maxlen=1000, approximate=True)

    def consume(worker: int) -> list[str]:
        mine = []
        for found in iter(partial(read_new, client, worker), []):
            for ident, fields in found:
                mine.append(fields["number"])
                assert client.xack("events", "group", ident) == 1
        return mine

    produce()
    lost = client.xreadgroup("group", "dies", {"events": ">"}, count=7)
    assert len(entries_of(lost)) == 7
    with ThreadPoolExecutor(1) as producer:
        producing = producer.submit(produce)
        done = flat(together(consume, 3))
        producing.result()
    _, claimed, *_ = client.xautoclaim("events", "group", "heir", 0, "0-0", count=50)
    done += [fields["number"] for _, fields in claimed]
    client.xack("events", "group", *[ident for ident, _ in claimed])
    assert Counter(done) == Counter([str(number) for number in range(count)] * 2)
    assert client.xpending("events", "group")["pending"] == 0
    assert client.xlen("events") == 2 * count
    client.xtrim("events", maxlen=10, approximate=False)
    client.xgroup_delconsumer("events", "group", "dies")


def read_new(client: Any, worker: int) -> list[Entry]:
    return entries_of(client.xreadgroup("group", f"consumer:{worker}", {"events": ">"}, count=5, block=700))


def entries_of(reply: Any) -> list[Entry]:
    """The one stream's entries out of XREADGROUP's reply: in RESP3, the libraries put them into one more list."""
    if not reply:
        return []
    return reply["events"][0] if isinstance(reply, dict) else reply[0][1]


def test_locks(connect: Connect) -> None:
    """Two readers of the same value would lose an increment."""
    client = connect()
    client.set("guarded", 0)

    def work(worker: int) -> None:
        for _ in range(6):
            with client.lock("lock", timeout=20, blocking_timeout=15, sleep=0.005) as lock:
                value = int(client.get("guarded"))
                assert lock.owned() and lock.extend(5)
                client.set("guarded", value + 1)

    together(work)
    assert client.get("guarded") == str(WORKERS * 6)
    assert not client.exists("lock")


def test_scan_iterators(connect: Connect) -> None:
    """What is there from beginning to end is seen, whatever else comes and goes."""
    client = connect()
    names = {f"stays:{number}" for number in range(1500)}
    members = [f"member:{number}" for number in range(600)]
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.set(name, "v")
        pipeline.sadd("set", *members).hset("hash", mapping=dict.fromkeys(members, "v"))
        pipeline.zadd("zset", dict.fromkeys(members, 1))
        pipeline.execute()

    def disturb() -> None:
        for number in range(200):
            client.set(f"goes:{number}", "v")
            client.delete(f"goes:{number - 50}")

    with ThreadPoolExecutor(1) as other:
        disturbing = other.submit(disturb)
        assert names <= set(client.scan_iter(match="stays:*", count=20))
        assert names <= set(client.scan_iter(count=50, _type="string"))
        disturbing.result()
    assert set(client.sscan_iter("set", count=20)) == set(members)
    assert {name for name, _ in client.hscan_iter("hash", count=20)} == set(members)
    assert {name for name, _ in client.zscan_iter("zset", count=20)} == set(members)


def test_a_pool_with_health_checks(connect: Connect) -> None:
    """Connections with a db and a name, PINGed before each use, fewer of them than threads."""
    client = connect(db=3, client_name="app", health_check_interval=0.001, max_connections=20)
    other = connect(db=0)

    def work(worker: int) -> None:
        for number in range(30):
            assert client.client_getname() == "app"
            assert client.set(f"k:{worker}", number, ex=1000)
            assert client.getex(f"k:{worker}", px=500_000) == str(number)
            assert other.get(f"k:{worker}") is None, "another db"
            other.hset("h", str(worker), number)

    together(work)
    assert client.dbsize() == WORKERS and other.dbsize() == 1
    assert {line["db"] for line in other.client_list() if line["name"] == "app"} == {"3"}
    assert client.move("k:0", 0) and other.exists("k:0")


def test_values_of_every_kind(connect: Connect) -> None:
    client = connect(decode_responses=False)
    blob = bytes(range(256)) * 200
    for round_ in range(5):
        client.set(b"\x00\xff\r\n", blob, ex=1000)
        assert client.get(b"\x00\xff\r\n") == blob
        client.mset({f"m:{number}": number for number in range(50)})
        assert client.mget([f"m:{number}" for number in range(51)])[-2:] == [b"49", None]
        client.zadd("board", {"ann": 1.5, "bob": float("inf")})
        assert client.zincrby("board", 0.1, "ann") == pytest.approx(1.6 + 0.1 * round_ if round_ == 0 else 1.6)
        assert client.zrange("board", 0, -1, withscores=True)[1][1] == float("inf")
        client.geoadd("geo", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"))
        assert client.geosearchstore("near", "geo", member="Palermo", radius=200, unit="km") == 2
        client.pfadd("hll", *range(round_ * 100, round_ * 100 + 100))
        assert client.pfcount("hll") == pytest.approx(100 * (round_ + 1), rel=0.05)
        client.setbit("bits", 1000 + round_, 1)
        assert client.bitcount("bits") == round_ + 1
        assert client.bitfield("fields").incrby("u8", 0, 100, "SAT").execute() == [min(255, 100 * (round_ + 1))]
        client.hset("user", mapping={"name": "é", "n": round_})
        assert client.hgetall("user") == {b"name": "é".encode(), b"n": b"%d" % round_}
        client.rename("user", "renamed")
        assert client.copy("renamed", "user", replace=True)
        assert client.sort("m:list", alpha=True, store="sorted") == 0
        client.expireat("renamed", 4_000_000_000)
        assert client.persist("renamed")


@pytest.mark.versions("redis-8.2", "valkey-9.1")
def test_client_side_caching(migration: Migration) -> None:
    """A cache may be behind for a moment; it never goes back, and ends at the truth."""
    cached = migration.client(protocol=3, cache_config=CacheConfig(), decode_responses=True)
    with cached, migration.client() as other:
        other.set("version", 0)
        seen = []
        for number in range(1, 150):
            other.set("version", number)
            seen += [int(cached.get("version")) for _ in range(5)]
        assert seen == sorted(seen)
        until(lambda: cached.get("version") == "149", "the last version")
        assert cached.get_cache().size == 1
